"""Conformance suite for stores: run it on your own, on a real database, with ``check_store``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nestling.cut import RAW, CutRule, cut
from nestling.testing.laws import LawError, as_laws
from nestling.testing.store_example import (
    FULL,
    HOSTILE,
    MIDDLE,
    SMALL,
    SPACES,
    StoreExample,
    Vectors,
    exact,
    funnel,
    names_of,
    refused,
    same,
    scanned,
    vectors_of,
)
from nestling.testing.store_filters import declared, filters, metadata, where
from nestling.testing.store_precisions import precisions
from nestling.testing.store_sharing import closed, foreign_rows, lengths, two_handles


def exactness(example: StoreExample) -> None:
    """A search with all rows in the shortlist returns the ids and scores of an exact scan."""
    queries = vectors_of(5, seed=1)
    for number, (rule, metric) in enumerate(SPACES):
        kept = {"rerank_dims": (MIDDLE,), "rule": rule, "metric": metric}
        store, vectors = example.filled(f"exactness{number}", **kept)
        for shortlist in (None, example.rows):
            for dim in (MIDDLE, FULL):
                found = store.search(queries, 10, shortlist=shortlist, rerank_dim=dim)
                ids, scores = exact(queries, vectors, 10, dim, rule, metric)
                case = f"shortlist={shortlist}, rerank_dim={dim}, {rule}, {metric}"
                same("exactness", case, [hits.ids for hits in found], [names_of(row) for row in ids])
                if not all(
                    np.allclose(h.scores, s, rtol=1e-4, atol=1e-5) for h, s in zip(found, scores, strict=True)
                ):
                    raise LawError(f"exactness: scores differ from those of an exact scan, with {case}")
        store.drop()


def shortlists(example: StoreExample) -> None:
    """A small shortlist has the recall of an exact two-stage search, before and after ``optimize``."""
    queries = vectors_of(20, seed=1)
    store, vectors = example.filled("shortlists")
    expected = funnel(queries, vectors, 10, 40)
    for state in ("before", "after"):
        found = store.search(queries, 10, shortlist=40)
        shares = [len(set(h.ids) & set(names_of(e))) / 10 for h, e in zip(found, expected, strict=True)]
        if np.mean(shares) < example.recall:
            raise LawError(
                f"shortlists: recall {np.mean(shares):.3f} of an exact two-stage search, {state} optimize()"
            )
        if any((np.diff(hits.scores) > 0).any() for hits in found):
            raise LawError(f"shortlists: scores rise {state} optimize()")
        store.optimize()
    store.drop()


def replacement(example: StoreExample) -> None:
    """Adding a row under an existing id replaces the old row; adding it twice changes nothing more."""
    store, vectors = example.filled("replacement")
    query = -vectors[:1]
    for _ in range(2):
        store.add(["row7"], query, [{"kind": "new"}])
    same("replacement", "count()", store.count(), example.rows)
    same("replacement", "the nearest", store.search(query, 1)[0].ids, ["row7"])
    same("replacement", "where new", store.search(query, 5, where={"kind": "new"})[0].ids, ["row7"])
    old = store.search(query, example.rows, shortlist=None, where={"kind": "k2"})[0].ids
    if "row7" in old:
        raise LawError("replacement: a row is still found by its old metadata")
    store.drop()


def deletion(example: StoreExample) -> None:
    """Deleted rows are not found any more; deleting an unknown id is no error."""
    store, vectors = example.filled("deletion")
    gone = names_of(range(0, example.rows, 2))
    store.delete([*gone, "never"])
    store.delete([])
    same("deletion", "count()", store.count(), example.rows - len(gone))
    same("deletion", "present", store.present(["row0", "row1"]).tolist(), [False, True])
    found = store.search(vectors[:3], example.rows, shortlist=None)
    if any(set(hits.ids) & set(gone) for hits in found):
        raise LawError("deletion: search() returns deleted rows")
    if set(scanned(store)) & set(gone):
        raise LawError("deletion: scan() returns deleted rows")
    store.drop()


def names(example: StoreExample) -> None:
    """Any string can be an id or a metadata value: quotes, SQL, line breaks, other scripts."""
    store = example.empty("names")
    vectors = vectors_of(len(HOSTILE))
    store.add(list(HOSTILE), vectors, [{"text": name} for name in HOSTILE])
    for row, name in enumerate(HOSTILE):
        for arguments in ({}, {"ids": [name]}, {"where": {"text": name}}):
            found = store.search(vectors[row : row + 1], 1, **arguments)[0].ids
            same("names", f"{name!r} with {arguments}", found, [name])
    same("names", "scan()", sorted(scanned(store)), sorted(HOSTILE))
    same("names", "present", store.present(list(HOSTILE)).all(), True)
    for name in HOSTILE:
        store.delete([name])
    same("names", "count() after deleting all", store.count(), 0)
    store.drop()


def numbers(example: StoreExample) -> None:
    """A store with ``ids="int"`` takes and returns whole numbers as ids."""
    store = example.empty("numbers", ids="int")
    ids, vectors = [0, 7, 2**62], vectors_of(3)
    store.add(np.array(ids), vectors)
    same("numbers", "search()", [hits.ids for hits in store.search(vectors, 1)], [[number] for number in ids])
    same("numbers", "scan()", sorted(scanned(store)), ids)
    store.delete([7])
    same("numbers", "present()", store.present(ids).tolist(), [True, False, True])
    store.drop()


def bounds(example: StoreExample) -> None:
    """An empty store returns no hits, a small one returns all rows, and equal vectors are all found."""
    store = example.empty("bounds")
    query = vectors_of(2, seed=1)
    for _ in range(2):
        same("bounds", "an empty store", [len(hits) for hits in store.search(query, 10)], [0, 0])
        same("bounds", "count(), scan()", (store.count(), scanned(store)), (0, []))
        store.optimize()
    equal = np.repeat(vectors_of(1), 5, axis=0)
    store.add(names_of(5), equal)
    found = store.search(query, 100)
    same("bounds", "k larger than the count", [sorted(hits.ids) for hits in found], [names_of(5)] * 2)
    same("bounds", "dtype of scores", {hits.scores.dtype.name for hits in found}, {"float32"})
    store.drop()


def round_trip(example: StoreExample) -> None:
    """``scan`` returns every row once, with its metadata and its vector after the cut rule."""
    for number, (rule, metric) in enumerate(SPACES[:2]):
        store, vectors = example.filled(f"round_trip{number}", rule=rule, metric=metric)
        expected = cut(vectors, FULL, rule)
        seen: dict[str, tuple[Vectors, dict[str, Any]]] = {}
        for batch in store.scan(64):
            if not 1 <= len(batch.ids) <= 64 or len(batch.vectors) != len(batch.ids):
                raise LawError(f"round trip: scan(64) returns a batch of {len(batch.ids)} rows")
            seen |= dict(
                zip(batch.ids.tolist(), zip(batch.vectors, batch.metadata, strict=True), strict=True)
            )
        same("round trip", "ids", sorted(seen), sorted(names_of(example.rows)))
        for row, name in enumerate(names_of(example.rows)):
            vector, tags = seen[name]
            same("round trip", f"metadata of {name}", tags, {"parity": row % 2, "kind": f"k{row % 5}"})
            if not np.allclose(vector, expected[row], rtol=1e-5, atol=1e-6):
                raise LawError(f"round trip: scan() returns another vector for {name}, under {rule}")
        store.drop()


def some_rows(example: StoreExample) -> None:
    """``scan(ids=)`` returns those rows as a scan of all rows does, and ``ids`` returns all ids."""
    store, vectors = example.filled("some_rows")
    same(
        "some rows", "ids()", sorted(n for ids in store.ids(64) for n in ids.tolist()), sorted(scanned(store))
    )
    wanted = [*names_of(range(0, example.rows, 3)), "never"]
    expected = cut(vectors, FULL)
    seen: list[str] = []
    for batch in store.scan(50, ids=wanted):
        if not 1 <= len(batch.ids) <= 50:
            raise LawError(f"some rows: scan(50, ids=) returns a batch of {len(batch.ids)} rows")
        for name, vector, tags in zip(batch.ids.tolist(), batch.vectors, batch.metadata, strict=True):
            row = int(name.removeprefix("row"))
            same("some rows", f"metadata of {name}", tags, {"parity": row % 2, "kind": f"k{row % 5}"})
            if not np.allclose(vector, expected[row], rtol=1e-5, atol=1e-6):
                raise LawError(f"some rows: scan(ids=) returns another vector for {name}")
            seen.append(name)
    same("some rows", "scan(ids=)", sorted(seen), sorted(wanted[:-1]))
    same("some rows", "scan(ids=[])", list(store.scan(ids=[])), [])
    store.drop()


def identity(example: StoreExample) -> None:
    """The layout is stored in the database; opening with another encoder or cut rule is an error."""
    if example.reopen is None:
        return
    rule = CutRule("layer_norm", "l2")
    store = example.empty("identity", encoder="größe/v1", rule=rule)
    store.add(names_of(3), vectors_of(3))
    layout = store.layout
    store.close()
    again = example.reopen("identity", encoder="größe/v1", rule=rule)
    same("identity", "layout", again.layout, layout)
    same("identity", "count()", again.count(), 3)
    again.close()
    other = partial(example.reopen, "identity", encoder="other", rule=None)
    refused("identity", "another encoder", other, "nestling index")
    raw = partial(example.reopen, "identity", encoder=None, rule=RAW)
    refused("identity", "another cut rule", raw, "nestling index")
    trusting = partial(example.reopen, "identity", encoder=None, rule=None)
    trusting().drop()
    refused("identity", "a store that was dropped", trusting)


def refusal(example: StoreExample) -> None:
    """Wrong arguments are a ``NestlingError``, and nothing is written."""
    store, good = example.empty("refusal"), vectors_of(3)
    ids = names_of(3)
    for case, action in (_wrong_adds(store, ids, good) | _wrong_searches(store, good)).items():
        refused("refusal", case, action)
    same("refusal", "count()", store.count(), 0)
    store.add(ids, good)
    found = store.search(good, np.int64(2), shortlist=np.int32(3))
    same("refusal", "numpy's k=2", [len(hits) for hits in found], [2, 2, 2])
    store.drop()


def _wrong_adds(store: Any, ids: list[str], good: Vectors) -> dict[str, Callable[[], Any]]:
    bad = good.copy()
    bad[1, 0] = np.nan
    zero = good.copy()
    zero[2, :SMALL] = 0
    return {
        "vectors of another size": lambda: store.add(ids, good[:, :MIDDLE]),
        "NaN": lambda: store.add(ids, bad),
        "a prefix of zeros": lambda: store.add(ids, zero),
        "fewer ids": lambda: store.add(ids[:2], good),
        "repeated ids": lambda: store.add(["a", "b", "a"], good),
        "ids that are numbers": lambda: store.add([1, 2, 3], good),
        "ids with a null": lambda: store.add(["a\0", "b", "c"], good),
        "half a character": lambda: store.add(["\ud800", "b", "c"], good),
        "empty ids": lambda: store.add(["", "b", "c"], good),
        "metadata that are lists": lambda: store.add(ids, good, [{"a": [1]}] * 3),
        "metadata beyond 64 bits": lambda: store.add(ids, good, [{"a": 2**63}] * 3),
        "infinite metadata": lambda: store.add(ids, good, [{"a": float("inf")}] * 3),
        "half a character in metadata": lambda: store.add(ids, good, [{"a": "\ud800"}] * 3),
        "fields without a name": lambda: store.add(ids, good, [{"": 1}] * 3),
        "fields that are numbers": lambda: store.add(ids, good, [{1: 1}] * 3),
        "fewer metadata": lambda: store.add(ids, good, [{}]),
    }


def _wrong_searches(store: Any, good: Vectors) -> dict[str, Callable[[], Any]]:
    return {
        "queries of another size": lambda: store.search(good[:, :MIDDLE]),
        "k=0": lambda: store.search(good, 0),
        "k=True": lambda: store.search(good, True),
        "k=2.0": lambda: store.search(good, 2.0),
        "k='3'": lambda: store.search(good, "3"),
        "k=None": lambda: store.search(good, None),
        "a shortlist below k": lambda: store.search(good, 10, shortlist=5),
        "a shortlist of 20.0": lambda: store.search(good, 10, shortlist=20.0),
        "a size of 8.5": lambda: store.search(good, rerank_dim=8.5),
        "a size that is not kept": lambda: store.search(good, rerank_dim=FULL - 1),
        "an empty filter": lambda: store.search(good, where={}),
        "an unknown operator": lambda: store.search(good, where={"a": {"near": 1}}),
        "a filter for what is missing": lambda: store.search(good, where={"a": None}),
        "ids of another kind": lambda: store.search(good, ids=[1]),
    }


def innocence(example: StoreExample) -> None:
    """Vectors and metadata of the caller are not changed."""
    store = example.empty("innocence")
    vectors, metadata = vectors_of(3), [{"a": 1}, {"a": 2}, {"a": 3}]
    before = vectors.copy()
    store.add(names_of(3), vectors, metadata)
    store.search(vectors, 2, where=metadata[0])
    if not np.array_equal(before, vectors) or metadata != [{"a": 1}, {"a": 2}, {"a": 3}]:
        raise LawError("innocence: vectors or metadata were changed")
    store.drop()


STORE_LAWS: tuple[Callable[[StoreExample], None], ...] = as_laws(
    exactness,
    shortlists,
    replacement,
    deletion,
    filters,
    where,
    metadata,
    declared,
    names,
    numbers,
    bounds,
    round_trip,
    precisions,
    some_rows,
    identity,
    refusal,
    innocence,
    two_handles,
    closed,
    foreign_rows,
    lengths,
)
"""The laws one by one, for a parametrised test; :func:`check_store` runs them all."""


def check_store(
    make_store: Callable[..., Any],
    reopen: Callable[..., Any] | None = None,
    *,
    rows: int = 400,
    recall: float = 0.9,
    write: Callable[..., Any] | None = None,
    exclusive: bool = False,
    delay_s: float = 0.0,
) -> None:
    """Check every law of a store, on a real database.

    Args:
        make_store: ``make_store(name, **layout)`` returns a new, empty store.
        reopen: ``reopen(name, encoder=, rule=)`` returns another handle of an existing store; None skips the
            laws that need one.
        rows: number of rows that the laws use.
        recall: the recall that small shortlists must reach, against an exact two-stage search.
        write: writes rows as another program would; see
            :class:`~nestling.testing.store_example.StoreExample`. None skips the laws about such rows.
        exclusive: only one handle can have a store open.
        delay_s: seconds after which other handles see a change.

    Raises:
        LawError: for the first law that is broken.
    """
    example = StoreExample(make_store, reopen, rows, recall, write, exclusive, delay_s)
    for law in STORE_LAWS:
        law(example)
