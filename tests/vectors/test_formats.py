"""Number formats agree with sentence-transformers, come back exactly, and refuse what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.errors import DataError
from nestling.vectors.formats import from_format, ranges_of, to_format
from samples import examples

DRAW = np.random.default_rng(0)
SAMPLE = DRAW.normal(size=(500, 20)).astype(np.float32)
VECTORS = DRAW.normal(size=(40, 20)).astype(np.float32)
FORMS = ("float32", "float16", "int8", "uint8", "binary", "ubinary")


@pytest.mark.parametrize("form", ["int8", "uint8", "binary", "ubinary"])
def test_agreement_with_sentence_transformers(form: str) -> None:
    quantisation = pytest.importorskip("sentence_transformers.util.quantization")
    ranges = ranges_of(SAMPLE)
    theirs = quantisation.quantize_embeddings(VECTORS, precision=form, ranges=ranges)
    ours = to_format(VECTORS, form, ranges=ranges)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


@settings(max_examples=examples(60))
@given(st.sampled_from(FORMS), st.integers(1, 40), st.integers(0, 999))
def test_formats_come_back_exactly(form: str, dim: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    sample = (draw.normal(size=(30, dim)) * draw.uniform(1e-3, 10, dim) + draw.normal(size=dim)).astype(
        np.float32
    )
    ranges = ranges_of(sample)
    written = to_format(sample * 1.5, form, ranges=ranges)  # some beyond the ranges
    read = from_format(written, form, ranges=ranges, dim=dim)
    assert read.shape == (30, dim)
    assert np.array_equal(to_format(read, form, ranges=ranges), written)


def test_values_beyond_the_ranges_saturate() -> None:
    """sentence-transformers #3847: they wrapped round."""
    codes = to_format([[9.0, -9.0, 0.5]], "int8", ranges=(-1, 1))
    assert codes.tolist() == [[127, -128, 63]]


def test_a_vector_alone_is_coded_as_among_others() -> None:
    """#2837 and #4025: ranges came from the batch at hand."""
    ranges = ranges_of(SAMPLE)
    assert np.array_equal(
        to_format(VECTORS[:1], "int8", ranges=ranges), to_format(VECTORS, "int8", ranges=ranges)[:1]
    )
    with pytest.raises(DataError, match="a single vector has no range"):
        ranges_of(VECTORS[:1])
    with pytest.raises(DataError, match="int8 needs the ranges"):
        to_format(VECTORS, "int8")


def test_a_ranking_by_codes_respects_the_scale_of_each_entry() -> None:
    """#4058: a score of raw integers loses the scales, and may turn a ranking round."""
    sample = SAMPLE * np.where(np.arange(20) < 2, 10, 0.1).astype(np.float32)
    ranges = ranges_of(sample)
    read = from_format(to_format(sample, "int8", ranges=ranges), "int8", ranges=ranges)
    query = sample[7]
    assert (np.argsort(-(sample @ query))[:5] == np.argsort(-(read @ query))[:5]).all()


def test_signed_bits_and_padded_bytes_are_undone() -> None:
    """#3948: signed codes were rescored with their offset, and padding counted as entries."""
    for form in ("binary", "ubinary"):
        read = from_format(to_format(VECTORS, form), form, dim=20)
        assert np.array_equal(read, np.where(VECTORS > 0, 1, -1))


def test_bad_input_is_refused() -> None:
    ranges = ranges_of(SAMPLE)
    with pytest.raises(DataError, match="binary values are int8, not uint8; values of uint8 may be ubinary"):
        from_format(to_format(VECTORS, "ubinary"), "binary")
    with pytest.raises(DataError, match=r"vectors of 3 bytes hold 17 to 24 entries, not 30"):
        from_format(to_format(VECTORS, "ubinary"), "ubinary", dim=30)
    with pytest.raises(
        DataError, match="of 3 bytes with ranges of 20 entries are packed bits; read them as binary"
    ):
        from_format(to_format(VECTORS, "binary"), "int8", ranges=ranges)
    with pytest.raises(DataError, match=r"ranges of shape \(2, 20\) do not fit vectors of 8 entries"):
        to_format(VECTORS[:, :8], "uint8", ranges=ranges)
    with pytest.raises(DataError, match="smallest values first"):
        to_format(VECTORS, "uint8", ranges=ranges[::-1])
    with pytest.raises(DataError, match="NaN"):
        to_format([[np.nan, 1.0]], "binary")


def test_constant_entries_are_safe() -> None:
    sample = SAMPLE.copy()
    sample[:, 4] = 0.3
    ranges = ranges_of(sample)
    assert (to_format(sample, "uint8", ranges=ranges)[:, 4] == 0).all()
