"""Products of bytes find the same neighbours at all sizes and precisions as products of floats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling import kernels
from nestling.bits import BitCode
from nestling.cut import RAW, CutRule, cut
from nestling.errors import DataError
from nestling.kernels import prefixes
from nestling.measure import precision
from nestling.measure.sweep import sweep
from nestling.measure.tasks.retrieval import Retrieval
from nestling.search.certified.held import Grid, nearest_held
from nestling.search.exact.neighbours import nearest_each

RULES = pytest.mark.parametrize("rule", [CutRule(), RAW], ids=["l2", "raw"])
DIMS = (2, 9, 16, 37)
Floats = NDArray[np.float32]
RNG = np.random.default_rng(3)


def vectors(rows: int, dim: int = 37) -> Floats:
    return (RNG.normal(size=(rows, dim)) * np.linspace(2, 0.3, dim) + 0.2).astype(np.float32)


def held(x: Floats, rule: CutRule) -> tuple[BitCode, NDArray[np.uint8]]:
    unit = cut(x, x.shape[1], rule)
    code = BitCode.calibrate(unit)
    return code, code.encode(unit)


def precisions(x: Floats, rule: CutRule, bits: int) -> tuple[Grid, list[Floats | None]]:
    return Grid(*held(x, rule), bits), [None, x] if bits == 8 else [None]


def check(
    queries: Any, grid: Grid, given: list[Floats | None], k: int, rule: CutRule, **options: Any
) -> None:
    found = nearest_held(queries, grid, given, DIMS, k, rule=rule, **options)
    for each, near in zip(given, found, strict=True):
        expected = nearest_each(queries, grid.values if each is None else each, DIMS, k, rule=rule)
        assert list(near) == list(DIMS)
        for dim in DIMS:
            np.testing.assert_array_equal(near[dim].indices, expected[dim].indices)
            # Doubles are summed in another order, and rounded to float32.
            np.testing.assert_allclose(near[dim].scores, expected[dim].scores, rtol=3e-7, atol=1e-7)


@RULES
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_neighbours_are_those_of_floats(bits: int, k: int, rule: CutRule) -> None:
    x = vectors(700)
    check(vectors(21), *precisions(x, rule, bits), k, rule)


@RULES
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_of_equal_rows_the_first_are_found(bits: int, rule: CutRule) -> None:
    x = vectors(40)[np.arange(1500) % 40]
    check(vectors(9), *precisions(x, rule, bits), 60, rule)


def test_rows_too_near_to_each_other_for_bounds_are_found() -> None:
    x = (vectors(1) + 1e-5 * RNG.normal(size=(9000, 37))).astype(np.float32)
    code, codes = held(vectors(700), CutRule())
    codes[:] = codes[0]
    check(vectors(5), Grid(code, np.resize(codes, x.shape), 8), [x], 10, CutRule())


def test_likely_neighbours_change_nothing() -> None:
    x, queries = vectors(700), vectors(30)
    grid, found = precisions(x, CutRule(), 2)
    wrong = nearest_each(queries, vectors(700), DIMS, 10)
    check(queries, grid, found, 10, CutRule(), likely=wrong)
    check(queries, grid, found, 10, CutRule(), likely=nearest_each(queries, x, DIMS, 10), workers=1)


def test_queries_and_rows_of_zeros_are_compared_by_inner_products() -> None:
    x, queries = vectors(300), vectors(6)
    x[::7], queries[2] = 0, 0
    check(queries, *precisions(x, RAW, 8), 300, RAW)


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_sweep_is_the_same_without_compiled_kernels(
    kind: type, both_sides: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, queries = vectors(400).astype(kind), vectors(50).astype(kind)
    task = Retrieval(queries, x, np.arange(50))

    def values() -> list[float]:
        bits = (1, 2, 3, 4, 8, 16)
        curve = sweep(lambda v: v, task, "dim=3,16,37", bits=bits, both_sides=both_sides, resamples=5)
        return [row.value for row in curve.column()]

    expected = values()
    monkeypatch.setenv("NESTLING_KERNELS", "off")
    assert kernels.level() == "off"
    # Equal codes on both sides have equal scores, of which rounding of other sums may prefer another row.
    assert values() == pytest.approx(expected, abs=0.02 if both_sides else 1e-9)


@RULES
def test_a_sweep_of_floats_alone_is_the_same_without_compiled_kernels(
    rule: CutRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = vectors(900)
    task = Retrieval(x[:300] + vectors(300), x, np.arange(300))

    def values(of: Retrieval, sizes: str) -> list[float]:
        return [row.value for row in sweep(lambda v: v, of, sizes, rule=rule, resamples=5).column()]

    searched = spied(monkeypatch)
    found = values(task, "dim=9,16,37")
    assert len(searched) == prefixes.available()
    values(task, "dim=37")  # one product of floats costs less than codes
    values(replace(task, queries=x[:20], qrels=np.arange(20)), "dim=9,37")  # so do few queries
    assert len(searched) == prefixes.available()
    monkeypatch.setenv("NESTLING_KERNELS", "off")
    assert values(task, "dim=9,16,37") == pytest.approx(found, abs=1e-9)


def test_a_sweep_of_floats_names_the_documents_that_have_no_direction() -> None:
    x = vectors(900)
    x[700] = 0
    task = Retrieval(vectors(300), x, np.arange(300))
    with pytest.raises(DataError, match="row 700 of documents"):
        sweep(lambda v: v, task, "dim=9,16,37")


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each search by products of bytes has, from now on."""
    searched: list[int] = []

    def noted(queries: Any, *given: Any, **options: Any) -> Any:
        searched.append(len(queries))
        return nearest_held(queries, *given, **options)

    monkeypatch.setattr(precision, "nearest_held", noted)
    return searched
