"""Laws about sharing a store: several handles, closed handles, and rows that other programs write."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from nestling.cut import CutRule, cut_each
from nestling.testing.laws import LawError
from nestling.testing.store_example import StoreExample, exact, names_of, refused, same, scanned, vectors_of


def two_handles(example: StoreExample) -> None:
    """An open handle sees the changes of another one; an exclusive store refuses a second handle."""
    if example.reopen is None:
        return
    first, vectors = example.filled("two_handles")
    if example.exclusive:
        refused("two handles", "a second handle", lambda: example.reopen("two_handles"))  # type: ignore[misc]
        same("two handles", "count() of the first", first.count(), example.rows)
        first.drop()
        return
    second = example.reopen("two_handles")
    second.search(vectors[:1], 1)
    for writer, reader in ((first, second), (second, first)):
        new, moved = -vectors[:1], -vectors[1:2]
        writer.add(["new"], new, [{"fresh": "yes"}])
        writer.add(["row1"], moved, [{"kind": "moved"}])
        writer.delete(["row0"])
        time.sleep(example.delay_s)
        same("two handles", "count()", reader.count(), example.rows)
        same("two handles", "present()", reader.present(["new", "row0"]).tolist(), [True, False])
        for what, found in {
            "a row that was added": reader.search(new, 1)[0],
            "a field that was new": reader.search(vectors[:1], 5, where={"fresh": "yes"})[0],
        }.items():
            same("two handles", what, (found.ids, found.metadata), (["new"], [{"fresh": "yes"}]))
        same("two handles", "a row that was replaced", reader.search(moved, 1)[0].ids, ["row1"])
        if "row0" in scanned(reader) or "row0" in reader.search(vectors[:1], 5, shortlist=None)[0].ids:
            raise LawError("two handles: a deleted row is still found")
        writer.add(["row0", "row1"], vectors[:2], [{"kind": "k0"}, {"kind": "k1"}])
        writer.delete(["new"])
        time.sleep(example.delay_s)
    second.close()
    first.drop()


def closed(example: StoreExample) -> None:
    """Every call on a closed store is an error that says so; closing it twice is no error."""
    if example.reopen is None:
        return
    store, vectors = example.filled("closed")
    begun = store.scan(64)
    next(begun)
    for _ in range(2):
        store.close()
    calls: dict[str, Callable[[], object]] = {
        "add()": lambda: store.add(["new"], -vectors[:1]),
        "add() of no rows": lambda: store.add([], vectors[:0]),
        "search()": lambda: store.search(vectors[:1]),
        "search() of no ids": lambda: store.search(vectors[:1], ids=[]),
        "delete()": lambda: store.delete(["row0"]),
        "delete() of no ids": lambda: store.delete([]),
        "present()": lambda: store.present(["row0"]),
        "present() of no ids": lambda: store.present([]),
        "count()": store.count,
        "scan()": lambda: next(store.scan()),
        "scan() of no ids": lambda: store.scan(ids=[]),
        "ids()": lambda: next(store.ids()),
        "a scan that was begun": lambda: next(begun),
        "optimize()": store.optimize,
        "drop()": store.drop,
        "with": store.__enter__,
    }
    for what, call in calls.items():
        refused("closed", what, call, "closed")
    again = example.reopen("closed")
    same("closed", "count() when open again", again.count(), example.rows)
    again.drop()
    again.close()
    refused("closed", "count() of what was dropped", again.count, "closed")


def foreign_rows(example: StoreExample) -> None:
    """Rows that another program wrote can be found, filtered, scanned, replaced and deleted by id.

    A database may refuse such rows when they are written, but must not accept and then ignore them.
    """
    if example.reopen is None or example.write is None:
        return
    store, _ = example.filled("foreign")
    store.close()
    vectors = vectors_of(3, seed=2)
    given = cut_each(vectors, store.layout.dims, store.layout.rule)
    names = ["theirs", 'it\'s \\ "theirs"', "größe"]
    tags = [{"kind": "theirs", "year": 2020}, {"kind": "theirs", "year": 2021}, {}]
    example.write("foreign", names, given, tags)
    store = example.reopen("foreign")
    everything = example.rows + 3
    same("foreign rows", "count()", store.count(), everything)
    same("foreign rows", "present()", store.present([*names, "nobody's"]).tolist(), [True, True, True, False])
    same("foreign rows", "scan()", sorted(set(scanned(store)) & set(names)), sorted(names))
    for shortlist in (None, 20):
        found = store.search(vectors, 1, shortlist=shortlist)
        same(
            "foreign rows",
            "the nearest",
            [(h.ids, h.metadata) for h in found],
            [([n], [t]) for n, t in zip(names, tags, strict=True)],
        )
        same(
            "foreign rows", "ids=", [h.ids for h in store.search(vectors, 9, ids=names[:1])], [names[:1]] * 3
        )
        late = store.search(vectors, 9, shortlist=shortlist, where={"year": {"gt": 2020}})
        same("foreign rows", "where=", [hits.ids for hits in late], [names[1:2]] * 3)
    moved = -vectors[:1]
    store.add(names[:1], moved, [{"kind": "ours"}])
    same("foreign rows", "count() after replacing one", store.count(), everything)
    same("foreign rows", "how often one is scanned", scanned(store).count(names[0]), 1)
    found = store.search(moved, 2, where={"kind": ["ours", "theirs"]}, shortlist=None)[0]
    same("foreign rows", "a row that was replaced", found.ids[0], names[0])
    same("foreign rows", "its metadata", found.metadata[0], {"kind": "ours"})
    store.delete(names)
    same("foreign rows", "count() after deleting all", store.count(), example.rows)
    same("foreign rows", "present() after deleting all", store.present(names).any(), False)
    if set(scanned(store)) & set(names) or set(store.search(vectors, 5, shortlist=None)[0].ids) & set(names):
        raise LawError("foreign rows: deleted rows are still found")
    store.drop()


def lengths(example: StoreExample) -> None:
    """Under ``l2``, a foreign row that is not of unit length is scored by its cosine, or refused."""
    if example.reopen is None or example.write is None:
        return
    store, ours = example.filled("lengths")
    store.close()
    vectors = vectors_of(4, seed=2)
    given = {dim: 7 * x for dim, x in cut_each(vectors, store.layout.dims, CutRule()).items()}
    names = [f"long{row}" for row in range(4)]
    try:
        example.write("lengths", names, given, [{}] * 4)
    except Exception:  # noqa: BLE001 - of whatever client
        example.reopen("lengths").drop()
        return
    store = example.reopen("lengths")
    queries, everything = vectors_of(5, seed=1), np.concatenate([ours, vectors])
    known = [*names_of(example.rows), *names]
    rows, scores = exact(queries, everything, 10)
    for shortlist in (None, example.rows + 4):
        found = store.search(queries, 10, shortlist=shortlist)
        same("lengths", "ids", [hits.ids for hits in found], [[known[row] for row in each] for each in rows])
        if not all(
            np.allclose(h.scores, s, rtol=1e-4, atol=1e-5) for h, s in zip(found, scores, strict=True)
        ):
            raise LawError("lengths: scores are not cosines")
    most = max(float(hits.scores.max()) for hits in store.search(queries, 10, shortlist=20))
    if most > 1 + 1e-5:
        raise LawError(f"lengths: with a short shortlist a score is {most}, above 1")
    store.drop()
