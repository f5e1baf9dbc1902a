"""A sweep equals single evaluations and encodes each input once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nestling.cut import RAW, CutRule, cut
from nestling.elastic import Cost, resolve_each
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.measure.encode import encode_task
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import (
    STS,
    HeadClassification,
    NeighbourClassification,
    Retrieval,
    Robustness,
)
from nestling.nn.heads import NestedClassifier

NESTING = Nesting.parse("dim=4,8,16")
RNG = np.random.default_rng(0)
DOCUMENTS = RNG.normal(size=(300, 16)).astype(np.float32)
QUERIES = DOCUMENTS[:80] + 0.8 * RNG.normal(size=(80, 16)).astype(np.float32)
TASK = Retrieval(QUERIES, DOCUMENTS, np.arange(80))


def identity(x: np.ndarray) -> np.ndarray:
    return x


class Layered:
    """Elastic over layers and dims; each layer adds what the one before it lacks."""

    def __init__(self, nesting: Nesting, rule: CutRule = CutRule()) -> None:
        self.nesting, self.rule, self.calls = nesting, rule, Counter[str]()

    def __call__(self, x: np.ndarray, /, at: At = None) -> np.ndarray:
        return self.forward_each(x, [at])[self.nesting.resolve(at)]

    def forward_each(self, x: np.ndarray, /, granularities: Any = None) -> dict[Granularity, np.ndarray]:
        wanted = resolve_each(self.nesting, granularities)
        self.calls["rows"] += len(x)
        noise = np.random.default_rng(1).normal(size=16)
        return {g: cut(x + noise / g.get("layer", 1), g.get("dim", 16), self.rule) for g in wanted}

    def cost(self, at: At = None) -> Cost:
        g = self.nesting.resolve(at)
        layer = g.get("layer", 1)
        return Cost(flops=1000.0 * layer, size_bytes=70 * layer, output_bytes=2 * g.get("dim", 16))


def test_values_are_those_of_single_evaluations() -> None:
    curve = sweep(identity, TASK, NESTING, seed=5)
    assert curve.nesting == NESTING
    assert curve.metrics == ("ndcg@10", "recall@10", "mrr@10")
    for dim in (4, 8, 16):
        own = Retrieval(cut(QUERIES, dim), cut(DOCUMENTS, dim), np.arange(80))
        alone = own.score(own.inputs, [dim], RAW).values[0].mean(axis=0)
        for metric, value in zip(curve.metrics, alone, strict=True):
            row = curve.row(dim, metric)
            assert row.value == pytest.approx(value, abs=1e-3)
            assert row.low <= row.value <= row.high
            assert (row.vector_bytes, row.flops, row.latency_ms, row.seed) == (4 * dim, None, None, 5)
            assert row.model_bytes is None
    assert curve.row().kept == curve.row().kept_low == 1
    assert curve.examples == 80


def test_the_same_seed_gives_the_same_curve() -> None:
    assert sweep(identity, TASK, NESTING, seed=1).rows == sweep(identity, TASK, NESTING, seed=1).rows


def test_each_input_is_encoded_once() -> None:
    thing = Layered(Nesting.grid(layer=[1, 2], dim=[4, 16]))
    sweep(thing, TASK, batch_size=32, resamples=10)
    assert thing.calls["rows"] == 80 + 300
    both = STS(QUERIES, QUERIES, np.arange(80))
    thing = Layered(NESTING)
    sweep(thing, both, resamples=10)
    assert thing.calls["rows"] == 80


@pytest.mark.parametrize(
    "nesting", ["layer=1,2 x dim=4,8,16", "layer=1,2 zip dim=8,16", "layer=1,2,4", "dim=4,16"]
)
def test_other_axes_are_measured_as_they_answer(nesting: str) -> None:
    thing = Layered(Nesting.parse(nesting))
    curve = sweep(thing, TASK, resamples=10)
    for g in thing.nesting:
        task = encode_task(lambda x, g=g: thing(x, at=g), TASK)
        alone = task.score(task.inputs, [g.get("dim", 16)], RAW).values[0, :, 0].mean()
        assert curve.row(g).value == pytest.approx(alone, abs=1e-3)
        assert curve.row(g).flops == 1000.0 * g.get("layer", 1)
        assert curve.row(g).model_bytes == 70 * g.get("layer", 1)
        assert curve.row(g).vector_bytes == 2 * g.get("dim", 16)


def test_sizes_in_between_are_measured_too() -> None:
    thing = Layered(Nesting.parse("dim=4,16"))
    curve = sweep(thing, TASK, Nesting.parse("dim=2,4,6,16"), resamples=10)
    assert [row.vector_bytes for row in curve.column()] == [4, 8, 12, 32]
    values = [row.value for row in curve.column()]
    assert values == sorted(values)
    with pytest.raises(GranularityError, match="dim=16"):
        sweep(thing, TASK, Nesting.parse("dim=4,17"))
    with pytest.raises(GranularityError, match="no axis 'layer'"):
        sweep(thing, TASK, Nesting.parse("layer=1,2 x dim=4,16"))


@pytest.mark.parametrize(
    ("own", "part", "named"),
    [
        ("layer=1,2 x dim=4,8,16", "dim=4,6,16", "layer=2 x dim=4,6,16"),
        ("layer=1,2 x dim=4,8,16", "layer=1,2", "layer=1,2 x dim=16"),
        ("layer=1,2 x dim=4,8,16", "layer=1,2 x bits=2,32", "layer=1,2 x dim=16 x bits=2,32"),
        ("layer=1,2 zip dim=8,16", "layer=1,2", "layer=1,2 zip dim=8,16"),
        ("layer=1,2 zip dim=8,16", "dim=8,16", "layer=2 x dim=8,16"),
    ],
)
def test_an_axis_that_is_not_named_is_used_in_full(own: str, part: str, named: str) -> None:
    thing = Layered(Nesting.parse(own))
    found, wanted = (sweep(thing, TASK, each, resamples=10) for each in (part, named))
    assert found.nesting == Nesting.parse(part)
    figures = [
        [(row.value, row.flops, row.vector_bytes, row.model_bytes) for row in curve.rows]
        for curve in (found, wanted)
    ]
    assert figures[0] == figures[1]


def test_layer_norm_before_the_cut_is_done_once() -> None:
    """A plain callable gives vectors before the rule, an elastic thing those after it."""
    rule = CutRule("layer_norm", "l2")
    plain = sweep(identity, TASK, NESTING, rule=rule, resamples=10)

    class Prepared(Layered):
        def forward_each(self, x: np.ndarray, /, granularities: Any = None) -> dict[Granularity, np.ndarray]:
            return {g: cut(x, g["dim"], rule) for g in resolve_each(self.nesting, granularities)}

    elastic = sweep(Prepared(NESTING, rule), TASK, bits=None, resamples=10)
    assert [row.value for row in plain.column()] == pytest.approx([row.value for row in elastic.column()])
    raw = sweep(identity, TASK, NESTING, resamples=10)
    assert [row.value for row in plain.column()] != [row.value for row in raw.column()]


def test_a_head_is_measured_by_its_answers() -> None:
    torch.manual_seed(0)
    head = NestedClassifier(NESTING, num_classes=5)
    head.linears[1].eval()
    labels = RNG.integers(0, 5, 80)
    curve = sweep(head, HeadClassification(QUERIES, labels), batch_size=30, resamples=10)
    for g in NESTING:
        right = head(torch.from_numpy(QUERIES), at=g).argmax(1).numpy() == labels
        assert curve.row(g).value == pytest.approx(right.mean())
        assert curve.row(g).flops == 5 * g["dim"]
    assert head.training
    assert not head.linears[1].training
    with pytest.raises(ConfigError, match="pass an elastic model, got function"):
        sweep(identity, HeadClassification(QUERIES, labels), NESTING)
    both = Robustness(HeadClassification(QUERIES, labels), HeadClassification(-QUERIES, labels))
    assert sweep(head, both, resamples=10).metrics[0] == "accuracy retention"


def test_a_torch_module_is_evaluated_at_rest() -> None:
    module = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.9))
    state = torch.get_rng_state()
    curve = sweep(module, TASK, NESTING, resamples=10)
    assert curve.rows == sweep(module, TASK, NESTING, resamples=10).rows
    assert module.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_an_encode_method_is_preferred() -> None:
    class Encoder:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.stack([np.random.default_rng(len(text)).normal(size=16) for text in texts])

    texts = ["x" * n for n in range(1, 30)]
    curve = sweep(Encoder(), Retrieval(texts, texts, range(29)), NESTING, resamples=10)
    assert curve.row(4).value == 1
    assert curve.name == "Encoder"


def test_latency_is_measured_on_request() -> None:
    curve = sweep(Layered(NESTING), TASK, bits=None, latency=True, resamples=10)
    assert all(row.latency_ms is not None and row.latency_ms > 0 for row in curve.rows)
    assert curve.choose(max_ms=1e6) == Granularity(dim=16)
    labels = np.arange(80) % 3
    task = NeighbourClassification(QUERIES, labels, QUERIES, labels)
    assert sweep(identity, task, NESTING, latency=True, resamples=10).row().latency_ms is not None


def test_inputs_are_not_changed() -> None:
    kept = QUERIES.copy(), DOCUMENTS.copy()
    sweep(identity, TASK, NESTING, rule=CutRule("layer_norm"), resamples=10)
    np.testing.assert_array_equal(QUERIES, kept[0])
    np.testing.assert_array_equal(DOCUMENTS, kept[1])


class Empty:
    name, needs, metrics = "empty", "vectors", ("m",)
    inputs = {"first": np.empty((0, 4))}  # noqa: RUF012


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="no nesting of its own"):
        sweep(identity, TASK)
    with pytest.raises(GranularityError, match="not layer; leave layer out"):
        sweep(identity, TASK, Nesting.parse("layer=1,2 x dim=4,8"))
    with pytest.raises(DataError, match="do not fit vectors of 16 entries"):
        sweep(identity, TASK, Nesting.parse("dim=4,32"))
    with pytest.raises(DataError, match="80 queries were encoded as 79 rows"):
        sweep(lambda x: x[1:], TASK, NESTING)
    with pytest.raises(DataError, match="matrix of one row per input"):
        sweep(lambda x: x[0], TASK, NESTING)
    with pytest.raises(DataError, match="there are no first"):
        sweep(identity, Empty(), NESTING)
