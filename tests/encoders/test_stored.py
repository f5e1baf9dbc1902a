"""Stored vectors: elastic over row numbers, saved with their rule, smaller when extracted."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut
from nestling.encoders.maps import PCARotation
from nestling.errors import ArtifactError, DataError, GranularityError, StorageError
from nestling.granularity import Nesting
from nestling.storage.artifact import read_manifest
from nestling.testing import ELASTIC_LAWS, ElasticExample
from nestling.vectors.opening import open_vectors
from nestling.vectors.stored import StoredVectors
from samples import examples

RULES = {
    "cosine": CutRule(),
    "raw": RAW,
    "layer norm": CutRule("layer_norm"),
    "layer norm, raw": CutRule("layer_norm", "none"),
}


def vectors(n=50, dim=16, dtype=np.float32, seed=0):
    return (np.random.default_rng(seed).standard_normal((n, dim)) + 0.3).astype(dtype)


@pytest.mark.parametrize("law", ELASTIC_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_laws(law, rule):
    stored = StoredVectors(vectors(), "dim=2,8,16", rule, ids=np.arange(50) + 100, encoder="x")
    law(ElasticExample(stored, [3, 1, 1, 49], counted=[(stored, "_read")]))


@settings(max_examples=examples(30))
@given(
    st.lists(st.integers(0, 49), min_size=1),
    st.sampled_from([2, 8, 16]),
    st.sampled_from(list(RULES.values())),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_it_is_the_cut_of_the_rows(rows, dim, rule, dtype):
    x = vectors(dtype=dtype)
    stored = StoredVectors(x, "dim=2,8,16", rule)
    np.testing.assert_array_equal(stored(rows, at=dim), cut(x[rows], dim, rule))
    whole = stored.matrix(at=dim)
    np.testing.assert_allclose(
        whole[rows], cut(x[rows], dim, rule), rtol=1e-3 if dtype == np.float16 else 1e-6
    )
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks(at=dim))), whole)
    assert whole.dtype == dtype


def test_it_travels_whole(tmp_path):
    x, names = vectors(), [f"document {i}" for i in range(50)]
    stored = StoredVectors(x, [4, 16], CutRule("layer_norm"), ids=names, encoder="wordllama")
    stored.save(tmp_path / "v")
    manifest = read_manifest(tmp_path / "v")
    assert (manifest.nesting, manifest.cut) == ("dim=4,16", {"before": "layer_norm", "after": "l2"})
    for loaded in (StoredVectors.load(tmp_path / "v"), open_vectors(tmp_path / "v")):
        assert isinstance(loaded.values, np.memmap)
        assert (loaded.nesting, loaded.rule, loaded.encoder) == (stored.nesting, stored.rule, "wordllama")
        assert list(loaded.ids) == names
        np.testing.assert_array_equal(loaded.values, x)
    other = open_vectors(tmp_path / "v", "dim=8,16", RAW, encoder="other")
    assert (other.nesting, other.rule, other.encoder) == (Nesting.parse("dim=8,16"), RAW, "other")
    assert list(other.ids) == names
    # A folder may be saved over itself while its memory map is open.
    loaded.save(tmp_path / "v")
    np.testing.assert_array_equal(StoredVectors.load(tmp_path / "v").values, x)


def test_without_ids_there_is_no_file_of_them(tmp_path):
    StoredVectors(vectors()).save(tmp_path / "v")
    assert {path.name for path in (tmp_path / "v").iterdir()} == {"nestling.json", "vectors.npy"}
    assert StoredVectors.load(tmp_path / "v").ids is None


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_extracting_to_a_folder_is_really_smaller(rule, tmp_path):
    x = vectors(2000, 64)
    stored = StoredVectors(x, "dim=4,16,64", rule, ids=np.arange(2000), encoder="e")
    stored.save(tmp_path / "large")
    small = StoredVectors.load(tmp_path / "large").extract("dim=16", tmp_path / "small")
    sizes = [(tmp_path / name / "vectors.npy").stat().st_size for name in ("small", "large")]
    assert sizes[0] - 128 == (sizes[1] - 128) / 4 == small.cost().size_bytes
    np.testing.assert_allclose(small.matrix(), stored.matrix(16), atol=1e-6)
    np.testing.assert_allclose(small.matrix(4), stored.matrix(4), atol=1e-6)
    assert (small.nesting, small.encoder) == (Nesting.parse("dim=4,16"), "e")
    np.testing.assert_array_equal(small.ids, stored.ids)


def test_what_is_extracted_shares_nothing():
    stored = StoredVectors(vectors(), "dim=4,16", RAW, ids=np.arange(50))
    small = stored.extract(4)
    assert not np.shares_memory(small.values, stored.values)
    assert not np.shares_memory(small.ids, stored.ids)
    assert np.shares_memory(stored.matrix(4), stored.values)


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")  # noise has no axes
def test_maps_are_applied_block_by_block(tmp_path):
    x = vectors(5000, 32)
    stored = StoredVectors(x, ids=np.arange(5000), encoder="e")
    rotation = PCARotation("dim=4,32").fit(x)
    turned = stored.mapped(rotation, tmp_path / "turned")
    assert isinstance(turned.values, np.memmap)
    np.testing.assert_allclose(turned.matrix(4), rotation(x, at=4), atol=1e-5)
    np.testing.assert_array_equal(turned.ids, stored.ids)
    assert (turned.encoder, turned.nesting) == ("e + PCARotation", rotation.nesting)
    small = stored.mapped(rotation.extract(4), tmp_path / "small", encoder="short")
    assert (small.values.shape, small.encoder) == ((5000, 4), "short")


def test_nothing_is_copied_that_was_not_asked_for(tmp_path):
    path = tmp_path / "x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.float32, (400_000, 128))
    x[:] = vectors(1000, 128)[np.arange(400_000) % 1000]
    x.flush()
    tracemalloc.start()
    stored = open_vectors(path, "dim=8,128")
    stored([0, 399_999], at=8)
    stored.save(tmp_path / "whole")
    small = StoredVectors.load(tmp_path / "whole").extract(8, tmp_path / "small")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 3
    np.testing.assert_allclose(small([0, 399_999]), stored([0, 399_999], at=8), atol=1e-6)


def test_a_full_disk_leaves_the_old_folder(tmp_path, monkeypatch):
    old = StoredVectors(vectors(), encoder="old")
    old.save(tmp_path / "v")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_2_0", full)
    with pytest.raises(StorageError, match="disk is full"):
        StoredVectors(vectors(80), encoder="new").save(tmp_path / "v")
    assert StoredVectors.load(tmp_path / "v").encoder == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_map_of_another_number_of_rows_is_refused(tmp_path):
    class Shorter:
        nesting, rule = Nesting.parse("dim=4"), RAW

        def transform(self, x):
            return x[1:, :4]

    with pytest.raises(DataError, match="49 rows came where 50"):
        StoredVectors(vectors()).mapped(Shorter(), tmp_path / "v")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: StoredVectors(np.where(np.arange(50)[:, None] == 4, np.nan, x)), DataError, "row 4"),
        (lambda x: StoredVectors(np.where(np.arange(50)[:, None] % 20 == 4, np.inf, x)), DataError, "3 rows"),
        (lambda x: StoredVectors(x * (np.arange(50) != 9)[:, None]), DataError, "row 9.* all zero"),
        (lambda x: StoredVectors(x[0]), DataError, "matrix"),
        (lambda x: StoredVectors(x[:0]), DataError, "empty"),
        (lambda x: StoredVectors(x.astype(str)), DataError, "floats"),
        (lambda x: StoredVectors(x.astype(complex)), DataError, "floats"),
        (lambda x: StoredVectors(x, "dim=4,8"), GranularityError, "must end at 16"),
        (lambda x: StoredVectors(x, "dim=4,32"), GranularityError, "end it at 16"),
        (lambda x: StoredVectors(x, [8, 4, 16]), GranularityError, "increase"),
        (lambda x: StoredVectors(x, [8, 8, 16]), GranularityError, "without repeats"),
        (lambda x: StoredVectors(x, [0, 16]), GranularityError, "at least 1"),
        (lambda x: StoredVectors(x, [2.5, 16]), GranularityError, "whole number"),
        (lambda x: StoredVectors(x, "layer=2,16"), GranularityError, "the axis dim, not layer"),
        (lambda x: StoredVectors(x, ids=[1, 2]), DataError, "50 rows"),
        (lambda x: StoredVectors(x, ids=[1.5] * 50), DataError, "whole numbers or of strings"),
        (lambda x: StoredVectors(x, ids=["a", *"ab", *map(str, range(47))]), DataError, "id a occurs more"),
        (lambda x: StoredVectors(x)([50]), DataError, "no row 50.* 0 to 49"),
        (lambda x: StoredVectors(x)([-1]), DataError, "no row -1"),
        (lambda x: StoredVectors(x)([0.5]), DataError, "row numbers"),
        (lambda x: StoredVectors(x)([]), DataError, "row numbers"),
        (lambda x: StoredVectors(x)(3), DataError, "row numbers"),
        (lambda x: StoredVectors(x)([True] * 50), DataError, "row numbers"),
        (lambda x: StoredVectors(np.hstack([x[:, :8] * 0, x]))([3], at=8), DataError, "cannot be normalised"),
    ],
)
def test_bad_input_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make(vectors())


def test_rows_of_zeros_are_vectors_where_nothing_is_normalised():
    assert not StoredVectors(np.zeros((3, 8)), rule=RAW)([1]).any()


def test_altered_folders_are_refused(tmp_path):
    StoredVectors(vectors(), ids=np.arange(50)).save(tmp_path / "v")
    path = tmp_path / "v" / "ids.npy"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(ArtifactError, match="truncated or altered"):
        open_vectors(tmp_path / "v")
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        open_vectors(tmp_path / "v")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="not a folder saved by nestling"):
        open_vectors(tmp_path / "empty")
