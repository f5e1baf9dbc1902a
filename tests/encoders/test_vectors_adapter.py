"""The learned map: never worse than where it starts, exact where it says so, an estimator and elastic."""

from __future__ import annotations

import copy
import tracemalloc
import warnings
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from nestling.cut import RAW, CutRule, cut
from nestling.encoders.maps import NestedAdapter, PCARotation
from nestling.encoders.maps.examples import Examples
from nestling.errors import ConfigError, DataError, GranularityError, NoGainWarning
from nestling.granularity import Granularity, Nesting
from nestling.losses import InfoNCE, Nested, Triplet
from nestling.schedules import RandomSome
from nestling.search.exact.neighbours import nearest, nearest_each
from nestling.testing import ELASTIC_LAWS, ElasticExample
from nestling.training import TrainConfig
from nestling.vectors.stored import StoredVectors

DIM = 32
SIZES = Nesting.parse("dim=4,8,32")


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def clusters(n=1200, seed=0, dim=DIM, noise=0.6):
    """Rows of 30 classes, whose signal lies where the energy does not."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(100).standard_normal((30, 6))
    labels = rng.integers(30, size=n)
    turn = np.linalg.qr(np.random.default_rng(101).standard_normal((dim, dim)))[0]
    signal = centres[labels] + noise * rng.standard_normal((n, 6))
    loud = 3 * rng.standard_normal((n, 8))
    rest = 0.1 * rng.standard_normal((n, dim - 14))
    return (np.hstack([loud, signal, rest]) @ turn).astype(np.float32), labels


def neighbourhoods(each, seed=0):
    """40 groups that lie far apart by many small differences, and few large ones that say nothing."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(103).standard_normal((40, DIM - 8))
    turn = np.linalg.qr(np.random.default_rng(104).standard_normal((DIM, DIM)))[0]
    quiet = np.repeat(centres, each, axis=0) + 0.2 * rng.standard_normal((40 * each, DIM - 8))
    loud = 1.3 * rng.standard_normal((40 * each, 8))
    return (np.hstack([quiet, loud]) @ turn).astype(np.float32)


def pairs(n=1500, seed=0):
    """Two noisy views of the same thing, of which the loud part says nothing."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(102).standard_normal((DIM, DIM)))[0]
    shared = rng.standard_normal((n, 10))
    views = []
    for _ in range(2):
        loud = 3 * rng.standard_normal((n, 6))
        quiet = 0.1 * rng.standard_normal((n, DIM - 16))
        views.append((np.hstack([loud, shared, quiet]) @ turn).astype(np.float32))
    return views


def recall(queries, documents):
    """Share of queries whose own document is the nearest."""
    return float((nearest(queries, documents, 1).indices[:, 0] == np.arange(len(queries))).mean())


def kept_neighbours(adapter, x, at, k=5):
    full, cut_ = nearest(x, x, k + 1).indices[:, 1:], adapter(x, at=at)
    found = nearest(cut_, cut_, k + 1).indices[:, 1:]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(full, found, strict=True)])


@pytest.fixture(scope="module")
def matched():
    """An adapter trained on pairs, and pairs it never saw."""
    x, y = pairs()
    return NestedAdapter(SIZES, epochs=40, batch_size=256, lr=1e-2).fit(x, pairs=y), pairs(seed=1)


@pytest.mark.filterwarnings("ignore:.*all zero")  # scikit-learn's integers hold such a row
@pytest.mark.parametrize(
    "kind", [{}, {"hidden": 3}, {"orthogonal": True}], ids=["linear", "hidden", "rotation"]
)
def test_scikit_learn_says_it_is_an_estimator(kind):
    check_estimator(NestedAdapter(max_steps=1, **kind), on_skip=None)


@pytest.mark.parametrize("law", ELASTIC_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("kind", ["linear", "hidden", "rotation"])
def test_the_laws(law, kind, fitted):
    adapter, x = fitted[kind]
    law(ElasticExample(adapter, x[:20], counted=[(adapter, "_map")]))


@pytest.fixture(scope="module")
def fitted():
    x, labels = clusters(300)
    kinds = {"linear": {"rule": RAW}, "hidden": {"hidden": 7}, "rotation": {"orthogonal": True}}
    return {
        name: (NestedAdapter(SIZES, max_steps=4, **kind).fit(x, labels), x) for name, kind in kinds.items()
    }


def test_pairs_beat_the_principal_axes_on_pairs_never_seen(matched):
    adapter, (x, y) = matched
    axes = PCARotation(SIZES).fit(np.concatenate(pairs()))
    for g in SIZES[:2]:
        assert recall(adapter(x, at=g), adapter(y, at=g)) > recall(axes(x, at=g), axes(y, at=g)) + 0.1
    assert recall(adapter(x), adapter(y)) > recall(unit(x), unit(y))


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")  # of the principal axes
def test_labels_beat_the_principal_axes_on_rows_never_seen():
    (x, labels), (queries, wanted) = clusters(), clusters(400, seed=1)
    adapter = NestedAdapter(SIZES, epochs=30, batch_size=256, lr=1e-2).fit(x, labels)
    axes = PCARotation(SIZES).fit(x)
    for g in SIZES[:2]:
        hits = [
            (labels[nearest(thing(queries, at=g), thing(x, at=g), 1).indices[:, 0]] == wanted).mean()
            for thing in (axes, adapter)
        ]
        assert hits[1] > hits[0] + 0.2


@pytest.mark.parametrize("orthogonal", [False, True])
def test_vectors_alone_keep_more_neighbours_than_the_principal_axes(orthogonal):
    x, test = neighbourhoods(40), neighbourhoods(6, seed=1)
    adapter = NestedAdapter(SIZES, orthogonal=orthogonal, epochs=30, batch_size=256, lr=1e-2).fit(x)
    axes = PCARotation(SIZES).fit(x)
    for g in SIZES[:2]:
        assert kept_neighbours(adapter, test, g) > kept_neighbours(axes, test, g) + 0.05


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")  # after so few steps
@pytest.mark.parametrize("kind", ["vectors", "pairs", "labels"])
def test_a_rotation_keeps_every_inner_product(kind):
    (views, (rows, labels)) = pairs(400), clusters(1200)
    x, rest = {
        "vectors": (neighbourhoods(10), {}),
        "pairs": (views[0], {"pairs": views[1]}),
        "labels": (rows, {"y": labels}),
    }[kind]
    adapter = NestedAdapter(SIZES, orthogonal=True, max_steps=30, batch_size=128, lr=1e-2).fit(x, **rest)
    assert adapter.losses_after_[SIZES[0]] < adapter.losses_before_[SIZES[0]]
    weight = adapter.module_.linear.weight.detach().double()
    torch.testing.assert_close(weight @ weight.T, torch.eye(DIM, dtype=torch.float64), atol=1e-6, rtol=0)
    z, wide = adapter(x), adapter.transform(x.astype(np.float64))
    np.testing.assert_allclose(z @ z.T, unit(x) @ unit(x).T, atol=1e-5)
    np.testing.assert_allclose(wide @ wide.T, x.astype(np.float64) @ x.T, rtol=1e-5, atol=1e-4)
    assert adapter.losses_after_[SIZES.full] == pytest.approx(adapter.losses_before_[SIZES.full], rel=1e-4)


def test_before_training_it_is_the_principal_axes():
    x, _ = clusters(200)
    adapter = NestedAdapter(SIZES, max_steps=1, lr=1e-12, hidden=5).fit(x)
    training = Examples.read(x, None, None, None).divide(np.random.default_rng(0), 2048).training
    axes = PCARotation(SIZES).fit(x[training])
    np.testing.assert_allclose(adapter.transform(x), axes.transform(x), atol=1e-4)


@pytest.mark.parametrize("kind", ["vectors", "pairs", "labels"])
def test_what_is_held_out_teaches_nothing(kind):
    """If all directions are alike no map pays; the rows that are found are a sample too, so not 95 %."""
    gains, warned = [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((600, DIM)).astype(np.float32)
        rest = {
            "vectors": {},
            "pairs": {"pairs": rng.standard_normal(x.shape).astype(np.float32)},
            "labels": {"y": rng.integers(4, size=len(x))},
        }[kind]
        with warnings.catch_warnings(record=True, category=NoGainWarning, action="always") as told:
            report = NestedAdapter("dim=8,16,32", epochs=3).fit(x, **rest).report_
        assert report.rows == 60
        gains += report.gains[:2]
        warned += bool(told)
    assert warned >= 10
    assert sum(gain.low <= 0 <= gain.high for gain in gains) >= 16
    assert abs(np.mean([gain.value for gain in gains])) < 0.03


def test_a_map_that_pays_says_so(recwarn):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((600, 4)) @ rng.standard_normal((4, DIM))
        adapter = NestedAdapter("dim=4,32", epochs=3, seed=seed).fit(x.astype(np.float32))
        assert adapter.report_.gains[0].low > 0.05
    assert not [each for each in recwarn if each.category is NoGainWarning]


@pytest.mark.parametrize("lr", [3.0, 1e-3])
@pytest.mark.parametrize("kind", ["vectors", "labels"])
def test_training_never_leaves_it_worse_than_the_principal_axes(lr, kind):
    x, _ = clusters(300)
    noise = np.random.default_rng(3).integers(10, size=300)
    adapter = NestedAdapter(SIZES, epochs=20, batch_size=64, lr=lr, hidden=16)
    adapter.fit(x, noise if kind == "labels" else None)
    assert sum(adapter.losses_after_.values()) <= sum(adapter.losses_before_.values())
    # The report gives the loss of the kept map.
    logged = [adapter.log_.series("held_out_loss", str(g)) for g in SIZES]
    totals = [sum(value for _, value in step) for step in zip(*logged, strict=True)]
    assert sum(adapter.losses_after_.values()) == pytest.approx(
        min([sum(adapter.losses_before_.values()), *totals]), rel=1e-5
    )


def test_quality_rises_with_the_size(matched):
    adapter, (x, y) = matched
    found = nearest_each(adapter.transform(x), adapter.transform(y), SIZES.sizes("dim"), 1)
    hits = [(found[dim].indices[:, 0] == np.arange(len(x))).mean() for dim in SIZES.sizes("dim")]
    assert all(small <= large for small, large in pairwise(hits))


def test_the_same_seed_gives_the_same_map():
    x, labels = clusters(200)
    state = torch.get_rng_state()
    first, again, other = (
        NestedAdapter(SIZES, max_steps=5, hidden=4, seed=seed).fit(x, labels).transform(x)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_memory_map_is_as_good_as_an_array(dtype, tmp_path):
    x = clusters(200)[0].astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    adapter = NestedAdapter(SIZES, max_steps=5)
    expected = adapter.fit(x, pairs=x[::-1]).transform(x)
    found = adapter.fit(mapped, pairs=mapped[::-1]).transform(mapped)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)


def test_data_larger_than_what_it_allocates(tmp_path):
    path, block = tmp_path / "x.npy", clusters(10_000, dim=128)[0]
    x = np.lib.format.open_memmap(path, "w+", np.float32, (300_000, 128))
    for start in range(0, 300_000, 10_000):
        x[start : start + 10_000] = block
    x.flush()
    mapped = np.load(path, mmap_mode="r")
    NestedAdapter("dim=8,128", max_steps=1).fit(block)  # torch's own start is none of the data's
    tracemalloc.start()
    found = NestedAdapter("dim=8,128", max_steps=5).fit(mapped).extract(8).transform(mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2
    assert found.shape == (300_000, 8)


def test_groups_are_held_out_together():
    rng = np.random.default_rng(0)
    x, names = rng.standard_normal((500, 4)), np.array(["a", "b", "c", "d", "e", "f", "g"])
    groups = names[rng.integers(7, size=500)]
    parts = Examples.read(x, None, None, groups).divide(rng, most=1000)
    for one, other in combinations(parts, 2):
        assert not set(groups[one]) & set(groups[other])
    assert sum(map(len, parts)) == 500
    assert all(50 <= len(part) < 200 for part in parts[1:])
    two = groups > "c"  # these leave none for a report
    parts = Examples.read(x, None, None, two).divide(rng, most=1000)
    assert (len(parts.training) + len(parts.checking), len(parts.reporting)) == (500, 0)
    with pytest.raises(DataError, match="cannot be divided"):
        NestedAdapter().fit(x, groups=np.zeros(500, int))


def test_rows_are_held_out_once():
    x = np.random.default_rng(0).standard_normal((600, 4))
    for count, most, sizes in [(40, 1000, (36, 4, 0)), (40, 3, (37, 3, 0)), (600, 40, (500, 40, 60))]:
        parts = Examples.read(x[:count], None, None, None).divide(np.random.default_rng(0), most)
        assert sorted(np.concatenate(parts)) == list(range(count))
        assert tuple(map(len, parts)) == sizes


def test_pairs_that_share_a_vector_are_no_negatives():
    a, b, c, d, e = np.random.default_rng(0).standard_normal((5, 1, 6)).astype(np.float32)
    x = np.concatenate([a, a, b, c, d])
    y = np.concatenate([b, c, c, d, e])
    ids = Examples.read(x, y, None, None).ids
    assert ids[0] == ids[1] == ids[2]  # by the same x, and by the same y
    assert len(set(ids[2:])) == 3


def test_an_interrupted_fit_goes_on(tmp_path, monkeypatch):
    x, _ = clusters(300)
    settings = {"batch_size": 64, "epochs": 10, "lr": 1e-2}
    whole = NestedAdapter(SIZES, **settings).fit(x)
    steps = iter(range(100))
    original = Nested.parts

    def interrupted(self, *embeddings, **rest):
        if self.training and next(steps) == 17:
            raise KeyboardInterrupt
        return original(self, *embeddings, **rest)

    monkeypatch.setattr(Nested, "parts", interrupted)
    with pytest.raises(KeyboardInterrupt, match="to resume"):
        NestedAdapter(SIZES, **settings).fit(x, folder=tmp_path)
    monkeypatch.undo()
    again = NestedAdapter(SIZES, **settings).fit(x, folder=tmp_path)
    assert again.log_.resumed_from
    np.testing.assert_array_equal(again.transform(x), whole.transform(x))
    assert again.losses_after_ == whole.losses_after_


def test_losses_of_ones_own():
    (x, y), (z, labels) = pairs(300), clusters(300)
    adapter = NestedAdapter(SIZES, loss=lambda a, b: Triplet()(a, b, b.roll(1, 0)), max_steps=20, lr=1e-2)
    assert sum(adapter.fit(x, pairs=y).losses_after_.values()) < sum(adapter.losses_before_.values())

    def spread(z, labels):
        same = labels[:, None] == labels[None]
        return torch.nn.functional.mse_loss(torch.corrcoef(z), same.float())

    adapter = NestedAdapter(SIZES, loss=spread, max_steps=20, lr=1e-2).fit(z, labels)
    assert sum(adapter.losses_after_.values()) < sum(adapter.losses_before_.values())
    nested = Nested(InfoNCE(learn_temperature=True), SIZES, weights=[4, 1, 1], schedule=RandomSome(1))
    before = copy.deepcopy(nested.state_dict())
    NestedAdapter(SIZES, loss=nested, max_steps=5, lr=1e-2).fit(x, pairs=y)
    assert all(torch.equal(before[name], value) for name, value in nested.state_dict().items())
    with pytest.raises(GranularityError, match="one nesting"):
        NestedAdapter("dim=4,32", loss=nested).fit(x, pairs=y)


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")
def test_a_loss_over_bits_gives_the_map_a_code_of_the_second_vectors(tmp_path):
    x, y = pairs(400)
    loss = Nested(InfoNCE(), SIZES.times(bits=[1, 4, 32]))
    adapter = NestedAdapter(SIZES, loss=loss, max_steps=3, batch_size=64).fit(x, pairs=y)
    expected = CutRule().calibrated(adapter.transform(y))
    assert adapter.rule == expected
    assert set(adapter.losses_after_) == set(loss.nesting)
    adapter.save(tmp_path / "adapter")
    loaded = NestedAdapter.load(tmp_path / "adapter")
    assert (loaded.rule, loaded.losses_after_) == (expected, adapter.losses_after_)
    assert clone(adapter).rule.code is None
    small = loaded.extract("dim=8")
    assert small.rule == CutRule()
    assert set(small.losses_after_) == set(loss.nesting.up_to(Granularity(dim=8, bits=32)))
    stored = StoredVectors(y).mapped(loaded, tmp_path / "mapped")
    assert np.allclose(stored([3], at="dim=8,bits=4"), cut(adapter.transform(y)[3:4], 8, expected, bits=4))
    assert loaded.fit(x, pairs=y).rule.code is None, "the loss is not saved"


def test_all_settings_of_the_training():
    x, _ = clusters(300)
    config = TrainConfig(max_steps=6, batch_size=32, lr=1e-2, evaluate_every=2, weight_decay=0.1)
    adapter = NestedAdapter(SIZES, config=config).fit(x)
    assert [step for step, _ in adapter.log_.series("held_out_loss", "dim=4")] == [2, 4, 6]


def test_saving_keeps_the_settings_and_no_pickle(tmp_path):
    x, _ = clusters(300)
    config = TrainConfig(max_steps=3, batch_size=64)
    adapter = NestedAdapter(SIZES, hidden=6, config=config, rule=RAW).fit(x)
    adapter.save(tmp_path / "adapter")
    loaded = NestedAdapter.load(tmp_path / "adapter")
    assert loaded.get_params() == {**adapter.get_params(), "nesting": SIZES}
    assert (loaded.losses_before_, loaded.losses_after_) == (adapter.losses_before_, adapter.losses_after_)
    assert {path.suffix for path in (tmp_path / "adapter").rglob("*") if path.is_file()} == {
        ".json",
        ".safetensors",
    }
    small = loaded.extract(8)
    small.save(tmp_path / "small")
    np.testing.assert_array_equal(NestedAdapter.load(tmp_path / "small")(x), small(x))
    assert small.nesting == Nesting.parse("dim=4,8")


def test_clone_and_params():
    adapter = NestedAdapter("dim=4,32", hidden=5, rule=CutRule())
    assert clone(adapter).get_params() == adapter.get_params()
    with pytest.raises(NotFittedError):
        adapter.cost()
    with pytest.raises(NotFittedError):
        adapter.transform(np.zeros((3, 4)))


def test_zero_rows_are_named_and_stay_zero():
    x, _ = clusters(100)
    x[[3, 50]] = 0
    with pytest.warns(UserWarning, match=r"2 rows \(3, 50\) of X"):
        adapter = NestedAdapter(SIZES, max_steps=2).fit(x)
    assert not adapter.transform(x)[[3, 50]].any()
    with pytest.raises(DataError, match="2 rows"):
        adapter(x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: NestedAdapter().fit(x[:3]), DataError, "at least 4 rows"),
        (lambda x: NestedAdapter().fit(x, pairs=x[:50]), DataError, "50 pairs do not belong to 200 rows"),
        (lambda x: NestedAdapter().fit(x, pairs=x[:, :5]), DataError, "5 features"),
        (lambda x: NestedAdapter().fit(x, np.zeros(200), pairs=x), ConfigError, "not both"),
        (lambda x: NestedAdapter().fit(x, np.zeros(200)), DataError, "two classes"),
        (lambda x: NestedAdapter().fit(x, np.arange(200)), DataError, "share one"),
        (lambda x: NestedAdapter().fit(x, x[:, 0]), DataError, "one integer or string"),
        (lambda x: NestedAdapter().fit(x, [1, 2]), DataError, "200 rows"),
        (lambda x: NestedAdapter().fit(x, groups=[1, 2]), DataError, "groups must be"),
        (lambda x: NestedAdapter("dim=4,64").fit(x), GranularityError, "end it at 32"),
        (lambda x: NestedAdapter("dim=4,16", orthogonal=True).fit(x), GranularityError, "end it at 32"),
        (lambda x: NestedAdapter(orthogonal=True, hidden=4).fit(x), ConfigError, "hidden or orthogonal"),
        (
            lambda x: NestedAdapter(hidden=0).fit(x),
            ConfigError,
            "hidden=0 must be a whole number of at least 1",
        ),
        (lambda x: NestedAdapter(temperature=-1.0).fit(x), ConfigError, "temperature"),
        (lambda x: NestedAdapter(temperature=0.0).fit(x), ConfigError, "temperature"),
        (lambda x: NestedAdapter(epochs=0).fit(x), ConfigError, "epochs"),
        (lambda x: NestedAdapter(rule=CutRule("layer_norm")).fit(x), ConfigError, "before the cut"),
        (lambda x: NestedAdapter().fit(np.where(np.eye(200, 32) > 0, np.inf, x)), DataError, "32 rows"),
        (lambda x: NestedAdapter(max_steps=1).fit(x)(x, at=5), GranularityError, "nearest"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make(clusters(200)[0])


def test_calling_gives_what_is_compared(fitted):
    for adapter, x in fitted.values():
        for g in SIZES:
            expected = cut(adapter.transform(x), g["dim"], adapter.rule)
            np.testing.assert_allclose(adapter(x, at=g), expected, atol=1e-5)
