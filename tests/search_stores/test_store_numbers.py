"""Numbers compared in 64-bit integers and in doubles, against Python, which compares any two exactly."""

from __future__ import annotations

import operator
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from nestling.search.stores.numbers import for_doubles, for_integers, rounded_to

OPERATORS = {"eq": operator.eq, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
LARGE = [sign * (2**power + step) for sign in (1, -1) for power in (53, 60, 62) for step in (-1, 0, 1)]
INTEGERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([*LARGE, -(2**63), 2**63 - 1]))
DOUBLES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([*map(float, LARGE)]))
BOUNDS = st.one_of(INTEGERS, DOUBLES, st.sampled_from([2.0**63, -(2.0**63), 1e300, -1e300, 0.5]))


def says(test: Any, value: Any) -> bool:
    return test if isinstance(test, bool) else bool(OPERATORS[test[0]](value, test[1]))


@given(value=INTEGERS, op=st.sampled_from(sorted(OPERATORS)), bound=BOUNDS)
@example(value=2**63 - 1, op="lt", bound=2.0**63)
@example(value=-(2**63), op="gte", bound=-(2.0**63))
def test_a_test_of_integers_says_what_the_comparison_says(value: int, op: Any, bound: Any) -> None:
    test = for_integers(op, bound)
    assert says(test, value) == OPERATORS[op](value, bound)
    assert isinstance(test, bool) or -(2**63) <= test[1] < 2**63


@given(value=DOUBLES, op=st.sampled_from(sorted(OPERATORS)), bound=BOUNDS)
@example(value=2.0**53, op="gte", bound=2**53 + 1)
@example(value=2.0**63, op="gt", bound=2**63 - 1)
def test_a_test_of_doubles_says_what_the_comparison_says(value: float, op: Any, bound: Any) -> None:
    assert says(for_doubles(op, bound), value) == OPERATORS[op](value, bound)


@given(INTEGERS)
def test_integers_that_become_the_same_double_are_found(value: int) -> None:
    alike = rounded_to(float(value))
    assert value in alike
    assert all(float(each) == float(value) for each in alike)
    for beyond in (alike[0] - 1, alike[-1] + 1):
        assert not -(2**63) <= beyond < 2**63 or float(beyond) != float(value)
    assert rounded_to(0.5) == rounded_to(1e300) == []
