"""Retrieval by layer in the tours of layers: what counts as a gain, and a tour on few texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestling.data.pairs import TextPairs
from nestling.granularity import Nesting
from nestling.papers import reproduce, starbucks
from nestling.papers.claims import layer_retrieval
from nestling.papers.claims.layer_retrieval import find, least_lift, mean_lift
from nestling.papers.claims.layer_study import minilm

THINGS = [
    "cats",
    "ships",
    "stars",
    "rivers",
    "violins",
    "volcanoes",
    "bells",
    "lamps",
    "roads",
    "wolves",
    "coins",
    "maps",
]


def by_layer(*values: float) -> dict[str, float]:
    return {f"dim=384,layer={layer}": value for layer, value in enumerate(values, start=1)}


def test_gains_below_the_last_layer() -> None:
    each = {
        "new": {"xquad": by_layer(30, 50, 80), "cranfield": by_layer(10, 12, 20)},
        "old": {"xquad": by_layer(20, 30, 90), "cranfield": by_layer(4, 13, 40)},
        "untouched": {"xquad": by_layer(25, 20, 90), "cranfield": by_layer(5, 5, 40)},
    }
    gain, figures = mean_lift(each, "new", "old")
    assert gain == (10 + 12 - 4 - 13) / 2  # of Cranfield; on XQuAD it is 15
    assert list(figures)[:3] == [f"xquad, layer 1, {name}" for name in each]
    assert figures["cranfield, layer 3, old"] == 40
    assert len(figures) == 18
    assert mean_lift(each, "old", "new")[0] == -15
    assert least_lift(each, "new") == (-1, figures)  # Cranfield at layer 2


@pytest.fixture
def few_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Twelve passages with a question each, and 150 pairs to learn from."""
    folder = tmp_path / "data" / "xquad"
    folder.mkdir(parents=True)
    paragraphs = [
        {"context": f"Long ago {thing} were rare.", "qas": [{"id": thing, "question": f"Where are {thing}?"}]}
        for thing in THINGS
    ]
    (folder / "xquad.en.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path / "data"))
    pairs = TextPairs(
        [f"count_{n}({n})" for n in range(150)], [f"How many {n} there are" for n in range(150)]
    )
    monkeypatch.setattr(starbucks, "docstring_pairs", lambda limit: pairs.head(limit))
    layer_retrieval._task.cache_clear()
    yield
    layer_retrieval._task.cache_clear()


def test_the_figures_of_each_layer_are_those_of_the_encoder_cut_there(few_texts: None) -> None:
    from nestling.data import xquad
    from nestling.measure import Retrieval, sweep

    found = find(minilm(), quick=True)["xquad"]
    assert list(found) == [f"dim=384,layer={layer}" for layer in range(1, 7)]
    for g in ("dim=384,layer=2", "dim=384,layer=6"):
        small = minilm().extract(g)
        task = Retrieval.from_data(xquad(), measures=("mrr",))
        (row,) = sweep(small, task, Nesting((small.nesting.full,))).column()
        assert found[g] == pytest.approx(100 * row.value)


@pytest.mark.slow
def test_training_to_search_is_measured_and_reported(few_texts: None, tmp_path: Path) -> None:
    report = reproduce("starbucks", claims=["S7b"], seeds=2, quick=True, output=tmp_path / "out")
    (claim,) = report.claims
    names = ("Starbucks for search", "plain for search", "untouched")
    assert claim.data == "Python docstrings, all-MiniLM-L6-v2"
    assert set(claim.figures) == {f"xquad, layer {layer}, {n}" for layer in range(1, 7) for n in names}
    assert set(report.settings["learning rates"]) == set(names[:2])
