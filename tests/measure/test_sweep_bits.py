"""A sweep over dims and bits equals scoring vectors that were cut by hand, from one encoding."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from nestling.cut import RAW, CutRule, cut
from nestling.elastic import Cost, resolve_each
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.measure.encode import encode_task
from nestling.measure.sweep import sweep
from nestling.measure.tasks.fidelity import Fidelity
from nestling.measure.tasks.tasks import (
    STS,
    NearestClassMean,
    NeighbourClassification,
    Retrieval,
    Robustness,
    Task,
    stored_inputs,
)
from nestling.vectors.stored import StoredVectors

RNG = np.random.default_rng(0)
DOCUMENTS = (RNG.normal(size=(300, 16)) * np.linspace(2, 0.5, 16) + 0.2).astype(np.float32)
QUERIES = DOCUMENTS[:80] + 0.8 * RNG.normal(size=(80, 16)).astype(np.float32)
LABELS = np.arange(300) % 3
TASKS = {
    "retrieval": Retrieval(QUERIES, DOCUMENTS, np.arange(80)),
    "sts": STS(QUERIES, DOCUMENTS[:80], RNG.normal(size=80)),
    "neighbours": NeighbourClassification(DOCUMENTS, LABELS, QUERIES, LABELS[:80]),
    "means": NearestClassMean(DOCUMENTS, LABELS, QUERIES, LABELS[:80]),
}
TASK = TASKS["retrieval"]
NESTING = Nesting.parse("dim=4,9,16")


def identity(x: np.ndarray) -> np.ndarray:
    return x


def by_hand(task: Task, rule: CutRule, g: Granularity, coded: tuple[str, ...] | None = None) -> float:
    """The main metric of vectors that ``cut`` made."""
    stored = stored_inputs(task)
    sample = np.concatenate([np.asarray(task.inputs[name]) for name in stored])
    rule = rule.calibrated(sample) if rule.code is None else rule
    made = {
        name: cut(
            np.asarray(x, np.float32), g["dim"], rule, bits=g["bits"] if name in (coded or stored) else 32
        )
        for name, x in task.inputs.items()
    }
    after = CutRule(after=rule.after)
    scores = task.score(made, [g["dim"]], after)
    return float(scores.statistic(np.ones((1, sum(scores.groups))))[0, 0, 0])


def is_distinct(g: Granularity) -> bool:
    """Whether codes are so many that hardly two rows have the same; the order of equal ones is rounding."""
    return g["dim"] * g["bits"] >= 16


@pytest.mark.parametrize("rule", [CutRule(), RAW, CutRule("layer_norm")], ids=["l2", "raw", "layer norm"])
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.filterwarnings("ignore::nestling.errors.CalibrationWarning")
def test_rows_are_those_of_vectors_cut_by_hand(name: str, rule: CutRule) -> None:
    task = TASKS[name]
    curve = sweep(identity, task, NESTING, rule=rule, bits=(1, 2, 3, 4, 8, 16), resamples=5)
    assert str(curve.nesting) == "dim=4,9,16 x bits=1,2,3,4,8,16,32"
    for row in curve.column():
        if is_distinct(row.granularity):
            assert row.value == pytest.approx(by_hand(task, rule, row.granularity), abs=2e-3)


def test_both_sides_are_coded_when_asked() -> None:
    one, both = (
        sweep(identity, TASK, NESTING, bits=[1], both_sides=side, resamples=5) for side in (False, True)
    )
    for row in both.column():
        inputs = tuple(TASK.inputs)
        assert row.value == pytest.approx(by_hand(TASK, CutRule(), row.granularity, inputs), abs=2e-3)
    assert both.row("dim=16,bits=1").value < one.row("dim=16,bits=1").value
    assert both.row().value == one.row().value
    assert both.rule == "l2 after the cut; all inputs in codes"


def test_bytes_are_those_of_codes() -> None:
    curve = sweep(identity, TASK, NESTING, bits=(1, 2, 4, 8, 16, 32), resamples=5)
    spent = {(row.granularity["dim"], row.granularity["bits"]): row.vector_bytes for row in curve.column()}
    for dim in (4, 9, 16):
        planes = -(-dim // 8)
        expected = {1: planes, 2: 2 * planes, 4: 4 * planes, 8: 8 * planes, 16: 2 * dim, 32: 4 * dim}
        assert {bits: spent[dim, bits] for bits in expected} == expected
    for dim in (4, 9, 16):  # costs do not fall as precision grows, nor as size grows
        column = [spent[dim, bits] for bits in (1, 2, 4, 8, 32)]
        assert column == sorted(column)


def test_the_floats_are_those_of_a_sweep_without_bits() -> None:
    curve, plain = (sweep(identity, TASK, NESTING, bits=bits, resamples=20) for bits in ((2, 8), 32))
    assert plain.nesting == NESTING
    assert plain.rows == sweep(identity, TASK, NESTING, resamples=20).rows
    for row in plain.rows:
        there = curve.row(row.granularity.replace(bits=32), row.metric)
        assert (there.value, there.low, there.kept_low) == (row.value, row.low, row.kept_low)


def test_precisions_are_those_asked_for() -> None:
    stored = StoredVectors(DOCUMENTS, "dim=4,16")
    rows = Retrieval(np.arange(80), np.arange(300), np.arange(80))
    assert str(sweep(stored, rows, resamples=5).nesting) == "dim=4,16 x bits=1,2,4,8,32"
    for none in (None, 32, [32]):
        assert sweep(stored, rows, bits=none, resamples=5).nesting == stored.nesting
    assert str(sweep(stored, rows, bits=2, resamples=5).nesting) == "dim=4,16 x bits=2,32"
    assert sweep(stored, rows, "dim=4,16", resamples=5).nesting == stored.nesting
    named = sweep(stored, rows, "dim=4,16 x bits=1,4", resamples=5)
    assert str(named.nesting) == "dim=4,16 x bits=1,4"
    assert named.row().kept == 1
    assert sweep(stored, Fidelity(np.arange(60)), resamples=5).nesting == stored.nesting
    with pytest.raises(ConfigError, match="names precisions"):
        sweep(stored, rows, "dim=4,16 x bits=1,4", bits=2)
    with pytest.raises(GranularityError, match="such as 1,8, not 5"):
        sweep(stored, rows, bits=5)


def test_vectors_with_precisions_of_their_own_answer_at_them() -> None:
    whole = StoredVectors(DOCUMENTS, "dim=8,16").calibrated()
    rows = Retrieval(np.arange(80), np.arange(300), np.arange(80))
    plain = sweep(StoredVectors(DOCUMENTS, "dim=8,16"), rows, bits=(1, 4), resamples=5)
    own = sweep(whole, rows, bits=(1, 4), resamples=5)
    for g in filter(is_distinct, plain.nesting):
        assert own.row(g).value == pytest.approx(plain.row(g).value, abs=2e-3)
    assert [row.vector_bytes for row in own.column()] == [row.vector_bytes for row in plain.column()]
    assert sweep(whole, rows, resamples=5).nesting == whole.nesting
    held = whole.extract("dim=16,bits=4")
    coded = sweep(held, rows, resamples=5)
    for g in filter(is_distinct, held.nesting):
        task = encode_task(lambda x, g=g: held(x, at=g), rows)
        queries = held(np.arange(80), at=g.replace(bits=4))
        expected = task.with_inputs({**task.inputs, "queries": queries}).score
        alone = expected({"queries": queries, "documents": task.inputs["documents"]}, [g["dim"]], RAW)
        assert coded.row(g).value == pytest.approx(alone.values[0, :, 0].mean(), abs=2e-3)
        assert coded.row(g).vector_bytes == held.cost(g).output_bytes


class Layered:
    """Elastic over layers and dims; the deeper layer is another space."""

    def __init__(self, rule: CutRule = CutRule()) -> None:
        self.nesting = Nesting.grid(layer=[1, 2], dim=[8, 16])
        self.rule, self.rows = rule, Counter[str]()

    def __call__(self, x: np.ndarray, /, at: At = None) -> np.ndarray:
        return self.forward_each(x, [at])[self.nesting.resolve(at)]

    def forward_each(self, x: np.ndarray, /, granularities: Any = None) -> dict[Granularity, np.ndarray]:
        self.rows["seen"] += len(x)
        wanted = resolve_each(self.nesting, granularities)
        return {g: cut(x if g["layer"] == 2 else 3 - x, g["dim"]) for g in wanted}

    def cost(self, at: At = None) -> Cost:
        g = self.nesting.resolve(at)
        return Cost(flops=1000.0 * g["layer"], output_bytes=4 * g["dim"])


@pytest.mark.filterwarnings("ignore::nestling.errors.CalibrationWarning")
def test_each_layer_has_a_code_of_its_own_and_inputs_are_encoded_once() -> None:
    rule = CutRule().calibrated(DOCUMENTS)
    thing = Layered(rule)
    curve = sweep(thing, TASK, resamples=5)
    assert thing.rows["seen"] == 380
    assert str(curve.nesting) == "dim=8,16 x bits=1,2,4,8,32 x layer=1,2"
    for g in curve.nesting:
        task = encode_task(lambda x, g=g: thing(x, at=g.replace(dim=16, bits=None)), TASK)
        own = rule if g["layer"] == 2 else CutRule()
        assert curve.row(g).value == pytest.approx(by_hand(task, own, g), abs=2e-3)
        assert curve.row(g).flops == 1000.0 * g["layer"]


def test_a_code_of_the_rule_goes_before_calibration() -> None:
    strange = CutRule().calibrated(1 + 0.1 * RNG.normal(size=(300, 16)))
    found = sweep(identity, TASK, NESTING, rule=strange, bits=[2], resamples=5)
    row = found.row("dim=16,bits=2")
    assert row.value == pytest.approx(by_hand(TASK, strange, row.granularity), abs=2e-3)
    assert row.value < sweep(identity, TASK, NESTING, bits=[2], resamples=5).row("dim=16,bits=2").value


def test_few_documents_are_measured_without_a_warning() -> None:
    few = Retrieval(QUERIES[:5], DOCUMENTS[:5], range(5), k=2)
    assert sweep(identity, few, "dim=8,16", bits=8, resamples=5).row().value > 0


def test_stored_inputs_of_tasks() -> None:
    assert stored_inputs(TASK) == ("documents",)
    assert stored_inputs(TASKS["neighbours"]) == ("train",)
    assert stored_inputs(TASKS["sts"]) == ("first", "second")
    assert stored_inputs(Robustness(TASK, TASK)) == ("clean documents", "shifted documents")
    curve = sweep(identity, Robustness(TASK, TASK), "dim=8,16", bits=1, resamples=5)
    assert curve.row("dim=8,bits=1").value == 1
