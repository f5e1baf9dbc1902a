"""``nestling demo``: from real text to a chosen granularity and a search, in five steps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.cli.flags.completion import models
from nestling.cli.flags.options import Seed
from nestling.cli.flags.registration import home_name
from nestling.cli.terminal.interrupts import kept_training
from nestling.cli.terminal.output import check_results, say, show
from nestling.errors import CalibrationWarning

if TYPE_CHECKING:
    from nestling.domains.text.collection import Collection
    from nestling.domains.text.train_plan import TrainPlan
    from nestling.granularity import Granularity
    from nestling.measure.curve.curve import Curve

DEMO_FOLDER = Path("nestling-demo")
COLLECTION = "collection"
NEXT_SEARCH = "read a csv into an array"
_EXAMPLES = (
    "compute the standard deviation of the columns of a matrix",
    "split text into words",
    "wait until a background task has finished",
)
_KEEP = 0.99
# Fine steps, so that the choice is fine; other encoders double from 8 up.
_NESTINGS = {"wordllama": "dim=16..256+16", "minilm": "dim=24..384+24"}
_TRAINING = {"epochs": 6, "batch_size": 1024, "lr": 3e-3}
_MILLION = 1_000_000
_RECALL = 0.95
_COMPARED = 500


def demo(
    pairs: Annotated[Path | None, typer.Option(help="Your own file of (query, document) pairs.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Your own file of texts.")] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="The text encoder: wordllama, minilm, a folder, or a name on the Hugging Face hub.",
            callback=home_name,
            autocompletion=models,
        ),
    ] = "wordllama",
    nesting: Annotated[str | None, typer.Option(help="Sizes to train, such as dim=8..256 (doubled).")] = None,
    output: Annotated[Path, typer.Option(help="The folder for everything that it makes.")] = DEMO_FOLDER,
    seed: Seed = 0,
) -> None:
    """Train a nested model on real text, choose a size and precision, and search.

    By default the text is the docstrings of your installed Python packages.

    Example: nestling demo --pairs my.csv
    """
    from nestling.encoders.text.names import check_model

    check_model(encoder, to_train=True)
    check_results(output, "curve.json", "curve.png", "report.html")
    from nestling.storage.artifact import check_folder_target

    check_folder_target(output / "model", "text_encoder")
    check_folder_target(output / COLLECTION, "collection")
    from nestling.domains.text.train_plan import check_sources, read_plan

    plan = read_plan(
        None,
        {
            "pairs": None if pairs is None else str(pairs),
            "texts": None if texts is None else str(texts),
            "encoder": encoder,
            "nesting": nesting or _NESTINGS.get(encoder),
            "seed": seed,
            **_TRAINING,
            "folder": str(output / "training"),
        },
    )
    check_sources(plan.data)
    with kept_training(output / "training"):
        _show_all(plan, encoder, output, seed, has_own=pairs is not None or texts is not None)


def _show_all(plan: TrainPlan, encoder: str, output: Path, seed: int, *, has_own: bool) -> None:
    """The five steps, on the user's own data or on docstrings."""
    from nestling.domains.text import retrieval as text

    say("1 of 5: collecting pairs of texts")
    everything = text.read_data(plan.data)
    study = text.TextStudy(plan, everything)
    trained, held_out = len(study.training), len(study.test)
    show(f"{len(everything):,} pairs: {trained:,} to train, {held_out:,} held out in other groups")

    say(f"2 of 5: encoding with {encoder}, training a nested adapter")
    nested = study.train()

    say("3 of 5: measuring every size and precision on the held-out pairs")
    curve, *baselines = study.measure(nested)

    say("4 of 5: choosing")
    chosen = curve.choose(keep=_KEEP)
    _report(curve, baselines, chosen, output)

    say(f"5 of 5: making all {len(everything):,} texts searchable at {chosen}")
    nested.save(output / "model")
    asked = study.validation.queries[:_COMPARED]
    with _collect(nested, everything, chosen, output / COLLECTION, asked, seed) as collection:
        _compare_with_exact(collection, study.test.queries)
        for query in study.test.queries[:3] if has_own else _EXAMPLES:
            _show_hits(collection, query)
        _show_bytes(collection, output / COLLECTION)
    question = study.test.queries[3] if has_own else NEXT_SEARCH
    where = "" if output == DEMO_FOLDER else f"{output / COLLECTION} "
    show(f'\nNext: nestling search {where}"{question}"')


def _report(curve: Curve, baselines: list[Curve], chosen: Granularity, output: Path) -> None:
    from nestling.measure.curve.summary import headline
    from nestling.measure.curve.table import compare

    curve.save(output / "curve.json")
    for number, each in enumerate([curve, *baselines], start=1):
        each.save(output / "curves" / f"{number}.json")
    curve.plot(output / "curve.png", others=baselines, chosen=chosen)
    curve.to_html(output / "report.html", others=baselines, chosen=chosen)
    floats = [each.part(_floats(each)) for each in (curve, *baselines)]
    best = curve.part([*curve.at_budgets().nesting, chosen])
    for text in (compare(floats), curve.grid(), best.table(), best.chart()):
        show("")
        show(text)
    show(f"\nChosen: {chosen}, the fewest bytes that keep {_KEEP:.0%} of the full quality.")
    for sentence in headline(curve, baselines, chosen, _MILLION):
        show(sentence)
    show(f"Written: {output / 'curve.json'}, {output / 'curve.png'}, {output / 'report.html'}")


def _floats(curve: Curve) -> list[Granularity]:
    full = curve.nesting.full.get("bits")
    return [g for g in curve.nesting if g.get("bits") == full]


def _show_bytes(collection: Collection, folder: Path) -> None:
    """Show the bytes of a vector, of all, and of the whole folder."""
    from nestling.measure.curve.table import short

    index, count = collection.index, len(collection)
    row_bytes, float_bytes = index.cost().output_bytes, 4 * index.dim
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    show(f"\nEach of the {count:,} vectors takes {row_bytes:,} bytes, all {short(count * row_bytes)}B.")
    if row_bytes < float_bytes:
        show(f"As floats of dim={index.dim} they would take {short(count * float_bytes)}B.")
    show(f"The collection takes {short(on_disk)}B on disk, with texts, ids and encoder.")


def _collect(
    encoder: Any, pairs: Any, at: Granularity, folder: Path, asked: Sequence[str], seed: int
) -> Collection:
    from nestling.domains.text.collection import Collection

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # few texts are measured with such a code too
        return Collection.create(
            folder,
            encoder,
            pairs.documents,
            fields={"title": pairs.queries},
            at=at,
            recall=_RECALL,
            queries=asked,
            seed=seed,
            overwrite=True,
        )


def _compare_with_exact(collection: Collection, queries: Sequence[str]) -> None:
    """Show the recall of the index, and its latency beside that of an exact scan."""
    from nestling.search.tuning.planner import compare_with_exact

    index, asked = collection.index, collection.encoder.encode(list(queries[:_COMPARED]))
    recall, ours_ms, exact_ms = compare_with_exact(index, asked, target=_RECALL)
    held = f"codes of {bits} bits" if (bits := index.nesting.full.get("bits")) else "floats"
    show(f"The index keeps {held}; its plan is {index.plan}.")
    show(f"On {len(asked):,} held-out queries it finds {recall:.1%} of the ten nearest of these,")
    show(f"with a median latency of {ours_ms:.2f} ms; an exact scan takes {exact_ms:.2f} ms.")


def _show_hits(collection: Collection, query: str) -> None:
    show(f"\n{query}?")
    for hit in collection.search(query, k=3):
        show(f"  {hit.score:.2f}  {str(hit.fields['title'])[:60]:60}  {hit.text[:90]}")
