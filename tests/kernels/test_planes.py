"""Kernels of nested codes agree with numpy at every level, and numpy with what the codes mean."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.bits import BitCode, cell_values
from nestling.kernels import library
from nestling.kernels.planes import native
from nestling.kernels.planes import numpy as twin
from nestling.kernels.planes.layout import CodeSlice, Steps

LEVELS = library.levels()
needs_kernels = pytest.mark.skipif(not LEVELS, reason="the kernels were not compiled")


def some_code(draw: np.random.Generator, dim: int) -> BitCode:
    spread = (draw.random(dim) + 0.1).astype(np.float32)
    spread[draw.random(dim) < 0.1] = 0  # constant entries
    return BitCode(draw.normal(size=dim).astype(np.float32), spread, dim)


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 150), st.integers(1, 9), st.integers(0, 99))
def test_codes_are_those_of_numpy_to_the_last_one(dim: int, rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    code = some_code(draw, dim)
    # Within the range, beyond it, and where a cell ends.
    x = code.centre + code.spread * (draw.normal(size=(rows, dim)) * draw.choice([1, 3, 1e30])).astype("f4")
    x[0] = code.centre + code.spread * np.float32(2.4)
    wide = np.concatenate([x, x], axis=1).astype(np.float32)  # rows are longer than what is read
    wanted = twin.encode(wide, code._cells)
    for level in LEVELS:
        np.testing.assert_array_equal(native.encode(level, wide, code._cells), wanted)


@needs_kernels
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 700), st.integers(1, 8), st.integers(1, 5), st.integers(0, 99))
def test_planes_are_those_of_numpy(dim: int, bits: int, rows: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 256, size=(rows, dim + 3), dtype=np.uint8)[:, :dim]
    planes = twin.packed(codes, bits)
    kept = codes & np.uint8(0xFF << (8 - bits) & 0xFF)
    np.testing.assert_array_equal(twin.unpacked(planes, dim), kept)
    for level in LEVELS:
        for one, other in zip(native.packed(level, codes, bits), planes, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(native.unpacked(level, planes, dim), kept)
        some = (dim + 1) // 2  # a prefix, whose rows lie apart and end within a byte
        views = [plane[:, : -(-some // 8)] for plane in planes]
        np.testing.assert_array_equal(native.unpacked(level, views, some), kept[:, :some])


@pytest.mark.parametrize("level", ["off", *LEVELS])
@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 7, 8, 61, 64, 128, 256, 384, 500, 768]), st.integers(1, 60), st.integers(0, 99))
def test_the_rows_that_differ_in_the_fewest_bits(level: str, dim: int, k: int, seed: int) -> None:
    """Against a plain count and a stable sort, of a prefix, some of the rows, and a filter."""
    draw = np.random.default_rng(seed)
    signs, asked = draw.random((5000, dim + 9)) < 0.5, draw.random((3, dim)) < 0.5
    rows, allowed = slice(100, 5000 - seed), draw.random(5000) < draw.choice([0.001, 0.5, 1])
    differing = (signs[:, None, :dim] != asked).sum(axis=2).T.astype(float)
    differing[:, ~allowed] = differing[:, : rows.start] = differing[:, rows.stop :] = np.inf
    order = np.argsort(differing, axis=1, kind="stable")[:, :k]
    counts = np.take_along_axis(differing, order, axis=1)
    there = np.isfinite(counts)
    planes = np.packbits(signs, axis=1), dim, np.packbits(asked, axis=1), k
    given_rows = {"allowed": allowed, "rows": rows}
    found = (
        twin.hamming(*planes, **given_rows)
        if level == "off"
        else native.hamming(level, *planes, **given_rows)
    )
    np.testing.assert_array_equal(found[0], np.where(there, order, -1))
    np.testing.assert_array_equal(found[1], np.where(there, counts, -1))


def a_slice(draw: np.random.Generator, rows: int, dim: int, bits: int, kind: str) -> CodeSlice:
    """Codes of vectors in clusters, of which some are equal, whose later entries are smaller."""
    code = some_code(draw, dim)
    x = code.centre + code.spread * draw.normal(size=(rows // 2, dim)).repeat(2, axis=0)
    x = (x / np.sqrt(np.arange(1, dim + 1)) * (1 + (kind != "cosine") * draw.random((rows, 1)))).astype("f4")
    planes = tuple(twin.packed(code.encode(x), bits))
    return CodeSlice(planes, cell_values(bits), code.spread, code.centre, kind)


def plain_scores(codes: CodeSlice, queries: np.ndarray) -> np.ndarray:
    """By their definition, from the codes."""
    held = twin.unpacked(codes.planes, codes.dim) >> (8 - codes.bits)
    values = (codes.values[held] * codes.spread + codes.centre).astype(np.float64)
    if codes.kind == "distance":
        return -np.square(values[None] - queries[:, None]).sum(axis=2)
    scores = queries @ values.T
    return scores / np.linalg.norm(values, axis=1) if codes.kind == "cosine" else scores


@pytest.mark.parametrize("level", ["off", *LEVELS])
@pytest.mark.parametrize("kind", ["cosine", "dot", "distance"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_a_search_finds_the_best_by_the_codes(level: str, kind: str, bits: int) -> None:
    """Of all rows, some of them and with a filter; single queries and more than are looked for together."""
    for dim, rows in ((5, 40), (61, 3000), (256, 1000), (300, 700)):
        draw = np.random.default_rng(dim)
        codes = a_slice(draw, rows, dim, bits, kind)
        queries = draw.normal(size=(70, dim)) * codes.spread + codes.centre
        queries[3] = 0
        measured = twin.measure(codes)
        reach, rest = np.sqrt(measured[:, 1:].max(axis=0))
        codes = codes.bounded(measured[:, 0].astype(np.float32), float(reach), float(rest))
        scores = plain_scores(codes, queries)
        allowed = draw.random(rows) < 0.7
        for some, k, options in (
            (slice(1), 7, {}),
            (slice(None), 10, {"allowed": allowed}),
            (slice(3), rows, {"rows": slice(16, rows // 32 * 16 + 16)}),
        ):
            wanted = scores[some].copy()
            if "allowed" in options:
                wanted[:, ~allowed] = -np.inf
            span = options.get("rows", slice(0, rows))
            wanted[:, : span.start] = wanted[:, span.stop :] = -np.inf
            best = -np.sort(-wanted, axis=1)[:, :k]
            search = twin.search if level == "off" else partial(native.search, level)
            found = search(codes, queries[some], k, **options)
            count = int(np.isfinite(best[0]).sum())
            np.testing.assert_allclose(found[1][:, :count], best[:, :count], rtol=1e-9, atol=1e-12)
            own = np.take_along_axis(wanted, found[0][:, :count], axis=1)
            np.testing.assert_allclose(own, best[:, :count], rtol=1e-9, atol=1e-12)
            assert (found[0][:, count:] == -1).all()
            assert np.isnan(found[1][:, count:]).all()


@needs_kernels
@pytest.mark.parametrize("kind", ["cosine", "dot", "distance"])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_scores_and_lengths_agree_with_numpy(kind: str, bits: int) -> None:
    draw = np.random.default_rng(bits)
    codes = a_slice(draw, 50, 45, bits, kind)
    queries, shortlist = draw.normal(size=(4, 45)), draw.integers(-1, 50, size=(4, 9))
    wanted = np.take_along_axis(plain_scores(codes, queries), np.maximum(shortlist, 0), axis=1)
    wanted[shortlist < 0] = np.nan
    for score in (twin.score, *(partial(native.score, level) for level in LEVELS)):
        np.testing.assert_allclose(score(codes, queries, shortlist), wanted, rtol=1e-9, atol=1e-12)
    for level in LEVELS:
        np.testing.assert_allclose(native.measure(level, codes), twin.measure(codes), rtol=1e-9)


def test_levels_of_8_bits_lie_close_to_their_values() -> None:
    """Evenly spaced levels differ from the values by little more than half a step, but for both ends."""
    values = cell_values(8)
    steps = Steps.of(values)
    assert np.abs(steps.rest[2:-2]).max() < 1.6 * steps.half * 2
    assert np.sqrt(np.average(np.square(steps.rest), weights=np.exp(-(values**2) / 2))) < 1.2 * steps.half
