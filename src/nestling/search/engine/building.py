"""Building the arrays of an engine as a stream: train on a sample, then encode block by block."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ConfigError
from nestling.kernels.graph import CodedGraph
from nestling.process.progress import Progress, watched
from nestling.search.engine.codes import Code
from nestling.search.engine.graph_stage import BUILDING, Coding, grow_links
from nestling.search.engine.hnsw import Graph, grow_graph
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.some_rows import inverse_norms
from nestling.search.exact.space import Floats, Ints, Space, read_rows
from nestling.search.graph.equal_rows import Equal, find_equal
from nestling.search.plan.plan import Plan
from nestling.search.plan.stages import Scan
from nestling.storage.resumable import Arrays, Journal

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
    if task.plan.scan.code == "graph":
        graph = _build_graph(task, journal)
        _drop_single_groups(journal)
        arrays = journal.finish()
        if graph is not None and folder is None:
            arrays["codes"] = graph.codes  # which begin where a line of the cache does
        return arrays
    code = _train(task, journal)
    _encode(task, journal, code, _train_stores(task, journal))
    if task.plan.coarse is not None and task.plan.coarse.kind == "ivf":
        _sort_by_list(task, journal)
    if task.plan.coarse is not None and task.plan.coarse.kind == "hnsw":
        _link(task, journal)
        _drop_single_groups(journal)
    return journal.finish()


def _equal_rows(task: Task, journal: Journal) -> Equal:
    """Groups of rows that no stage of the plan tells apart."""
    dim = task.plan.answer_dim

    def find() -> Arrays:
        return {
            "first": find_equal(lambda span: _prefixes(task, span, dim), task.rows, task.seed, task.block)
        }

    return Equal(np.array(journal.once("equal", find)["first"]))


def _drop_single_groups(journal: Journal) -> None:
    """Where all rows differ, no table has to say so."""
    if "equal." not in journal or not Equal(journal["equal.first"]).is_grouped:
        journal.drop_groups("equal")


def _prefixes(task: Task, span: slice, dim: int) -> Floats:
    values = read_rows(cut(task.vectors, dim, RAW)[span], "vectors", span.start)
    return task.space.prefix(values, dim, "vectors", span.start)


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


def _train(task: Task, journal: Journal) -> Code:
    """The lists and the code that is scanned, learned from samples."""
    plan = task.plan
    lists: Ints | None = None
    count = 0
    if plan.coarse is not None and plan.coarse.kind == "ivf":
        count = plan.coarse.count
        centroids = journal.once("coarse", lambda: {"centroids": _cluster(task)})["centroids"]
        if plan.scan.code == "rabitq":
            prefixes = task.sample(_ROWS_TO_LEARN_A_CODE, centroids.shape[1])
            lists = _assign(prefixes, np.array(centroids))
    return _learn(task, journal, "scan", plan.scan, lists, count)


def _train_stores(task: Task, journal: Journal) -> dict[str, Code]:
    """The codes of copies for re-ordering."""
    kinds = {
        number: code_of_store(stage.store, int(stage.dim or 0))
        for number, stage in enumerate(task.plan.reranks)
        if stage.store != "flat" and not (number == 0 and task.plan.keeps_residuals)
    }
    return {
        f"copies{number}": _learn(task, journal, f"store{number}", kind, is_copy=True)
        for number, kind in kinds.items()
    }


def _learn(
    task: Task,
    journal: Journal,
    name: str,
    scan: Scan,
    lists: Ints | None = None,
    count: int = 0,
    *,
    is_copy: bool = False,
) -> Code:
    def train() -> Arrays:
        sample = task.sample(_ROWS_TO_LEARN_A_CODE, int(scan.dim or 0))
        with Progress(f"learning the code {scan}"):
            if is_copy:
                return Code.train_copy(scan, task.space, sample, task.seed).to_parts()
            return Code.train(scan, task.space, sample, task.seed, lists, count).to_parts()

    return Code.from_parts(scan, task.space, journal.once(name, train))


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
    with Progress(f"finding the {coarse.count:,} lists"):
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
    names = _kinds_of_copies(task, stores)
    names["codes_as_read" if is_listed else "codes"] = (np.uint8, code.trained.sa_code_size())
    if is_listed:
        names["lists"] = (np.int32, 0)
    centroids = np.array(journal["coarse.centroids"]) if is_listed else None

    def make(span: slice) -> Arrays:
        values = read_rows(task.vectors[span], "vectors", span.start)
        made = _copies(task, stores, values, span.start)
        lists = None
        if centroids is not None:
            prefixes = space.prefix(values, centroids.shape[1], "vectors", span.start)
            lists = made["lists"] = _assign(prefixes, centroids)
        prefixes = space.prefix(values, code.dim, "vectors", span.start)
        made["codes"] = made["codes_as_read"] = code.encode(prefixes, lists)
        return made

    journal.grow(names, task.rows, task.block, make)


def _kinds_of_copies(task: Task, stores: dict[str, Code]) -> dict[str, tuple[Any, int]]:
    kinds: dict[str, tuple[Any, int]] = {
        name: (np.uint8, store.trained.sa_code_size()) for name, store in stores.items()
    }
    return kinds | {f"norms{number}": (np.float64, 0) for number in _with_norms(task, stores)}


def _copies(task: Task, stores: dict[str, Code], values: Floats, start: int) -> Arrays:
    """What re-ordering reads of some rows: copies, and what scales rows as they are stored to length one."""
    made: Arrays = {}
    for name, store in stores.items():
        made[name] = store.encode(task.space.prefix(values, store.dim, "vectors", start))
    for number in _with_norms(task, stores):
        stage = task.plan.reranks[number]
        copies = made.get(f"copies{number}")
        rows = cut(values, int(stage.dim or 0), RAW) if copies is None else copies.view(np.float16)
        made[f"norms{number}"] = inverse_norms(rows)
    return made


def _with_norms(task: Task, stores: dict[str, Code]) -> list[int]:
    """The re-ordering stages that compiled kernels can do where rows are compared by their direction."""
    if not task.space.is_normalised:
        return []
    # Residuals stand beside vectors, which are read where few rows are allowed. Differences are compared by
    # distance.
    moved = {name for name, code in stores.items() if code.origin is not None}
    return [
        number
        for number, stage in enumerate(task.plan.reranks)
        if f"copies{number}" not in moved
        and (stage.store != "int8" or (number == 0 and task.plan.keeps_residuals))
    ]


def _build_graph(task: Task, journal: Journal) -> CodedGraph | None:
    """Code all rows, then link them; links are noted now and then, and a build goes on from there.

    Returns:
        The graph, unless it was whole already.
    """
    dim, stores = int(task.plan.scan.dim or 0), _train_stores(task, journal)
    prefixes = cut(task.vectors, dim, RAW)
    fitted: list[Coding] = []

    def fit() -> Arrays:
        with Progress("learning the code of the graph"):
            fitted.append(Coding.fit(prefixes, task.space, task.seed, task.block))
        return fitted[0].to_parts()

    parts = journal.once("graph", fit)
    graph = None
    if "links." not in journal:
        coding = fitted[0] if fitted else Coding.from_parts(parts, task.space, prefixes)
        coding = replace(coding, with_residuals=task.plan.keeps_residuals)
        _encode_graph(task, journal, coding, prefixes, stores)
        graph = _link_graph(task, journal, coding, prefixes, _equal_rows(task, journal))
    journal.drop_groups(_COPY)
    journal.drop(*BUILDING)
    return graph


def _encode_graph(
    task: Task, journal: Journal, coding: Coding, prefixes: NDArray[Any], stores: dict[str, Code]
) -> None:
    def make(span: slice) -> Arrays:
        values = read_rows(task.vectors[span], "vectors", span.start)
        return coding.encode(prefixes, span) | _copies(task, stores, values, span.start)

    journal.grow(coding.kinds | _kinds_of_copies(task, stores), task.rows, task.block, make)


def _link_graph(
    task: Task, journal: Journal, coding: Coding, prefixes: NDArray[Any], equal: Equal
) -> CodedGraph:
    noted = time.monotonic()

    def note(linked: int, links: NDArray[np.int32]) -> None:
        nonlocal noted
        if journal.folder is not None and time.monotonic() - noted >= _SECONDS_BETWEEN_COPIES_OF_A_GRAPH:
            name = f"{_COPY}{linked:012}"
            journal.once(name, lambda: {"links": links})
            journal.drop_groups(_COPY, keep=name)
            noted = time.monotonic()

    last = max((name for name in journal.groups() if name.startswith(_COPY)), default=None)
    begun = None if last is None else (int(last.removeprefix(_COPY)), journal.group(last)["links"])
    graph = grow_links(
        coding, prefixes, journal.__getitem__, task.plan.scan.links or 0, task.seed, equal, begun, note
    )
    journal.once("links", lambda: {"rows": graph.links, "hubs": graph.hubs})
    return graph


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
        nodes = _equal_rows(task, journal).nodes
        begun_name = max((name for name in journal.groups() if name.startswith(_COPY)), default=None)
        begun = None if begun_name is None else Graph.from_parts(coarse.count, journal.group(begun_name))
        finished = _grow(task, journal, coarse.count, coarse.dim, begun, nodes)
        assert finished is not None  # there is at least one block, in this run or in one before it
        journal.once("graph", finished.renumbered(nodes, task.rows).to_parts)
    journal.drop_groups(_COPY)


def _grow(
    task: Task, journal: Journal, links: int, dim: int, begun: Graph | None, nodes: Ints
) -> Graph | None:
    """The graph of the rows that are nodes; copies of it are written on the way."""

    def read(span: slice) -> Floats:
        if len(nodes) == task.rows:
            return _prefixes(task, span, dim)
        return task.space.scaled(read_rows(cut(task.vectors, dim, RAW)[nodes[span]]))  # they were read before

    copy, noted = None, time.monotonic()
    blocks = grow_graph(links, task.space, len(nodes), dim, task.block, read, task.seed, begun)
    for copy in watched(blocks, "linking", "blocks", -(-task.rows // task.block)):
        if journal.folder is not None and time.monotonic() - noted >= _SECONDS_BETWEEN_COPIES_OF_A_GRAPH:
            graph = copy()
            name = f"{_COPY}{len(graph.levels):012}"
            journal.once(name, graph.to_parts)
            journal.drop_groups(_COPY, keep=name)
            noted = time.monotonic()
    return begun if copy is None else copy()
