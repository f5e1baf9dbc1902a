"""The laws of stores as checks that anybody can run on theirs, against a database that really runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut
from nestling.errors import NestlingError
from nestling.granularity import Nesting
from nestling.testing.elastic import LawError

_NESTING = Nesting.chain(dim=(8, 16, 32))
_SMALL, _MIDDLE, _FULL = _NESTING.sizes("dim")
_SPACES = ((CutRule(), "dot"), (RAW, "dot"), (RAW, "euclidean"))
_HOSTILE = (
    "plain",
    "it's",
    'a "quoted" word',
    "back\\slash",
    "line\nbreak\ttab",
    "'; DROP TABLE docs; --",
    "%s {table} $1",
    "größer 東京 🐦",
    " spaces ",
    "x" * 256,
)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class StoreExample:
    """How to get at stores of the kind under test.

    Args:
        make: called with a name and the fields of a layout (``nesting``, ``shortlist_dim``, ``rule``, ...)
            it gives a new, empty store.
        reopen: called with such a name, ``encoder=`` and ``rule=`` it gives the store made before; None
            leaves out the law of identity.
        rows: how many rows the laws use.
        recall: share of a plain funnel's answers that small shortlists must find once the index is built.
    """

    make: Callable[..., Any]
    reopen: Callable[..., Any] | None = None
    rows: int = 400
    recall: float = 0.9

    def filled(self, name: str, **layout: Any) -> tuple[Any, Vectors]:
        """A store of rows called ``row0``, ``row1``, ... with metadata, and their vectors."""
        store = self.empty(name, **layout)
        vectors = _vectors(self.rows)
        store.add(
            _names(self.rows),
            vectors,
            [{"parity": row % 2, "kind": f"k{row % 5}"} for row in range(self.rows)],
        )
        return store, vectors

    def empty(self, name: str, **layout: Any) -> Any:
        """A store without rows."""
        return self.make(name, **({"nesting": _NESTING, "shortlist_dim": _SMALL} | layout))


def exactness(example: StoreExample) -> None:
    """Law 1: with a shortlist of all rows, ids and scores are those of comparing every row."""
    queries = _vectors(5, seed=1)
    for number, (rule, metric) in enumerate(_SPACES):
        kept = {"rerank_dims": (_MIDDLE,), "rule": rule, "metric": metric}
        store, vectors = example.filled(f"exactness{number}", **kept)
        for shortlist in (None, example.rows):
            for dim in (_MIDDLE, _FULL):
                found = store.search(queries, 10, shortlist=shortlist, rerank_dim=dim)
                ids, scores = _exact(queries, vectors, 10, dim, rule, metric)
                case = f"shortlist={shortlist}, rerank_dim={dim}, {rule}, {metric}"
                _same("exactness", case, [hits.ids for hits in found], [_names(row) for row in ids])
                if not all(
                    np.allclose(h.scores, s, rtol=1e-4, atol=1e-5) for h, s in zip(found, scores, strict=True)
                ):
                    raise LawError(f"exactness: other scores than those of every row, at {case}")
        store.drop()


def shortlists(example: StoreExample) -> None:
    """Law 2: a small shortlist finds what a funnel over all rows does, before and after indexing."""
    queries = _vectors(20, seed=1)
    store, vectors = example.filled("shortlists")
    expected = _funnel(queries, vectors, 10, 40)
    for state in ("before", "after"):
        found = store.search(queries, 10, shortlist=40)
        shares = [len(set(h.ids) & set(_names(e))) / 10 for h, e in zip(found, expected, strict=True)]
        if np.mean(shares) < example.recall:
            raise LawError(
                f"shortlists: recall {np.mean(shares):.3f} of the funnel's answers {state} optimize()"
            )
        if any((np.diff(hits.scores) > 0).any() for hits in found):
            raise LawError(f"shortlists: scores rise {state} optimize()")
        store.optimize()
    store.drop()


def replacement(example: StoreExample) -> None:
    """Law 3: a row added under an id that exists takes its place, and doing so twice changes nothing."""
    store, vectors = example.filled("replacement")
    query = -vectors[:1]
    for _ in range(2):
        store.add(["row7"], query, [{"kind": "new"}])
    _same("replacement", "count()", store.count(), example.rows)
    _same("replacement", "the nearest", store.search(query, 1)[0].ids, ["row7"])
    _same("replacement", "where new", store.search(query, 5, where={"kind": "new"})[0].ids, ["row7"])
    old = store.search(query, example.rows, shortlist=None, where={"kind": "k2"})[0].ids
    if "row7" in old:
        raise LawError("replacement: a row is still found by metadata that were replaced")
    store.drop()


def deletion(example: StoreExample) -> None:
    """Law 4: deleted rows are found by nothing; ids that there are not are no error."""
    store, vectors = example.filled("deletion")
    gone = _names(range(0, example.rows, 2))
    store.delete([*gone, "never"])
    store.delete([])
    _same("deletion", "count()", store.count(), example.rows - len(gone))
    _same("deletion", "present", store.present(["row0", "row1"]).tolist(), [False, True])
    found = store.search(vectors[:3], example.rows, shortlist=None)
    if any(set(hits.ids) & set(gone) for hits in found):
        raise LawError("deletion: deleted rows are found by searching")
    if set(_scanned(store)) & set(gone):
        raise LawError("deletion: deleted rows are found by scanning")
    store.drop()


def filters(example: StoreExample) -> None:
    """Law 5: what a filter forbids is not found, and what it allows is, at any shortlist."""
    store, vectors = example.filled("filters")
    queries, rows = _vectors(3, seed=1), np.arange(example.rows)
    few = [3, 30, 60, 99]
    cases: list[tuple[dict[str, Any], NDArray[np.bool_]]] = [
        ({"where": {"parity": 1}}, rows % 2 == 1),
        ({"where": {"parity": 1, "kind": "k3"}}, (rows % 2 == 1) & (rows % 5 == 3)),
        ({"where": {"parity": "1"}}, rows < 0),
        ({"where": {"missing": 1}}, rows < 0),
        ({"ids": _names(few)}, np.isin(rows, few)),
        ({"ids": _names(few), "where": {"parity": 1}}, np.isin(rows, few) & (rows % 2 == 1)),
        ({"ids": []}, rows < 0),
    ]
    store.optimize()
    for arguments, allowed in cases:
        kept = np.flatnonzero(allowed)
        k = min(10, len(kept))
        expected = [_names(kept[row]) for row in _exact(queries, vectors[kept], k)[0]] if k else [[]] * 3
        found = store.search(queries, 10, shortlist=None, **arguments)
        _same("filters", f"{arguments}", [hits.ids for hits in found], expected)
        short = store.search(queries, 10, shortlist=20, **arguments)
        if any(len(hits) != k or not set(hits.ids) <= set(_names(kept)) for hits in short):
            raise LawError(f"filters: a shortlist of 20 finds other than {k} allowed rows with {arguments}")
    store.drop()


def names(example: StoreExample) -> None:
    """Law 6: ids and metadata are data, whatever they hold."""
    store = example.empty("names")
    vectors = _vectors(len(_HOSTILE))
    store.add(list(_HOSTILE), vectors, [{"text": name} for name in _HOSTILE])
    for row, name in enumerate(_HOSTILE):
        for arguments in ({}, {"ids": [name]}, {"where": {"text": name}}):
            found = store.search(vectors[row : row + 1], 1, **arguments)[0].ids
            _same("names", f"{name!r} with {arguments}", found, [name])
    _same("names", "scan()", sorted(_scanned(store)), sorted(_HOSTILE))
    _same("names", "present", store.present(list(_HOSTILE)).all(), True)
    for name in _HOSTILE:
        store.delete([name])
    _same("names", "count() after deleting all", store.count(), 0)
    store.drop()


def numbers(example: StoreExample) -> None:
    """Law 7: rows called by whole numbers are called by whole numbers."""
    store = example.empty("numbers", ids="int")
    ids, vectors = [0, 7, 2**62], _vectors(3)
    store.add(np.array(ids), vectors)
    _same(
        "numbers", "search()", [hits.ids for hits in store.search(vectors, 1)], [[number] for number in ids]
    )
    _same("numbers", "scan()", sorted(_scanned(store)), ids)
    store.delete([7])
    _same("numbers", "present()", store.present(ids).tolist(), [True, False, True])
    store.drop()


def bounds(example: StoreExample) -> None:
    """Law 8: an empty store answers nothing, a small one all it has, and equal vectors are all found."""
    store = example.empty("bounds")
    query = _vectors(2, seed=1)
    for _ in range(2):
        _same("bounds", "an empty store", [len(hits) for hits in store.search(query, 10)], [0, 0])
        _same("bounds", "count(), scan()", (store.count(), _scanned(store)), (0, []))
        store.optimize()
    equal = np.repeat(_vectors(1), 5, axis=0)
    store.add(_names(5), equal)
    found = store.search(query, 100)
    _same("bounds", "k larger than the count", [sorted(hits.ids) for hits in found], [_names(5)] * 2)
    _same("bounds", "dtype of scores", {hits.scores.dtype.name for hits in found}, {"float32"})
    store.drop()


def round_trip(example: StoreExample) -> None:
    """Law 9: scanning gives every row once, with its metadata and its vector as the rule leaves it."""
    for number, (rule, metric) in enumerate(_SPACES[:2]):
        store, vectors = example.filled(f"round_trip{number}", rule=rule, metric=metric)
        expected = cut(vectors, _FULL, rule)
        seen: dict[str, tuple[Vectors, dict[str, Any]]] = {}
        for batch in store.scan(64):
            if not 1 <= len(batch.ids) <= 64 or len(batch.vectors) != len(batch.ids):
                raise LawError(f"round trip: scan(64) gives a batch of {len(batch.ids)} rows")
            seen |= dict(
                zip(batch.ids.tolist(), zip(batch.vectors, batch.metadata, strict=True), strict=True)
            )
        _same("round trip", "ids", sorted(seen), sorted(_names(example.rows)))
        for row, name in enumerate(_names(example.rows)):
            vector, tags = seen[name]
            _same("round trip", f"metadata of {name}", tags, {"parity": row % 2, "kind": f"k{row % 5}"})
            if not np.allclose(vector, expected[row], rtol=1e-5, atol=1e-6):
                raise LawError(f"round trip: the vector of {name} came back as another, under {rule}")
        store.drop()


def identity(example: StoreExample) -> None:
    """Law 10: the layout lives in the database; another encoder or cut rule is refused."""
    if example.reopen is None:
        return
    rule = CutRule("layer_norm", "l2")
    store = example.empty("identity", encoder="größe/v1", rule=rule)
    store.add(_names(3), _vectors(3))
    layout = store.layout
    store.close()
    again = example.reopen("identity", encoder="größe/v1", rule=rule)
    _same("identity", "layout", again.layout, layout)
    _same("identity", "count()", again.count(), 3)
    again.close()
    other = partial(example.reopen, "identity", encoder="other", rule=None)
    _refused("identity", "another encoder", other, "nestling index")
    raw = partial(example.reopen, "identity", encoder=None, rule=RAW)
    _refused("identity", "another cut rule", raw, "nestling index")
    trusting = partial(example.reopen, "identity", encoder=None, rule=None)
    trusting().drop()
    _refused("identity", "a store that was dropped", trusting)


def refusal(example: StoreExample) -> None:
    """Law 11: what cannot be used is an error of ours, and nothing of it is written."""
    store, good = example.empty("refusal"), _vectors(3)
    ids = _names(3)
    bad = good.copy()
    bad[1, 0] = np.nan
    zero = good.copy()
    zero[2, :_SMALL] = 0
    adds: dict[str, Callable[[], Any]] = {
        "vectors of another size": lambda: store.add(ids, good[:, :_MIDDLE]),
        "NaN": lambda: store.add(ids, bad),
        "a prefix of zeros": lambda: store.add(ids, zero),
        "fewer ids": lambda: store.add(ids[:2], good),
        "repeated ids": lambda: store.add(["a", "b", "a"], good),
        "ids that are numbers": lambda: store.add([1, 2, 3], good),
        "ids with a null": lambda: store.add(["a\0", "b", "c"], good),
        "half a character": lambda: store.add(["\ud800", "b", "c"], good),
        "empty ids": lambda: store.add(["", "b", "c"], good),
        "metadata that are lists": lambda: store.add(ids, good, [{"a": [1]}] * 3),
        "metadata that are true": lambda: store.add(ids, good, [{"a": True}] * 3),
        "hostile fields": lambda: store.add(ids, good, [{"a'b": 1}] * 3),
        "fewer metadata": lambda: store.add(ids, good, [{}]),
    }
    searches: dict[str, Callable[[], Any]] = {
        "queries of another size": lambda: store.search(good[:, :_MIDDLE]),
        "k=0": lambda: store.search(good, 0),
        "a shortlist below k": lambda: store.search(good, 10, shortlist=5),
        "a size that is not kept": lambda: store.search(good, rerank_dim=_FULL - 1),
        "hostile fields to filter by": lambda: store.search(good, where={"a) or (1": 1}),
        "ids of another kind": lambda: store.search(good, ids=[1]),
    }
    for case, action in (adds | searches).items():
        _refused("refusal", case, action)
    _same("refusal", "count()", store.count(), 0)
    store.drop()


def innocence(example: StoreExample) -> None:
    """Law 12: what is given stays as it is."""
    store = example.empty("innocence")
    vectors, metadata = _vectors(3), [{"a": 1}, {"a": 2}, {"a": 3}]
    before = vectors.copy()
    store.add(_names(3), vectors, metadata)
    store.search(vectors, 2, where=metadata[0])
    if not np.array_equal(before, vectors) or metadata != [{"a": 1}, {"a": 2}, {"a": 3}]:
        raise LawError("innocence: vectors or metadata were changed")
    store.drop()


STORE_LAWS: tuple[Callable[[StoreExample], None], ...] = (
    exactness,
    shortlists,
    replacement,
    deletion,
    filters,
    names,
    numbers,
    bounds,
    round_trip,
    identity,
    refusal,
    innocence,
)
"""The laws one by one, for a parametrised test; :func:`check_store` asks them all."""


def check_store(
    make_store: Callable[..., Any],
    reopen: Callable[..., Any] | None = None,
    *,
    rows: int = 400,
    recall: float = 0.9,
) -> None:
    """Ask every law of a kind of stores, on a database that really runs.

    Args:
        make_store: ``make_store(name, **layout)`` gives a new, empty store.
        reopen: ``reopen(name, encoder=, rule=)`` gives the store made before; None leaves out the law that
            needs it.
        rows: how many rows the laws use.
        recall: share of a plain funnel's answers that small shortlists must find.

    Raises:
        LawError: for the first law that is broken.
    """
    example = StoreExample(make_store, reopen, rows, recall)
    for law in STORE_LAWS:
        law(example)


def _vectors(count: int, seed: int = 0) -> Vectors:
    """Entries that matter less and less, as those of nested vectors do."""
    scales = np.linspace(2, 0.2, _FULL)
    return np.asarray(np.random.default_rng(seed).normal(size=(count, _FULL)) * scales, np.float32)


def _names(rows: int | Iterable[Any]) -> list[str]:
    return [f"row{row}" for row in (range(rows) if isinstance(rows, int) else rows)]


def _exact(
    queries: Vectors,
    vectors: Vectors,
    k: int,
    dim: int = _FULL,
    rule: CutRule = CutRule(),
    metric: str = "dot",
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every row compared in float64: rows of the ``k`` best of every query, and their scores."""
    asked, offered = (cut(x.astype(np.float64), dim, rule) for x in (queries, vectors))
    if metric == "dot":
        scores = asked @ offered.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    else:
        scores = np.linalg.norm(asked[:, None] - offered[None], axis=2)
        order = np.argsort(scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def _funnel(queries: Vectors, vectors: Vectors, k: int, shortlist: int) -> list[NDArray[np.int64]]:
    kept = _exact(queries, vectors, shortlist, _SMALL)[0]
    return [
        rows[_exact(query[None], vectors[rows], k)[0][0]] for query, rows in zip(queries, kept, strict=True)
    ]


def _scanned(store: Any) -> list[Any]:
    return [name for batch in store.scan(64) for name in batch.ids.tolist()]


def _same(law: str, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise LawError(f"{law}: {what} gives {found!r}, not {expected!r}")


def _refused(law: str, what: str, action: Callable[[], Any], naming: str = "") -> None:
    try:
        action()
    except NestlingError as error:
        if naming not in str(error):
            raise LawError(f"{law}: the error for {what} does not name {naming!r}: {error}") from error
    else:
        raise LawError(f"{law}: {what} was accepted")
