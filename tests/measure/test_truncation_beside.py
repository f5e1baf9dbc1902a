"""Nested models are shown beside the plain truncation of their starting point."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling import NestedAdapter, PCARotation, TextEncoder
from nestling.data.pairs import TextPairs
from nestling.encoders.text.opening import open_encoder
from nestling.encoders.text.origin import TrainedFrom
from nestling.encoders.text.static.encoder import StaticEncoder
from nestling.measure import Curve, Fidelity, Retrieval, compare, encode_task, sweep
from nestling.measure.baselines import truncation

THINGS = ["cat", "dog", "car", "tree", "river", "bread", "house", "guitar", "planet", "shoe"]
PAIRS = TextPairs(
    [f"where is the {a} of the {b}" for a in THINGS for b in THINGS],
    [f"somebody put the {a} near the {b} again" for a in THINGS for b in THINGS],
)
TASK = Retrieval.from_pairs(PAIRS)
SIZES = "dim=8,64,256"


@pytest.fixture(scope="module")
def plain() -> TextEncoder:
    return TextEncoder.open("wordllama")


@pytest.fixture(scope="module")
def nested(plain: TextEncoder) -> TextEncoder:
    queries, documents = plain.encode(PAIRS.queries), plain.encode(PAIRS.documents)
    adapter = NestedAdapter(SIZES, max_steps=20, batch_size=32).fit(queries, pairs=documents)
    return plain.with_adapter(adapter)


def values(curve: Curve) -> list[float]:
    return [row.value for row in curve.rows]


def test_an_adapted_encoder_stands_beside_the_encoder_under_it(
    plain: TextEncoder, nested: TextEncoder, tmp_path: Path
) -> None:
    nested.save(tmp_path / "model")
    for encoder in (nested, TextEncoder.load(tmp_path / "model")):
        curve = sweep(encoder, TASK, bits=32, resamples=50)
        assert curve.truncation is not None
        alone = truncation(encode_task(plain, TASK), SIZES)
        assert values(curve.truncation) == pytest.approx(values(alone), abs=1e-3)
        by_itself = sweep(encoder, TASK, bits=32, resamples=50, truncation=False)
        assert values(curve) == pytest.approx(values(by_itself), abs=1e-3)
        assert by_itself.truncation is None
        for gain in curve.gains:
            ours, theirs = (each.row(gain.granularity, gain.metric) for each in (curve, curve.truncation))
            assert gain.value == pytest.approx(ours.value - theirs.value)
            assert gain.low <= gain.value <= gain.high
        assert "pays at" in curve.verdict


def test_an_extract_knows_it_too(nested: TextEncoder) -> None:
    curve = sweep(nested.extract("dim=64"), TASK, bits=32, resamples=20)
    assert curve.truncation is not None
    assert [str(g) for g in curve.truncation.nesting] == ["dim=8", "dim=64"]
    whole = sweep(nested, TASK, bits=32, resamples=20)
    assert curve.row("dim=8").value == pytest.approx(whole.row("dim=8").value, abs=1e-3)


def test_the_encoder_under_a_map_is_encoded_once(nested: TextEncoder, monkeypatch: Any) -> None:
    texts = 0
    real = TextEncoder.encode

    def counted(self: TextEncoder, given: Any, *rest: Any, **more: Any) -> Any:
        nonlocal texts
        texts += len(given)
        return real(self, given, *rest, **more)

    monkeypatch.setattr(TextEncoder, "encode", counted)
    sweep(nested, TASK, resamples=20)
    assert texts == len(TASK.queries) + len(TASK.documents)


def test_an_encoder_trained_whole_stands_beside_what_it_was(plain: TextEncoder, tmp_path: Path) -> None:
    trained = TextEncoder.open("wordllama", SIZES)
    trained.trained_from = TrainedFrom("wordllama")
    trained.save(tmp_path / "model")
    curve = sweep(TextEncoder.open(tmp_path / "model"), TASK, resamples=20)
    assert curve.truncation is not None
    assert {gain.value for gain in curve.gains} == {0.0}  # it is the same model
    assert "Training pays at no size" in curve.verdict
    trained.trained_from = TrainedFrom(str(tmp_path / "gone"))
    alone = sweep(trained, TASK, resamples=20)
    assert alone.truncation is None
    assert "cannot be opened here" in alone.verdict


def test_layers_stand_beside_the_layers_of_the_untrained_model(tiny_bert_folder: Path) -> None:
    nesting = "layer=1,2 x dim=8,32"
    trained = TextEncoder.open(tiny_bert_folder, nesting)
    trained.trained_from = TrainedFrom(str(tiny_bert_folder))
    curve = sweep(trained, TASK, resamples=20)
    assert curve.truncation is not None
    assert curve.truncation.nesting == curve.nesting
    assert {gain.value for gain in curve.gains} == {0.0}


def test_a_stock_model_says_that_its_cuts_are_plain(plain: TextEncoder, tiny_bert_folder: Path) -> None:
    stock = TextEncoder.open(tiny_bert_folder)
    assert "this is plain truncation" in sweep(stock, TASK, "dim=8,32", resamples=20).table()
    found = sweep(plain, TASK, resamples=20)  # wordllama was trained by others
    assert "does not record what it was trained from" in found.verdict


@pytest.mark.parametrize("kind", ["pca", "adapter"])
def test_a_map_of_vectors_stands_beside_the_vectors(plain: TextEncoder, kind: str) -> None:
    vectors = encode_task(plain, TASK)
    fitted: Any = PCARotation(SIZES) if kind == "pca" else NestedAdapter(SIZES, max_steps=5, batch_size=32)
    curve = sweep(fitted.fit(vectors.documents), vectors, bits=32, resamples=20)
    assert curve.truncation is not None
    assert values(curve.truncation) == values(truncation(vectors, SIZES))


def test_tables_pictures_and_files_show_both(nested: TextEncoder, tmp_path: Path) -> None:
    curve = sweep(nested, TASK, bits=32, resamples=50)
    assert curve.truncation is not None
    head, *lines = curve.table("markdown").splitlines()
    assert "truncation | gain" in head
    assert f"{curve.truncation.row('dim=8').value:.3f}" in lines[1]
    assert curve.table().splitlines()[-1] == curve.verdict
    rows = list(csv.DictReader(io.StringIO(curve.table("csv"))))
    assert [float(row["gain"]) for row in rows] == [gain.value for gain in curve.gains]
    assert float(rows[0]["truncation"]) == pytest.approx(curve.truncation.rows[0].value)
    curve.save(tmp_path / "curve.json")
    again = Curve.load(tmp_path / "curve.json")
    assert again == curve
    for others in ([again.truncation], []):  # it stands there once, named or not
        again.to_html(tmp_path / "report.html", others=others)
        assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<table") == 2
    assert "truncation" in compare([curve, curve.truncation])


def test_likeness_to_itself_has_nothing_beside(nested: TextEncoder) -> None:
    curve = sweep(nested, Fidelity(PAIRS.documents), resamples=20)
    assert (curve.truncation, curve.gains) == (None, ())


def test_the_intervals_of_gains_are_paired() -> None:
    """Two things that err on the same examples differ by less than their own intervals say."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 16))
    task = Retrieval(x + 0.8 * rng.normal(size=x.shape), x, range(300))
    curve = sweep(PCARotation("dim=12,16").fit(x), task, bits=32, resamples=300)
    full = next(gain for gain in curve.gains if str(gain.granularity) == "dim=16")
    row = curve.row()
    assert (full.value, full.low, full.high) == pytest.approx((0, 0, 0), abs=1e-3)
    assert row.high - row.low > 0.04


def test_the_encoder_without_torch_knows_it_as_well(nested: TextEncoder, tmp_path: Path) -> None:
    nested.save(tmp_path / "model")
    static = open_encoder(tmp_path / "model")
    assert isinstance(static, StaticEncoder)
    static.save(tmp_path / "again")
    curves = [
        sweep(thing, TASK, bits=32, resamples=20)
        for thing in (nested, static, static.extract("dim=64"), TextEncoder.load(tmp_path / "again"))
    ]
    for curve in curves:
        assert curve.truncation is not None
        for row in curve.truncation.rows:
            same = curves[0].truncation.row(row.granularity, row.metric)  # type: ignore[union-attr]
            assert row.value == pytest.approx(same.value, abs=1e-3)
        for row in curve.rows:
            assert row.value == pytest.approx(curves[0].row(row.granularity, row.metric).value, abs=1e-3)


def test_the_origin_is_opened_as_what_was_trained_unless_it_needs_torch(tiny_bert_folder: Path) -> None:
    static = StaticEncoder.open("wordllama")
    static.trained_from = TrainedFrom("wordllama")
    assert isinstance(static.origin().thing, StaticEncoder)
    static.trained_from = TrainedFrom(str(tiny_bert_folder))  # such as a static model of the hub
    assert isinstance(static.origin().thing, TextEncoder)
    trained = TextEncoder.open("wordllama")
    trained.trained_from = TrainedFrom("wordllama")
    assert isinstance(trained.origin().thing, TextEncoder)
