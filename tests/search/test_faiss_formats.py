"""Number formats and codes as indexes of faiss: they decode alike, and come back byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from nestling.cut import CutRule
from nestling.errors import DataError
from nestling.search.engine.faiss_formats import from_faiss, planes_from_faiss, planes_to_faiss, to_faiss
from nestling.search.exact.faiss_arrays import faiss
from nestling.vectors.formats import from_format, ranges_of, to_format
from nestling.vectors.planes import BitPlanes
from nestling.vectors.stored import StoredVectors

DRAW = np.random.default_rng(0)
VECTORS = (DRAW.normal(size=(300, 21)) * np.linspace(2, 0.1, 21) + 0.2).astype(np.float32)
RANGES = ranges_of(VECTORS)
STORED = StoredVectors(VECTORS).calibrated()


@pytest.mark.parametrize("form", ["float32", "float16", "uint8", "int8", "ubinary", "binary"])
def test_formats_become_indexes_and_come_back(form: str) -> None:
    values = to_format(VECTORS, form, ranges=RANGES)
    index = to_faiss(values, form, ranges=RANGES)
    assert index.ntotal == 300
    again = from_faiss(index)
    if again.form != form:  # faiss has unsigned bytes alone
        values = to_format(VECTORS, again.form, ranges=RANGES)
    assert np.array_equal(again.values, values)
    if "binary" not in form:
        read = from_format(again.values, again.form, ranges=again.ranges)
        np.testing.assert_allclose(index.reconstruct_n(0, 300), read, atol=1e-6)


def test_an_index_that_faiss_trained_is_read_as_a_format() -> None:
    index = faiss.IndexScalarQuantizer(21, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    index.add(VECTORS)
    values, form, ranges = from_faiss(index)
    np.testing.assert_allclose(ranges, RANGES, atol=1e-6)
    ours = to_format(VECTORS, form, ranges=ranges)
    assert (ours != values).mean() < 1e-3  # where rounding puts a value into the next step
    np.testing.assert_allclose(
        index.reconstruct_n(0, 300), from_format(values, form, ranges=ranges), atol=1e-6
    )


def test_bits_are_searched_by_hamming_distance() -> None:
    values = to_format(VECTORS, "ubinary")
    distances, _ = to_faiss(values, "ubinary").search(values[:5], 10)
    expected = np.unpackbits(values[:5, None] ^ values[None], axis=2).sum(axis=2)
    assert np.array_equal(distances, np.sort(expected, axis=1)[:, :10])


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("dim", [21, 16])
def test_codes_of_stored_vectors_become_indexes_and_come_back(bits: int, dim: int, tmp_path) -> None:
    planes = StoredVectors(VECTORS, f"dim={dim}" if dim == 21 else f"dim={dim},21").calibrated()
    planes = planes.extract(f"dim={dim},bits={bits}").values
    index = planes_to_faiss(planes)
    if bits == 1:
        faiss.write_index_binary(index, str(tmp_path / "codes.faiss"))
        index = faiss.read_index_binary(str(tmp_path / "codes.faiss"))
    else:
        np.testing.assert_allclose(index.reconstruct_n(0, 300), planes.read(slice(None)), atol=1e-6)
        faiss.write_index(index, str(tmp_path / "codes.faiss"))
        index = faiss.read_index(str(tmp_path / "codes.faiss"))
    again = planes_from_faiss(index, planes.code)
    assert isinstance(again, BitPlanes)
    for ours, theirs in zip(planes.planes, again.planes, strict=True):
        assert np.array_equal(ours, theirs)


def test_what_does_not_fit_is_refused() -> None:
    planes = STORED.extract("dim=21,bits=4").values
    with pytest.raises(DataError, match="codes of 8 bits in no index exactly"):
        planes_to_faiss(STORED.extract("dim=21,bits=8").values)
    halves = to_format(STORED.extract("dim=21,bits=8").values, "float16")  # as the error advises
    assert to_faiss(halves, "float16").ntotal == 300
    other = CutRule().calibrated(VECTORS[:256]).needed_code
    with pytest.raises(DataError, match="made with another code"):
        planes_from_faiss(planes_to_faiss(planes), other)
    bits = planes_to_faiss(STORED.extract("dim=21,bits=1").values)
    wide = CutRule().calibrated(DRAW.normal(size=(256, 30))).needed_code
    with pytest.raises(DataError, match="index of 24 bits does not hold codes of 30 entries"):
        planes_from_faiss(bits, wide)
    with pytest.raises(DataError, match="holds no number format"):
        from_faiss(planes_to_faiss(planes))
    with pytest.raises(DataError, match="uint8 values are uint8, not int8"):
        to_faiss(to_format(VECTORS, "binary"), "uint8", ranges=RANGES)
    with pytest.raises(DataError, match="uint8 needs the ranges"):
        to_faiss(to_format(VECTORS, "uint8", ranges=RANGES), "uint8")
    with pytest.raises(DataError, match="holds no codes of stored vectors"):
        planes_from_faiss(to_faiss(VECTORS, "float32"), planes.code)
