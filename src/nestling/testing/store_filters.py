"""Laws about metadata and filters: values come back unchanged, and conditions select the right rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.testing.laws import LawError
from nestling.testing.store_example import (
    HOSTILE,
    StoreExample,
    Vectors,
    exact,
    names_of,
    refused,
    same,
    vectors_of,
)

_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: bool(value > bound),
    "gte": lambda value, bound: bool(value >= bound),
    "lt": lambda value, bound: bool(value < bound),
    "lte": lambda value, bound: bool(value <= bound),
}
_TEXTS = ("", "a", "A", "ab", "b", "é", "z", "\uffff", "🐦", "1", "true", *HOSTILE, "x" * 3000)
_NUMBERS = (
    *(0, 1, -1, 2, 2.5, -0.5, 0.1, 1.0, 5e-324, 1e300, -1e300),
    *(2**53 - 1, 2**53, 2**53 + 1, 2.0**53, 2.0**60, 2**60, 2**60 + 1, 2**63 - 1, -(2**63), -(2.0**63)),
)
_CONDITIONS = 120


def filters(example: StoreExample) -> None:
    """A filter returns exactly the rows that pass it, with any shortlist."""
    store, vectors = example.filled("filters")
    queries, rows = vectors_of(3, seed=1), np.arange(example.rows)
    few = [3, 30, 60, 99]
    cases: list[tuple[dict[str, Any], NDArray[np.bool_]]] = [
        ({"where": {"parity": 1}}, rows % 2 == 1),
        ({"where": {"parity": 1, "kind": "k3"}}, (rows % 2 == 1) & (rows % 5 == 3)),
        ({"where": {"parity": "1"}}, rows < 0),
        ({"where": {"missing": 1}}, rows < 0),
        ({"ids": names_of(few)}, np.isin(rows, few)),
        ({"ids": names_of(few), "where": {"parity": 1}}, np.isin(rows, few) & (rows % 2 == 1)),
        ({"ids": []}, rows < 0),
    ]
    store.optimize()
    for arguments, allowed in cases:
        kept = np.flatnonzero(allowed)
        k = min(10, len(kept))
        expected = [names_of(kept[row]) for row in exact(queries, vectors[kept], k)[0]] if k else [[]] * 3
        found = store.search(queries, 10, shortlist=None, **arguments)
        same("filters", f"{arguments}", [hits.ids for hits in found], expected)
        short = store.search(queries, 10, shortlist=20, **arguments)
        if any(len(hits) != k or not set(hits.ids) <= set(names_of(kept)) for hits in short):
            raise LawError(f"filters: a shortlist of 20 finds other than {k} allowed rows with {arguments}")
    store.drop()


def where(example: StoreExample) -> None:
    """A condition selects the rows that meet it and no others, for all types of values.

    No comparison is true for a missing value; ``not`` inverts its condition, so it selects rows without a
    value too; numbers are compared by value, texts by code point; values of different types are never equal,
    less or greater.
    """
    random, store = np.random.default_rng(0), example.empty("where")
    values = (None, *_TEXTS, *_NUMBERS, True, False)
    rows = [
        {"any": values[row % len(values)], "n": _pick(random, (None, *_NUMBERS)), "t": _pick(random, _TEXTS)}
        | {"b": _pick(random, (None, True, False)), "few": row % 3}
        for row in range(3 * len(values))
    ]
    store.add(names_of(len(rows)), vectors_of(len(rows)), rows)
    store.optimize()
    query = vectors_of(1, seed=1)
    for _ in range(_CONDITIONS):
        asked = _random_condition(random, depth=3)
        found = store.search(query, len(rows), shortlist=None, where=asked)[0].ids
        expected = [name for name, row in zip(names_of(len(rows)), rows, strict=True) if _meets(asked, row)]
        if sorted(found) != sorted(expected):
            wrong = sorted(set(found) ^ set(expected))[:3]
            raise LawError(
                f"where: {asked!r:.300} finds {len(found)} rows, not {len(expected)}; it differs at "
                f"{[(name, rows[int(name[3:])]) for name in wrong]!r:.600}"
            )
    store.drop()


def metadata(example: StoreExample) -> None:
    """``search`` and ``scan`` return metadata unchanged, with their types."""
    store = example.empty("metadata")
    plain = [
        {"any": value, name: row} for row, (name, value) in enumerate(zip(_names(), _values(), strict=True))
    ]
    given = [*plain, {}, {"missing": None}, {"any": np.float32(0.5), "n": np.int64(7), "b": np.bool_(True)}]
    expected = [*plain, {}, {}, {"any": 0.5, "n": 7, "b": True}]
    vectors = vectors_of(len(given))
    store.add(names_of(len(given)), vectors, given)
    hits = store.search(vectors, 1)
    for row, (tags, found) in enumerate(zip(expected, hits, strict=True)):
        _identical(f"a search for row {row}", found.metadata, [tags])
    scanned = {
        name: tags for b in store.scan(7) for name, tags in zip(b.ids.tolist(), b.metadata, strict=True)
    }
    for row, tags in enumerate(expected):
        _identical(f"scanning row {row}", scanned[f"row{row}"], tags)
    for row, name in enumerate(_names()):
        same(
            "metadata",
            f"the field {name!r}",
            store.search(vectors[:1], 9, where={name: row})[0].ids,
            [f"row{row}"],
        )
    store.add(["row0"], vectors[:1], [{"fresh": 1}])
    _identical("a row that was replaced", store.search(vectors[:1], 1)[0].metadata, [{"fresh": 1}])
    same("metadata", "hits without", store.search(vectors[:1], 3, with_metadata=False)[0].metadata, [])
    store.drop()


def declared(example: StoreExample) -> None:
    """Values of declared fields have the declared type, and other fields are refused."""
    fields = {"year": "int", "price": "float", "brand": "text", "new": "bool"}
    store, vectors = example.empty("declared", fields=fields), vectors_of(4)
    given = [
        {"year": "2020", "price": 1, "brand": "acme", "new": True},
        {"year": np.int16(2021), "price": 2.5, "brand": 7, "new": "false"},
        {"year": 2022.0, "brand": "a" * 5000},
        {"year": None, "price": float("nan"), "new": ""},
    ]
    expected = [
        {"year": 2020, "price": 1.0, "brand": "acme", "new": True},
        {"year": 2021, "price": 2.5, "brand": "7", "new": False},
        {"year": 2022, "brand": "a" * 5000},
        {},
    ]
    for state in ("before", "after"):
        store.add(names_of(4), vectors, given)
        found = store.search(vectors, 1)
        _identical(f"declared fields {state} optimize()", [hits.metadata[0] for hits in found], expected)
        _filtered_by_type(store, vectors[:1], state)
        store.optimize()
    for what, action in {
        "a field that is not declared": lambda: store.add(["a"], vectors[:1], [{"yeer": 1}]),
        "a text for a number": lambda: store.add(["a"], vectors[:1], [{"year": "new"}]),
        "a filter by what is not declared": lambda: store.search(vectors, 1, where={"yeer": 1}),
        "a filter by another kind": lambda: store.search(vectors, 1, where={"year": "new"}),
    }.items():
        refused("declared", what, action)
    same("declared", "count()", store.count(), 4)
    if example.reopen is not None and not example.exclusive:
        again = example.reopen("declared")
        same("declared", "the fields of another handle", again.layout.fields, fields)
        again.close()
    store.drop()


def _filtered_by_type(store: Any, query: Vectors, state: str) -> None:
    """The rows of :func:`declared` are found by values of the declared types."""
    for asked, rows in (
        ({"year": {"gte": 2021}}, [1, 2]),
        ({"price": {"lt": 2}}, [0]),
        ({"brand": ["acme", "7"]}, [0, 1]),
        ({"brand": {"lt": "acme"}}, [1, 2]),
        ({"brand": "a" * 5000}, [2]),
        ({"new": False}, [1]),
        ({"not": {"new": True}}, [1, 2, 3]),
    ):
        got = sorted(store.search(query, 4, shortlist=None, where=asked)[0].ids)
        same("declared", f"{asked!r:.100} {state} optimize()", got, names_of(rows))


def _names() -> list[str]:
    return [
        *HOSTILE,
        "größe (cm)",
        "a.b",
        "[0]",
        "select",
        "Select",
        "id",
        "dim8",
        "int_x",
        "%41",
        "a`b",
    ]


def _values() -> list[Any]:
    return [*_NUMBERS, True, False, *_TEXTS][: len(_names())]


def _identical(what: str, found: Any, expected: Any) -> None:
    """Equal, and of the same types: True is not 1, and 1 is not 1.0."""
    same("metadata", what, _typed(found), _typed(expected))


def _typed(given: Any) -> Any:
    if isinstance(given, list):
        return [_typed(each) for each in given]
    return sorted((name, type(value).__name__, value) for name, value in given.items())


def _pick(random: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(random.integers(len(choices)))]


def _random_condition(random: np.random.Generator, depth: int) -> dict[str, Any]:
    kind = int(random.integers(6)) if depth else 5
    if kind == 0:
        return {"not": _random_condition(random, depth - 1)}
    if kind in (1, 2):
        parts = [_random_condition(random, depth - 1) for _ in range(int(random.integers(1, 4)))]
        return {"or" if kind == 1 else "and": parts}
    field, values = (
        ("any", (*_TEXTS, *_NUMBERS, True, False)),
        ("n", _NUMBERS),
        ("t", _TEXTS),
        ("b", (True, False)),
        ("nowhere", (1, "a", True)),
    )[int(random.integers(5))]
    op = _pick(random, ("eq", "in", *_BOUNDS))
    ordered = tuple(value for value in values if not isinstance(value, bool))
    if op == "in":
        return {field: {"in": [_pick(random, values) for _ in range(int(random.integers(0, 5)))]}}
    if op == "eq" or not ordered:
        return {field: _pick(random, values)}
    return {field: {op: _pick(random, ordered)}}


def _meets(condition: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a row meets a condition with one key, evaluated in plain Python."""
    [(name, wanted)] = condition.items()
    if name == "not":
        return not _meets(wanted, row)
    if name in ("and", "or"):
        return (all if name == "and" else any)(_meets(part, row) for part in wanted)
    value = row.get(name)
    tests = wanted if isinstance(wanted, Mapping) else {"in": [wanted]}
    [(op, bound)] = tests.items()
    bounds = bound if op == "in" else [bound]
    test: Callable[[Any, Any], bool] = _BOUNDS.get(op, lambda a, b: bool(a == b))
    return value is not None and any(_family(value) is _family(b) and test(value, b) for b in bounds)


def _family(value: Any) -> type:
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float
