"""Principal axes: against scikit-learn, against the optimum, in blocks, as estimator and as elastic thing."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from nestling.cut import RAW, CutRule
from nestling.encoders.maps import PCARotation, pca
from nestling.encoders.maps.fit_report import compare_with_truncation
from nestling.encoders.maps.held_out import MOST
from nestling.encoders.maps.pca import Moments
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.testing import ELASTIC_LAWS, ElasticExample
from samples import examples


def vectors(n=300, dim=24, seed=0, offset=0.5, dtype=np.float64):
    """Correlated vectors of falling energy around a point that is not zero."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(2, 0.1, dim)
    return ((rng.standard_normal((n, dim)) * spread + offset) @ rng.standard_normal((dim, dim))).astype(dtype)


def up_to_sign(a, b):
    return np.abs((a * b).sum(axis=0)) / (np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0))


@pytest.mark.parametrize("center", [False, True])
def test_scikit_learn_says_it_is_an_estimator(center):
    check_estimator(PCARotation(center=center), on_skip=None)


@pytest.mark.parametrize("law", ELASTIC_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("settings_", [{}, {"center": True, "rule": RAW}], ids=["cosine", "centred, raw"])
def test_the_laws(law, settings_):
    x = vectors()
    rotation = PCARotation("dim=2,8,24", **settings_).fit(x)
    law(ElasticExample(rotation, x[:20], counted=[(rotation, "_map")]))


def test_agrees_with_truncated_svd_which_does_not_centre():
    x = vectors()
    svd = TruncatedSVD(8, algorithm="arpack").fit(x)
    rotation = PCARotation(n_components=8).fit(x)
    np.testing.assert_allclose(up_to_sign(rotation.transform(x), svd.transform(x)), 1, atol=1e-9)
    np.testing.assert_allclose(rotation.energy_, svd.singular_values_**2 / len(x), rtol=1e-9)


def test_centred_agrees_with_pca():
    x = vectors()
    pca, rotation = PCA(svd_solver="full").fit(x), PCARotation(center=True).fit(x)
    np.testing.assert_allclose(up_to_sign(rotation.transform(x), pca.transform(x)), 1, atol=1e-9)
    np.testing.assert_allclose(rotation.energy_ratio_, pca.explained_variance_ratio_, atol=1e-12)
    np.testing.assert_allclose(rotation.mean_, pca.mean_, atol=1e-12)


def test_the_full_size_loses_nothing():
    x, queries = vectors(), vectors(50, seed=1)
    rotation = PCARotation().fit(x)
    z = rotation.transform(x)
    np.testing.assert_allclose(rotation.transform(queries) @ z.T, queries @ x.T, rtol=1e-9)
    narrow = rotation.transform(x.astype(np.float32))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, z, atol=1e-4)  # entries reach 50, float32 has 7 digits


def test_centring_keeps_distances_but_not_cosines():
    x = vectors()
    rotation = PCARotation(center=True, rule=RAW).fit(x)
    z = rotation(x)
    np.testing.assert_allclose(cdist(z, z), cdist(x, x), atol=1e-9)
    assert np.abs(z @ z.T - x @ x.T).max() > 1


def test_no_linear_map_to_as_few_outputs_loses_less():
    x = vectors()
    rotation = PCARotation("dim=4,24").fit(x)
    kept = np.square(rotation.transform(x)[:, :4]).sum()
    rng = np.random.default_rng(1)
    for _ in range(50):
        axes = np.linalg.qr(rng.standard_normal((24, 4)))[0]
        assert np.square(x @ axes).sum() < kept
    assert np.all(np.diff(rotation.energy_) <= 0)


@settings(max_examples=examples(40))
@given(
    arrays(np.float64, st.tuples(st.integers(2, 40), st.just(5)), elements=st.floats(-100, 100)),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_in_blocks_as_at_once(x, cuts):
    moments = Moments.empty(5)
    for block in np.split(x, sorted(c for c in cuts if c < len(x))):
        if len(block):
            moments.update(block)
    assert moments.count == len(x)
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(moments.second(centred=True), np.cov(x.T, bias=True), atol=1e-7)
    np.testing.assert_allclose(moments.second(centred=False), x.T @ x / len(x), atol=1e-7)


def test_a_far_mean_costs_no_digits():
    x = np.random.default_rng(0).standard_normal((1000, 3))
    moments = Moments.empty(3)
    for block in np.split(x + 1e8, 10):
        moments.update(block)
    # Summing squares would leave no digit: 1e16 * 2e-16 is 2, and the variances are 1.
    np.testing.assert_allclose(moments.second(centred=True), np.cov(x.T, bias=True), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_iterator_a_memory_map_and_partial_fits_are_the_same(dtype, tmp_path):
    x = vectors(dtype=dtype)
    np.save(tmp_path / "x.npy", x)
    whole = PCARotation("dim=4,24").fit(x)
    others = [
        PCARotation("dim=4,24").fit(iter(np.array_split(x, 7))),
        PCARotation("dim=4,24").fit(np.load(tmp_path / "x.npy", mmap_mode="r")),
        PCARotation("dim=4,24").partial_fit(x[:100]).partial_fit(x[100:]),
    ]
    for other in others:
        np.testing.assert_allclose(other.components_, whole.components_, atol=1e-9)
        assert other.n_samples_seen_ == 300
    assert whole.transform(x).dtype == np.float32


def test_data_larger_than_what_it_allocates(tmp_path):
    path, block = tmp_path / "x.npy", vectors(10_000, 128, dtype=np.float32)
    x = np.lib.format.open_memmap(path, "w+", np.float32, (300_000, 128))
    for start in range(0, 300_000, 10_000):
        x[start : start + 10_000] = block
    x.flush()
    tracemalloc.start()
    rotation = PCARotation("dim=8,128").fit(np.load(path, mmap_mode="r")).extract(8)
    found = rotation.transform(np.load(path, mmap_mode="r"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2
    assert found.shape == (300_000, 8)
    np.testing.assert_allclose(found[-10_000:], rotation.transform(block), rtol=1e-5, atol=1e-5)


def test_a_rotation_that_was_loaded_cannot_go_on_learning(tmp_path):
    x = vectors()
    rotation = PCARotation("dim=4,24").fit(x)
    rotation.save(tmp_path / "rotation")
    for other in (PCARotation.load(tmp_path / "rotation"), rotation.extract(4)):
        with pytest.raises(ConfigError, match="fit a new one"):
            other.partial_fit(x)
        assert other.fit(x).n_samples_seen_ == 300
    (tmp_path / "rotation" / "rotation.safetensors").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="truncated or altered"):
        PCARotation.load(tmp_path / "rotation")


def test_extracting_keeps_what_was_learned(tmp_path):
    x = vectors()
    rotation = PCARotation("dim=4,8,24", center=True).fit(x)
    small = rotation.extract(8)
    assert small.components_.shape == (8, 24)
    assert small.nesting == Nesting.parse("dim=4,8")
    assert small.get_params()["center"] is True
    np.testing.assert_array_equal(small.energy_ratio_, rotation.energy_ratio_[:8])
    small.save(tmp_path / "small")
    assert (tmp_path / "small" / "rotation.safetensors").stat().st_size < 8 * 8 * 24 + 8 * 24 + 1000


def test_fewer_rows_than_dims_still_give_a_rotation():
    x = vectors(5, 24)
    rotation = PCARotation().fit(x)
    np.testing.assert_allclose(rotation.components_ @ rotation.components_.T, np.eye(24), atol=1e-12)
    np.testing.assert_allclose(rotation.energy_[5:], 0, atol=1e-9)


def test_parameters_stay_as_given():
    rotation = PCARotation("dim=2,4")
    assert rotation.get_params()["nesting"] == "dim=2,4"
    assert rotation.rule == CutRule()
    assert clone(rotation).get_params() == rotation.get_params()
    rotation.set_params(nesting=[2, 6], center=True).fit(vectors())
    assert rotation.nesting == Nesting.chain(dim=[2, 6])
    assert rotation.get_params()["nesting"] == [2, 6]
    with pytest.raises(NotFittedError):
        _ = PCARotation().nesting
    with pytest.raises(NotFittedError):
        PCARotation().extract(2)


def test_in_a_pipeline_and_with_data_frames():
    frame = pd.DataFrame(vectors(dim=6), columns=list("abcdef"))
    pipe = make_pipeline(StandardScaler(), PCARotation("dim=2,4")).set_output(transform="pandas")
    found = pipe.fit_transform(frame)
    assert list(found.columns) == [f"pcarotation{i}" for i in range(4)]
    again = pickle.loads(pickle.dumps(pipe))
    pd.testing.assert_frame_equal(again.transform(frame), found)


def test_the_map_as_a_layer_of_torch():
    torch = pytest.importorskip("torch")
    x = vectors()
    rotation = PCARotation(center=True).fit(x)
    ((weight, bias, activation),) = rotation.affine_layers()
    assert activation is None
    found = torch.nn.functional.linear(torch.from_numpy(x).float(), weight, bias)
    np.testing.assert_allclose(found, rotation.transform(x), atol=1e-4)


@pytest.fixture
def compared(monkeypatch):
    """Inputs of the reports of this test: the map, and the rows held out."""
    seen = []

    def spy(transform, held, nesting, rule):
        seen.append((transform, held))
        return compare_with_truncation(transform, held, nesting, rule)

    monkeypatch.setattr(pca, "compare_with_truncation", spy)
    return seen


def numbers_of(held, x):
    """The row numbers in ``x`` of rows of it."""
    places = {row.tobytes(): i for i, row in enumerate(x)}
    return [places[row.tobytes()] for row in held]


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")  # partners that have nothing in common
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("paired", [False, True], ids=["vectors", "pairs"])
def test_the_report_is_of_rows_that_did_not_teach_it(center, paired, compared):
    x, partners = vectors(700, dtype=np.float32), vectors(700, seed=1, dtype=np.float32)
    pairs = partners if paired else None
    rotation = PCARotation("dim=3,8,24", center=center).fit(x, pairs=pairs)
    ((transform, held),) = compared
    numbers = numbers_of(held.x, x)
    assert len(set(numbers)) == 70 == rotation.report_.rows
    both = [x] if pairs is None else [x, pairs]
    if paired:
        assert numbers_of(held.pairs, partners) == numbers

    def axes(rows):
        """Principal axes, the plain way."""
        mean = rows.mean(axis=0) if center else np.zeros(rows.shape[1])
        return np.linalg.svd(rows - mean, full_matrices=False)[2], mean

    others, mean = axes(
        np.concatenate([np.delete(side, numbers, axis=0) for side in both]).astype(np.float64)
    )
    everything, _ = axes(np.concatenate(both).astype(np.float64))
    reported = transform(held.x)
    np.testing.assert_allclose(up_to_sign(reported, (held.x - mean) @ others.T), 1, atol=1e-6)
    # The kept map is fitted on all rows, the held-out ones too.
    np.testing.assert_allclose(up_to_sign(rotation.components_.T, everything.T), 1, atol=1e-9)
    assert up_to_sign(rotation.components_.T, others.T).min() < 1 - 1e-6
    assert rotation.n_samples_seen_ == 700 * len(both)


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")  # at the smaller size
def test_the_report_by_plain_loops(compared):
    x = vectors(600)
    report = PCARotation("dim=2,5,24").fit(x).report_
    numbers = numbers_of(compared[0][1].x, x)
    rest = np.delete(x, numbers, axis=0)
    axes = np.linalg.eigh(rest.T @ rest)[1][:, ::-1]

    def nearest(rows, i, dim):
        cosines = {}
        for j in range(len(rows)):
            a, b = rows[i, :dim], rows[j, :dim]
            if j != i:
                cosines[j] = sum(a * b) / (np.sqrt(sum(a * a)) * np.sqrt(sum(b * b)))
        return set(sorted(cosines, key=cosines.get)[-10:])

    held = x[numbers]
    for gain, value in zip(report.gains, report.values, strict=True):
        dim = gain.granularity["dim"]
        kept = [
            [len(nearest(rows, i, dim) & nearest(held, i, 24)) / 10 for i in range(60)]
            for rows in (held @ axes, held)
        ]
        assert value == pytest.approx(np.mean(kept[0]), abs=2e-3)  # float32 swaps a near tie at most
        assert gain.value == pytest.approx(np.mean(kept[0]) - np.mean(kept[1]), abs=2e-3)


def test_the_same_rows_are_held_out_however_they_come(tmp_path, compared):
    x = vectors(12_000, 4, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    ways = [
        x,
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        iter(np.array_split(x, 7)),
        iter(np.split(x, [1, 2, 3, 5000, 5001])),
        (x[i : i + 3] for i in range(0, len(x), 3)),
    ]
    reports = [PCARotation("dim=2,4").fit(way).report_ for way in ways]
    assert all(report == reports[0] for report in reports)
    numbers = [numbers_of(held.x, x) for _, held in compared]
    assert all(each == numbers[0] for each in numbers)
    assert reports[0].rows == MOST == len(set(numbers[0]))
    # Uniform: a third of the rows of a file in order come from its last third.
    shares = np.histogram(numbers[0], 3, (0, len(x)))[0] / MOST
    np.testing.assert_allclose(shares, 1 / 3, atol=0.06)  # three standard errors are 0.05


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: PCARotation("dim=8,32").fit(x), GranularityError, "end it at 24"),
        (lambda x: PCARotation("layer=8,24").fit(x), GranularityError, "the axis dim, not layer"),
        (lambda x: PCARotation([8, 8, 24]).fit(x), GranularityError, "without repeats"),
        (lambda x: PCARotation(n_components=25).fit(x), ConfigError, "choose 1 to 24"),
        (lambda x: PCARotation("dim=8,24", n_components=8).fit(x), ConfigError, "different full sizes"),
        (lambda x: PCARotation(rule=CutRule("layer_norm")).fit(x), ConfigError, "before the cut"),
        (lambda x: PCARotation().fit(iter([])), DataError, "no blocks"),
        (lambda x: PCARotation().fit(iter([x, x[:, :5]])), DataError, "5 features"),
        (lambda x: PCARotation().fit(x[0]), DataError, "1D array"),
        (lambda x: PCARotation().fit(np.where(np.arange(300)[:, None] == 7, np.nan, x)), DataError, "row 7"),
        (lambda x: PCARotation().fit(x * 1e200), DataError, "too large"),
        (lambda x: PCARotation().fit(x)(x, at="dim=9"), GranularityError, "nearest"),
        (lambda x: PCARotation().fit(x)(np.zeros((3, 24))), DataError, "3 rows"),
        (lambda x: PCARotation().fit(x).transform(x[:, :3]), DataError, "expecting 24"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make(vectors())


def test_it_needs_no_torch():
    code = "import sys, nestling.encoders.maps as v; v.PCARotation().fit([[1., 2.], [2., 1.]]); "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
