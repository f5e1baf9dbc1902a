"""The axis ``bits``: codes against independent definitions, laws, stored codes and their files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.bits import BitCode, cell_values
from nestling.cut import CutRule, cut
from nestling.errors import CalibrationWarning, DataError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.kernels.planes import packed, unpacked
from nestling.search import nearest
from nestling.testing import check_elastic
from nestling.vectors.planes import BitPlanes
from nestling.vectors.stored import StoredVectors
from samples import examples


def vectors(rows: int = 400, dim: int = 20, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(rows, dim)) / np.sqrt(np.arange(1, dim + 1)) + 0.05).astype(np.float32)


def test_vectors_with_a_code_keep_the_laws() -> None:
    stored = StoredVectors(vectors(), "dim=5,13,20").calibrated()
    assert str(stored.nesting) == "dim=5,13,20 x bits=1,2,3,4,8,16,32"
    check_elastic(stored, np.arange(30))
    check_elastic(stored.extract("dim=20,bits=4"), np.arange(30))


def test_the_leading_bits_of_a_code_are_a_code() -> None:
    code = BitCode.calibrate(vectors())
    codes = code.encode(vectors(seed=1))
    for bits in (1, 2, 3, 4):
        edges = np.sort(np.unique(codes >> (8 - bits)))
        assert len(edges) == 2**bits
        assert np.array_equal(np.diff(cell_values(bits)) > 0, np.full(2**bits - 1, True))


@settings(max_examples=examples(40))
@given(st.integers(1, 70), st.integers(1, 5), st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, 99))
def test_planes_hold_codes(dim: int, rows: int, bits: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 256, size=(rows, dim), dtype=np.uint8)
    kept = np.uint8(0xFF << (8 - bits) & 0xFF)
    assert np.array_equal(unpacked(packed(codes, bits), dim), codes & kept)


@pytest.mark.parametrize("at", ["dim=20,bits=8", "dim=13,bits=2", "dim=5,bits=1", "dim=13,bits=16", "dim=13"])
def test_extracted_vectors_round_trip_through_a_folder(at: str, tmp_path) -> None:
    stored = StoredVectors(
        vectors(), "dim=5,13,20", ids=[f"v{i}" for i in range(400)], encoder="m"
    ).calibrated()
    small = stored.extract(at, tmp_path / "small")
    assert np.allclose(small.matrix(), stored.matrix(at), atol=1e-6)
    assert small.cost() == stored.cost(at)
    again = StoredVectors.load(tmp_path / "small")
    assert again.nesting.full == stored.nesting.resolve(at)
    assert list(again.ids) == list(stored.ids)


def test_bytes_are_dims_times_bits() -> None:
    stored = StoredVectors(vectors(dim=256), "dim=64,256").calibrated()
    sizes = {
        at: stored.cost(at).output_bytes
        for at in ("dim=64,bits=1", "dim=256,bits=2", "dim=64,bits=16", "dim=64")
    }
    assert list(sizes.values()) == [8, 64, 128, 256]


def test_bad_input_is_refused() -> None:
    with pytest.raises(GranularityError, match="bits=5 is no precision"):
        Granularity(dim=4, bits=5)
    with pytest.raises(DataError, match="calibrate it on a sample"):
        cut(vectors(), 4, bits=2)
    with pytest.raises(DataError, match="calibrated for vectors of 20 entries, not 8"):
        cut(vectors(dim=8), 4, CutRule().calibrated(vectors()), bits=2)
    with pytest.warns(CalibrationWarning, match="at least 256"):
        CutRule().calibrated(vectors(rows=100))
    bad = vectors()
    bad[3, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        CutRule().calibrated(bad)
    coded = StoredVectors(vectors()).calibrated().extract("dim=20,bits=2")
    with pytest.raises(GranularityError, match="bits=4 is outside"):
        coded([0], at="dim=20,bits=4")
    with pytest.raises(DataError, match="held in codes already"):
        coded.calibrated()


def test_constant_entries_and_values_beyond_the_range_are_safe() -> None:
    sample = vectors()
    sample[:, 3] = 0.25
    code = BitCode.calibrate(sample)
    codes = code.encode(np.stack([sample[0] + 1e6, sample[0] - 1e6]))
    assert [set(np.delete(each, 3)) for each in codes] == [{255}, {0}]
    assert np.allclose(code.decode(codes)[:, 3], 0.25)


def test_a_single_vector_is_encoded_by_the_calibration_and_not_by_itself() -> None:
    stored = StoredVectors(vectors(), "dim=20").calibrated()
    alone = StoredVectors(vectors()[:1], "dim=20", stored.rule)
    assert np.array_equal(alone([0], at="dim=20,bits=8"), stored([0], at="dim=20,bits=8"))


def test_a_tensor_is_rounded_as_an_array_and_passes_gradients() -> None:
    torch = pytest.importorskip("torch")
    rule, x = CutRule().calibrated(vectors()), vectors(seed=2)
    tensor = torch.tensor(x, requires_grad=True)
    held = cut(tensor, 13, rule, bits=2)
    assert np.allclose(held.detach().numpy(), cut(x, 13, rule, bits=2), atol=1e-6)
    held.sum().backward()
    assert (tensor.grad[:, :13] != 0).all()


def test_a_nesting_over_bits_parses_and_prints() -> None:
    nesting = Nesting.parse("dim=64..256 x bits=1,2,4,8,32")
    assert str(nesting) == "dim=64,128,256 x bits=1,2,4,8,32"
    assert nesting.resolve(64) == Granularity(dim=64, bits=32)
    assert str(Granularity(bits=2, layer=3, dim=8)) == "dim=8,bits=2,layer=3"
    assert nesting.rests == (Granularity(),)


def test_views_of_planes_read_fewer_entries() -> None:
    stored = StoredVectors(vectors(), "dim=5,20").calibrated().extract("dim=20,bits=8")
    planes = stored.values
    assert isinstance(planes, BitPlanes)
    assert np.array_equal(planes[..., :5][3:6], planes[3:6][:, :5])
    assert np.array_equal(np.asarray(planes), planes.read(slice(None)))


def test_what_has_no_code_says_how_to_make_one(tmp_path) -> None:
    plain = StoredVectors(vectors(), "dim=5,20")
    plain.save(tmp_path / "old")  # as folders were before there were codes
    for stored in (plain, StoredVectors.load(tmp_path / "old")):
        with pytest.raises(GranularityError, match=r"no axis 'bits'.*stored\.calibrated\(\)"):
            stored([0], at="bits=8")
        with pytest.raises(GranularityError, match=r"stored\.calibrated\(\)"):
            stored.extract("dim=5,bits=2")
    with pytest.raises(GranularityError, match=r"no code; leave bits out, or.*stored\.calibrated\(\)"):
        StoredVectors(vectors(), "dim=5,20 x bits=1,32")


def test_a_code_of_other_vectors_is_refused() -> None:
    rule = StoredVectors(vectors(), encoder="minilm").calibrated().rule
    with pytest.raises(DataError, match="vectors of 20 entries, not 8"):
        StoredVectors(vectors(dim=8), "dim=8", rule)
    with pytest.raises(DataError, match="of 'minilm', and these are of 'wordllama'; calibrate on"):
        StoredVectors(vectors(), "dim=20", rule, encoder="wordllama")
    for same in ("minilm", "minilm@sha256:" + 64 * "0", ""):
        assert StoredVectors(vectors(), "dim=20", rule, encoder=same).nesting.full["bits"] == 32


@pytest.mark.parametrize("bits", [5, 24, 64, 0, 2.0, True])
def test_bits_that_are_no_precision_are_refused(bits: object) -> None:
    with pytest.raises(GranularityError, match="bits"):
        cut(vectors(), 4, CutRule().calibrated(vectors()), bits=bits)


def test_packed_bytes_that_do_not_fit_are_refused() -> None:
    code = CutRule().calibrated(vectors()).needed_code
    for plane in (np.zeros((4, 2), np.uint8), np.zeros((4, 3), np.int8), np.zeros(3, np.uint8)):
        with pytest.raises(DataError, match=r"plane of 20 entries is UInt8\[n, 3\], eight to a byte"):
            BitPlanes((plane,), code)
    with pytest.raises(DataError, match="holds 20 entries, and 24 are given"):
        code.decode(np.zeros((2, 24), np.uint8))


def test_codes_are_no_vectors() -> None:
    """As queries or as documents: their numbers say nothing without their code."""
    codes = CutRule().calibrated(vectors()).encode(vectors())
    for held in (codes, codes.view(np.int8)):
        for use in (StoredVectors, lambda queries: nearest(queries, vectors(), 3)):
            with pytest.raises(DataError, match=r"decode them with nestling\.vectors\.formats\.from_format"):
                use(held)
    assert StoredVectors(codes.astype(np.float32)).values.dtype == np.float32


@pytest.mark.parametrize("rule", [CutRule(), CutRule("layer_norm")])
def test_whole_queries_are_cut_to_the_size_of_codes(rule: CutRule) -> None:
    documents = vectors(dim=32)
    queries = documents[:9] + vectors(9, 32, seed=1) / 9
    coded = StoredVectors(documents, "dim=8,32", rule).calibrated().extract("dim=8,bits=4")
    assert "400 in codes of 4 bits, 4 bytes each" in repr(coded)
    found = nearest(queries, coded, k=3, rule=rule)
    with pytest.raises(GranularityError, match="keep 8 dims of 4 bits; extract more from the vectors"):
        coded.extract("dim=32,bits=2")
    with pytest.raises(GranularityError, match="did you mean 'bits'"):
        coded.extract("dim=8,bit=2")
    expected = nearest(cut(queries, 8, rule), coded.matrix(), k=3)
    assert np.array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(nearest(cut(queries, 8, rule), coded, k=3).indices, expected.indices)
    with pytest.raises(DataError, match="8 entries a row, but 16 are expected"):
        nearest(queries[:, :16], coded, k=3)
