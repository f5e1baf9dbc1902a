"""Building the arrays of an engine as a stream: train on a sample, then encode block by block."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ConfigError
from nestling.search.codes import Code
from nestling.search.graph import Graph, grow_graph
from nestling.search.journal import Arrays, Journal
from nestling.search.plan import Plan
from nestling.search.space import Floats, Ints, Space, read_rows
from nestling.search.stages import Scan
from nestling.search.views import faiss

_ENTRIES_AT_A_TIME = 1 << 22
_ROWS_A_CENTROID = 256
_ROWS_TO_LEARN_A_CODE = 1 << 16
_CLUSTERING_ROUNDS = 10
_BYTES_SORTED_AT_A_TIME = 1 << 26
_SECONDS_BETWEEN_COPIES_OF_A_GRAPH = 60.0
_COPY = "graph-"


@dataclass(frozen=True)
class Task:
    """What is built from what; its vectors are read block by block.

    Args:
        plan: with sizes as numbers.
        vectors: ``Float[rows, full]``.
        space: how they are compared.
        seed: of samples, clusterings, rotations and graphs.
    """

    plan: Plan
    vectors: NDArray[Any]
    space: Space
    seed: int

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return len(self.vectors)

    @property
    def block(self) -> int:
        """Vectors read at a time."""
        return max(1, _ENTRIES_AT_A_TIME // int(self.vectors.shape[1]))

    def identity(self) -> dict[str, Any]:
        """What tells this task from others, with a digest of a thousand vectors."""
        rows = np.linspace(0, self.rows - 1, min(self.rows, 1000)).astype(np.int64)
        digest = hashlib.sha256(np.ascontiguousarray(self.vectors[rows]).data).hexdigest()
        return {
            "plan": str(self.plan),
            "vectors": f"{self.vectors.dtype} {self.vectors.shape} {digest}",
            "metric": f"{self.space.metric} normalised={self.space.is_normalised}",
            "seed": self.seed,
            "faiss": faiss.__version__,
        }

    def sample(self, most: int, dim: int) -> Floats:
        """Prefixes of at most ``most`` vectors, drawn by the seed and prepared."""
        rows: Any = slice(None)
        if most < self.rows:
            rows = np.sort(np.random.default_rng(self.seed).choice(self.rows, most, replace=False))
        values = read_rows(cut(self.vectors, dim, RAW)[rows], "vectors to learn from")
        return self.space.prefix(values, dim, "vectors to learn from")


def build_arrays(task: Task, folder: Path | None) -> Arrays:
    """Everything that an engine for ``task`` holds, by name.

    Raises:
        ConfigError: for a plan that asks for more than the vectors can teach.
        DataError: for vectors with NaN, infinity, or a prefix of zeros under ``l2``; rows are named.
    """
    _check(task)
    journal = Journal(folder, task.identity())
    code, stores = _train(task, journal)
    _encode(task, journal, code, stores)
    if task.plan.coarse is not None and task.plan.coarse.kind == "ivf":
        _sort_by_list(task, journal)
    if task.plan.coarse is not None and task.plan.coarse.kind == "hnsw":
        _link(task, journal)
    return journal.finish()


def code_of_store(store: str, dim: int) -> Scan:
    """The code of a copy for re-ordering."""
    return Scan(store, dim)  # type: ignore[arg-type] # stores are codes that can be cut


def _check(task: Task) -> None:
    coarse = task.plan.coarse
    if coarse is None:
        return
    if coarse.kind == "ivf" and coarse.count > task.rows:
        raise ConfigError(
            f"{coarse} needs at least as many vectors as lists, and there are {task.rows}; "
            f"build with at most {task.rows} lists (about {max(1, round(4 * task.rows**0.5))} suit them)"
        )
    if coarse.kind == "hnsw" and coarse.count < 2:
        raise ConfigError(f"{coarse} cannot connect the rows; give each at least 2 links, such as hnsw32")


def _train(task: Task, journal: Journal) -> tuple[Code, dict[str, Code]]:
    """The lists and all codes, learned from samples."""
    plan, space = task.plan, task.space
    dim = int(plan.scan.dim or 0)
    lists: Ints | None = None
    count = 0
    if plan.coarse is not None and plan.coarse.kind == "ivf":
        count = plan.coarse.count
        centroids = journal.once("coarse", lambda: {"centroids": _cluster(task)})["centroids"]
        if plan.scan.code == "rabitq":
            prefixes = task.sample(_ROWS_TO_LEARN_A_CODE, centroids.shape[1])
            lists = _assign(prefixes, np.array(centroids))

    def learn(scan: Scan) -> Callable[[], Arrays]:
        def train() -> Arrays:
            sample = task.sample(_ROWS_TO_LEARN_A_CODE, int(scan.dim or 0))
            return Code.train(scan, space, sample, task.seed, lists, count).to_parts()

        return train

    scan = Scan(plan.scan.code, dim, plan.scan.subspaces, plan.scan.bits)
    code = Code.from_parts(scan, space, journal.once("scan", learn(scan)))
    stores = {}
    for number, stage in enumerate(plan.reranks):
        if stage.store != "flat":
            kind = code_of_store(stage.store, int(stage.dim or 0))
            parts = journal.once(f"store{number}", learn(kind))
            stores[f"copies{number}"] = Code.from_parts(kind, space, parts)
    return code, stores


def _cluster(task: Task) -> Floats:
    coarse = task.plan.coarse
    assert coarse is not None
    assert coarse.dim is not None
    sample = task.sample(_ROWS_A_CENTROID * coarse.count, coarse.dim)
    clustering = faiss.Kmeans(
        coarse.dim,
        coarse.count,
        niter=_CLUSTERING_ROUNDS,
        seed=task.seed % (1 << 31),
        min_points_per_centroid=1,  # or faiss prints a warning; too few are refused before
        max_points_per_centroid=_ROWS_A_CENTROID,
    )
    clustering.train(sample)
    return np.asarray(clustering.centroids, np.float32)


def _assign(prefixes: Floats, centroids: Floats) -> Ints:
    return np.asarray(faiss.knn(prefixes, centroids, 1)[1][:, 0])


def _encode(task: Task, journal: Journal, code: Code, stores: dict[str, Code]) -> None:
    """One pass over all vectors: their list, their code and their copies."""
    space, coarse = task.space, task.plan.coarse
    is_listed = coarse is not None and coarse.kind == "ivf"
    if is_listed and "starts" in journal:
        return
    names: dict[str, tuple[Any, int]] = {
        name: (np.uint8, store.trained.sa_code_size()) for name, store in stores.items()
    }
    names["codes_as_read" if is_listed else "codes"] = (np.uint8, code.trained.sa_code_size())
    if is_listed:
        names["lists"] = (np.int32, 0)
    centroids = np.array(journal["coarse.centroids"]) if is_listed else None

    def make(span: slice) -> Arrays:
        values = read_rows(task.vectors[span], "vectors", span.start)
        made: Arrays = {}
        lists = None
        if centroids is not None:
            prefixes = space.prefix(values, centroids.shape[1], "vectors", span.start)
            lists = made["lists"] = _assign(prefixes, centroids)
        prefixes = space.prefix(values, code.dim, "vectors", span.start)
        made["codes"] = made["codes_as_read"] = code.encode(prefixes, lists)
        for name, store in stores.items():
            made[name] = store.encode(space.prefix(values, store.dim, "vectors", span.start))
        return made

    journal.grow(names, task.rows, task.block, make)


def _sort_by_list(task: Task, journal: Journal) -> None:
    """Bring codes into the order of their lists, so that a list is read in one piece."""
    coarse = task.plan.coarse
    assert coarse is not None
    if "starts" not in journal:
        lists, unsorted = journal["lists"], journal["codes_as_read"]
        order = np.argsort(lists, kind="stable")
        kinds = {"codes": (np.uint8, unsorted.shape[1]), "rows": (np.int64, 0)}
        step = max(1, _BYTES_SORTED_AT_A_TIME // unsorted.shape[1])
        journal.grow(
            kinds, task.rows, step, lambda span: {"codes": unsorted[order[span]], "rows": order[span]}
        )
        sizes = np.bincount(lists, minlength=coarse.count)
        journal.keep("starts", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        del lists, unsorted  # some systems do not remove files that are mapped
    journal.drop("lists", "codes_as_read")


def _link(task: Task, journal: Journal) -> None:
    """Grow the graph; a copy of it is written now and then, from which an interrupted build goes on."""
    coarse = task.plan.coarse
    assert coarse is not None
    assert coarse.dim is not None
    if "graph." not in journal:
        begun_name = max((name for name in journal.groups() if name.startswith(_COPY)), default=None)
        begun = None if begun_name is None else Graph.from_parts(coarse.count, journal.group(begun_name))
        finished = _grow(task, journal, coarse.count, coarse.dim, begun)
        assert finished is not None  # there is at least one block, in this run or in one before it
        journal.once("graph", finished.to_parts)
    journal.drop_groups(_COPY)


def _grow(task: Task, journal: Journal, links: int, dim: int, begun: Graph | None) -> Graph | None:
    """The graph of all rows; copies of it are written on the way."""

    def read(span: slice) -> Floats:
        values = read_rows(cut(task.vectors, dim, RAW)[span], "vectors", span.start)
        return task.space.prefix(values, dim, "vectors", span.start)

    copy, noted = None, time.monotonic()
    for copy in grow_graph(links, task.space, task.rows, dim, task.block, read, task.seed, begun):
        if journal.folder is not None and time.monotonic() - noted >= _SECONDS_BETWEEN_COPIES_OF_A_GRAPH:
            graph = copy()
            name = f"{_COPY}{len(graph.levels):012}"
            journal.once(name, graph.to_parts)
            journal.drop_groups(_COPY, keep=name)
            noted = time.monotonic()
    return begun if copy is None else copy()
