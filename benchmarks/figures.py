"""The pictures of the documentation, drawn from committed results; and how those results are recorded.

Run: python benchmarks/figures.py
Record first, from what `nestling demo -o DEMO` and the commands of docs/guides/layers.md left:
      python benchmarks/figures.py --demo DEMO --layers FOLDER
and for vectors that were never nested (needs the emoji pictures): python benchmarks/figures.py --bytes
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nestling import Curve, TextEncoder, sweep
from nestling.compare import LayerSimilarities, compare_layers, plot_layers
from nestling.data import docstring_pairs, stsb
from nestling.encoders.activations import activations
from nestling.measure import Fidelity, Retrieval, encode_task
from nestling.measure.baselines import random_dims, truncation
from nestling.measure.machine import machine, today, versions
from nestling.papers.problems.searched_vectors import pictures
from nestling.picture import draw, look_of, value_axis

RESULTS = Path(__file__).parent / "results" / "figures"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
_STUDIED = ("nested", "truncation", "random dims")
_KEPT = ("rank", "local", "neighbours@10")
_MINILM = ("MiniLM", "MiniLM trained for early exit")
_LAYERS = "0.*.encoder.layer.*"
_TEXTS = 500
_PRECISIONS = "bits=1,2,4,8,32"
_DOCUMENTS = 3_000
_KEPT_BY_DEMO = 0.99
_KINDS = (
    ("nested by the demo, 256 dims", "docstrings"),
    ("MiniLM as it comes, 384 dims", "docstrings"),
    ("CLIP as it comes, 128 dims", "pictures"),
)
_MERGED = ("clusters", "means of runs", "the first")
_APART = 0.8  # of a tick, the most that the one before may be, so that numbers do not overlap
_ASKED = 500  # queries that the demo compares its index with the exact scan on


def curves(name: str) -> list[Curve]:
    """The curves of one record, in the order in which they are drawn."""
    return [Curve.load(path) for path in sorted((RESULTS / name).glob("*.json"))]


def draw_all(folder: Path) -> None:
    """Write every picture of the documentation into a folder."""
    nested, *others = curves("demo")
    nested.plot(folder / "curve.png", others=others, chosen=nested.choose(keep=_KEPT_BY_DEMO))
    kinds = (replace(nested, truncation=None), *curves("bytes"))
    draw(folder / "bytes.png", *map(_bytes_panel, kinds, _KINDS))
    before, after = (replace(curve, name=name) for curve, name in zip(curves("layers"), _MINILM, strict=True))
    before.heatmap(folder / "layers.png", others=[after])
    quality, kept = (
        [_in_floats(curve) for curve in curves(name) if curve.name in _STUDIED]
        for name in ("demo", "fidelity")
    )
    panels = [_panel(quality, "ndcg@10"), *(_panel(kept, metric) for metric in _KEPT)]
    draw(folder / "fidelity.png", *panels)
    cka = json.loads((RESULTS / "cka.json").read_text(encoding="utf-8"))
    alike = LayerSimilarities(*(cka[name] for name in ("values", "rows", "columns", "quantity")))
    plot_layers(alike, folder / "cka.png", names=_MINILM)
    draw(
        folder / "tokens.png",
        _mosaics("m3", "windows of a grid (M3)"),
        _mosaics("mqt", "queries (MQT)"),
        _texts,
    )


def record(demo: Path | None, layers: Path | None, never_nested: bool) -> None:
    """Keep what the pictures are drawn from."""
    if never_nested:
        _keep("bytes", [_minilm(), _emoji()])
    if layers is not None:
        _keep("layers", [Curve.load(layers / part / "curve.json") for part in ("before", "after")])
        _record_cka(layers)
    if demo is not None:
        _keep("demo", [Curve.load(path) for path in sorted((demo / "curves").glob("*.json"))])
        _keep("fidelity", _fidelity(demo))
        _record_index(demo)


def _in_floats(curve: Curve) -> Curve:
    """The full precision alone."""
    if "bits" not in curve.nesting.axes:
        return curve
    return curve.part(g for g in curve.nesting if g["bits"] == curve.nesting.full["bits"])


def _panel(found: Sequence[Curve], metric: str) -> Callable[[Any], None]:
    first, *others = found
    return lambda axes: first.plot(axes, metric=metric, others=others)


def _bytes_panel(curve: Curve, kind: tuple[str, str]) -> Callable[[Any], None]:
    title, searched = kind

    def panel(axes: Any) -> None:
        curve.plot(axes, chosen=curve.choose(keep=_KEPT_BY_DEMO))
        axes.set_title(title)
        value_axis(axes, f"{curve.metrics[0]}, {searched}")

    return panel


def _mosaics(paper: str, title: str) -> Callable[[Any], None]:
    """Right answers of one model of all numbers of tokens, by kind of question."""
    claims = json.loads((RESULTS.parent / f"{paper}.json").read_text(encoding="utf-8"))["claims"]
    figures = {name: value for claim in claims for name, value in claim["figures"].items()}
    lines = {
        f"about {what}": {
            int(name.split()[-1]): value
            for name, value in figures.items()
            if re.fullmatch(rf"{kind} at \d+", name)
        }
        for kind, what in (("cell", "a cell"), ("quadrant", "a quadrant"), ("mosaic", "all of it"))
    }
    return _token_panel(lines, title, "right answers to questions, percent")


def _texts(axes: Any) -> None:
    """Token vectors of Cranfield, merged in several ways."""
    lines: dict[str, dict[int, float]] = {}
    with (RESULTS.parent / "late_interaction.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["method"] in _MERGED:
                lines.setdefault(row["method"], {})[int(row["tokens"])] = float(row["ndcg@10"])
    _token_panel(lines, "token vectors of texts", "ndcg@10 on Cranfield")(axes)


def _token_panel(lines: dict[str, dict[int, float]], title: str, quantity: str) -> Callable[[Any], None]:
    def panel(axes: Any) -> None:
        axes.set_xscale("log", base=2)
        for number, (name, values) in enumerate(lines.items()):
            look, sizes = look_of(number), sorted(values)
            axes.plot(
                sizes,
                [values[size] for size in sizes],
                color=look.colour,
                marker=look.marker,
                dashes=look.dashes or (None, None),
                label=name,
            )
        ticks: list[int] = []
        for size in sorted({size for values in lines.values() for size in values}, reverse=True):
            if not ticks or size <= _APART * ticks[-1]:
                ticks.append(size)
        axes.set_xticks(ticks, ticks)
        axes.set_xlabel("tokens")
        axes.set_title(title)
        value_axis(axes, quantity)
        axes.legend()

    return panel


def _minilm() -> Curve:
    """MiniLM as it comes, on some of the pairs that the demo holds out."""
    _, _, test = docstring_pairs().split(seed=0)
    task, encoder = Retrieval.from_pairs(test.head(_DOCUMENTS)), TextEncoder.open("minilm")
    return sweep(encoder, task, f"dim=12..384 x {_PRECISIONS}", name="MiniLM as it comes")


def _emoji() -> Curve:
    """CLIP as it comes: emoji in three styles look for the same ones in the other styles."""
    task = pictures(quick=False).draw(0).judging
    return sweep(_as_given, task, f"dim=8..128 x {_PRECISIONS}", name="pictures by CLIP as it comes")


def _as_given(vectors: Any) -> Any:
    return vectors


def _fidelity(demo: Path) -> list[Curve]:
    """Fidelity of the demo's model to its full vectors, beside the vectors it was trained on."""
    nested, plain = TextEncoder.load(demo / "model"), TextEncoder.open("wordllama")
    _, _, test = docstring_pairs().split(seed=0)  # the rows that the demo held out
    task = Fidelity(list(dict.fromkeys(test.documents)), limit=1000)
    vectors = encode_task(plain, task)
    kept = sweep(nested, task, name="nested", truncation=False)
    return [kept, *(baseline(vectors, nested.nesting) for baseline in (truncation, random_dims))]


def _record_index(demo: Path) -> None:
    """Recall and latency of the demo's index, beside the exact scan."""
    from nestling.domains.text.collection import Collection
    from nestling.search.tuning.planner import compare_with_exact

    _, _, test = docstring_pairs().split(seed=0)
    with Collection.open(demo / "collection") as collection:
        asked = collection.encoder.encode(list(test.queries[:_ASKED]))
        recall, ours_ms, exact_ms = compare_with_exact(collection.index, asked, target=0.95)
        found = {"plan": str(collection.index.plan), "rows": len(collection.index)}
    _write("demo_index", found | {"recall": recall, "ours_ms": ours_ms, "exact_ms": exact_ms})


def _record_cka(layers: Path) -> None:
    """The layers of MiniLM before training against those after it, on some pairs of the STS benchmark."""
    rated = stsb("test")
    texts = list(dict.fromkeys(rated.first))[:_TEXTS]
    before, after = (
        {
            f"layer {number}": patterns
            for number, patterns in enumerate(activations(model.model, texts, _LAYERS).values(), start=1)
        }
        for model in (TextEncoder.open("minilm"), TextEncoder.load(layers / "runs" / "sts" / "model"))
    )
    found = compare_layers(before, after)
    kept = {**asdict(found), "values": found.values.round(6).tolist(), "texts": len(texts)}
    _write("cka", kept)


def _write(name: str, found: dict[str, Any]) -> None:
    stamp = {"machine": machine(), "date": today(), "versions": versions()}
    (RESULTS / f"{name}.json").write_text(json.dumps(found | stamp, indent=1) + "\n", encoding="utf-8")


def _keep(name: str, found: Sequence[Curve]) -> None:
    folder = RESULTS / name
    for path in folder.glob("*.json"):
        path.unlink()
    for number, curve in enumerate(found, start=1):
        curve.save(folder / f"{number}.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--layers", type=Path)
    parser.add_argument("--bytes", action="store_true")
    given = parser.parse_args()
    record(given.demo, given.layers, given.bytes)
    draw_all(IMAGES)
