"""The pictures of the documentation, drawn from committed results; and how those results are recorded.

Draw: python benchmarks/figures.py
Record first, from what `nestling demo -o DEMO` and the commands of docs/guides/layers.md left:
      python benchmarks/figures.py --demo DEMO --layers FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nestling import Curve, TextEncoder, sweep
from nestling.data import docstring_pairs
from nestling.measure import Fidelity, encode_task
from nestling.measure.baselines import random_dims, truncation
from nestling.measure.machine import machine, today, versions
from nestling.picture import draw

RESULTS = Path(__file__).parent / "results" / "figures"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
_STUDIED = ("nested", "truncation", "random dims")
_KEPT = ("rank", "local", "neighbours@10")
_ASKED = 500  # queries that the demo compares its index with the exact scan on


def curves(name: str) -> list[Curve]:
    """The curves of one record, in the order in which they are drawn."""
    return [Curve.load(path) for path in sorted((RESULTS / name).glob("*.json"))]


def draw_all(folder: Path) -> None:
    """Write every picture of the documentation into a folder."""
    nested, *others = curves("demo")
    nested.plot(folder / "curve.png", others=others)
    before, after = curves("layers")
    before.heatmap(folder / "layers.png", others=[after])
    quality, kept = (
        [curve for curve in curves(name) if curve.name in _STUDIED] for name in ("demo", "fidelity")
    )
    panels = [_panel(quality, "ndcg@10"), *(_panel(kept, metric) for metric in _KEPT)]
    draw(folder / "fidelity.png", *panels)


def record(demo: Path | None, layers: Path | None) -> None:
    """Keep what the pictures are drawn from."""
    if layers is not None:
        _keep("layers", [Curve.load(layers / part / "curve.json") for part in ("before", "after")])
    if demo is not None:
        _keep("demo", [Curve.load(path) for path in sorted((demo / "curves").glob("*.json"))])
        _keep("fidelity", _fidelity(demo))
        _record_index(demo)


def _panel(found: Sequence[Curve], metric: str) -> Callable[[Any], None]:
    first, *others = found
    return lambda axes: first.plot(axes, metric=metric, others=others)


def _fidelity(demo: Path) -> list[Curve]:
    """What the demo's model keeps of its own vectors, beside the vectors it was trained on top of."""
    nested, plain = TextEncoder.load(demo / "model"), TextEncoder.open("wordllama")
    _, _, test = docstring_pairs().split(seed=0)  # what the demo held out
    task = Fidelity(list(dict.fromkeys(test.documents)), limit=1000)
    vectors = encode_task(plain, task)
    kept = sweep(nested, task, name="nested", truncation=False)
    return [kept, *(baseline(vectors, nested.nesting) for baseline in (truncation, random_dims))]


def _record_index(demo: Path) -> None:
    """How the demo's index compares with the exact scan."""
    from nestling.domains.collection import Collection
    from nestling.search.tune import compare_with_exact

    _, _, test = docstring_pairs().split(seed=0)
    with Collection.open(demo / "collection") as collection:
        asked = collection.encoder.encode(list(test.queries[:_ASKED]))
        recall, ours_ms, exact_ms = compare_with_exact(collection.index, asked, target=0.95)
        found = {"plan": str(collection.index.plan), "rows": len(collection.index)}
    found |= {"recall": recall, "ours_ms": ours_ms, "exact_ms": exact_ms}
    stamp = {"machine": machine(), "date": today(), "versions": versions()}
    (RESULTS / "demo_index.json").write_text(json.dumps(found | stamp, indent=1) + "\n", encoding="utf-8")


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
    given = parser.parse_args()
    record(given.demo, given.layers)
    draw_all(IMAGES)
