"""Flags of ``nestling sweep`` for the task: texts of a file, or vectors with relevance judgements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.cli.flags.completion import options_of
from nestling.cli.flags.options import Seed
from nestling.cli.terminal.output import say, say_left_out
from nestling.errors import ConfigError, DataError, named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nestling.measure.tasks.qrels import Qrels
    from nestling.measure.tasks.tasks import Retrieval, Task
    from nestling.vectors.stored import StoredVectors

_HELD_OUT = 5  # one of so many rows of a class is a query
_LABEL = "label"
_K = 10


_TEXTS, _VECTORS, _HOW = "Texts (for a text model)", "Vectors (for a file of vectors)", "Metrics"
_PICTURES = "Pictures and speech (for a model of nestling train)"


@dataclass(frozen=True)
class TaskFlags:
    """The data to measure on, and the measures."""

    pairs: Annotated[
        Path | None, typer.Option(help="A file of (query, document) pairs.", rich_help_panel=_TEXTS)
    ] = None
    beir: Annotated[
        Path | None, typer.Option(help="A folder in the BEIR format.", rich_help_panel=_TEXTS)
    ] = None
    scored: Annotated[
        Path | None, typer.Option(help="A file of (text, text, score) rows.", rich_help_panel=_TEXTS)
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(
            help="Roles of the columns of --pairs, --scored, --pictures or --recordings, such as "
            "query=title,document=body.",
            rich_help_panel=_TEXTS,
        ),
    ] = None
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Query vectors; without --relevant, row i of MODEL answers row i.", rich_help_panel=_VECTORS
        ),
    ] = None
    relevant: Annotated[
        Path | None,
        typer.Option(
            help="Relevance judgements (query, document, grade), by id or by row number.",
            rich_help_panel=_VECTORS,
        ),
    ] = None
    labels: Annotated[
        Path | None, typer.Option(help="The class of each vector of MODEL.", rich_help_panel=_VECTORS)
    ] = None
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="A table of pictures, questions and answers, and maybe choices.", rich_help_panel=_PICTURES
        ),
    ] = None
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="A table of wav files and texts; or fsdd or grid, their test split.",
            rich_help_panel=_PICTURES,
        ),
    ] = None
    k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Documents to retrieve for each query; by default 10, or all where there are fewer.",
            rich_help_panel=_HOW,
        ),
    ] = None
    measures: Annotated[
        str | None,
        typer.Option(
            help="Metrics, the main one first, such as map,recall,mrr; by default ndcg,recall,mrr.",
            rich_help_panel=_HOW,
            autocompletion=options_of("measure.tasks.retrieval", "MEASURES", several=True),
        ),
    ] = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        sources = ("pairs", "beir", "scored", "queries", "labels", "pictures", "recordings")
        if sum(getattr(self, name) is not None for name in sources) != 1:
            raise ConfigError(
                "give the data to measure on: texts by one of --pairs FILE, --beir FOLDER, --scored FILE; "
                "where the model is a file of vectors, --queries FILE or --labels FILE; for pictures "
                "--pictures FILE, for speech --recordings FILE. Without any, nestling bench VECTORS measures "
                "the recall of search plans"
            )
        if self.relevant is not None and self.queries is None:
            raise ConfigError("--relevant is for the vectors of --queries; give both")
        tables = (self.pairs, self.scored, self.pictures, self.recordings)
        if self.columns is not None and not any(tables):
            raise ConfigError("--columns is for --pairs, --scored, --pictures or --recordings; leave it out")
        if self.scored is not None and (self.k, self.measures) != (None, None):
            raise ConfigError("--scored is measured by rank correlation only; leave out --k and --measures")
        if self.are_of_answers and (self.k, self.measures) != (None, None):
            raise ConfigError(
                "pictures are measured by accuracy, recordings by word accuracy; leave out --k and --measures"
            )

    @property
    def source(self) -> str:
        """Name of the data's file or folder."""
        given = (
            self.pairs, self.beir, self.scored, self.queries, self.labels, self.pictures, self.recordings
        )  # fmt: skip
        return next((path.name for path in given if path is not None), "")

    @property
    def are_of_vectors(self) -> bool:
        """Whether the data is for a file of vectors."""
        return self.queries is not None or self.labels is not None

    @property
    def are_of_answers(self) -> bool:
        """Whether the data is pictures or recordings."""
        return self.pictures is not None or self.recordings is not None

    @property
    def how(self) -> dict[str, Any]:
        """Settings of a retrieval task, except ``k``; see :func:`_to_depth`."""
        return {"k": 1, **({} if self.measures is None else {"measures": _names(self.measures)})}


def text_task(flags: TaskFlags) -> Task:
    """The task on texts that the flags describe.

    Raises:
        DataError: for data that cannot be used.
    """
    from nestling.data import read_beir, read_pairs
    from nestling.data.sets.sts import read_scored_pairs
    from nestling.data.tables.roles import PAIR_ROLES, SCORED_ROLES, read_roles
    from nestling.measure.tasks.tasks import STS, Retrieval

    if flags.pairs is not None:
        pairs = read_pairs(flags.pairs, **read_roles(flags.columns, PAIR_ROLES))
        say_left_out(pairs.left_out)
        return _to_depth(Retrieval.from_pairs(pairs, **flags.how), flags.k)
    if flags.beir is not None:
        data = read_beir(flags.beir)
        say_left_out(data.left_out)
        return _to_depth(Retrieval.from_data(data, **flags.how), flags.k)
    assert flags.scored is not None
    rated = read_scored_pairs(flags.scored, **read_roles(flags.columns, SCORED_ROLES))
    return STS(rated.first, rated.second, rated.scores)


def vector_task(stored: StoredVectors, flags: TaskFlags) -> Task:
    """The task on vectors: ``stored`` are the documents, or with labels both queries and documents.

    Raises:
        DataError: for data that cannot be used.
    """
    from nestling.measure.tasks.tasks import Retrieval
    from nestling.vectors.opening import open_vectors

    if flags.labels is not None:
        labels = _read_labels(flags.labels, len(stored))
        asked, known = _held_out(labels, flags.seed)
        x = stored.values
        task = Retrieval.from_labels(x[asked], labels[asked], x[known], labels[known], **flags.how)
        return _to_depth(task, flags.k)
    assert flags.queries is not None
    queries = open_vectors(flags.queries)
    if flags.relevant is None:
        return _to_depth(Retrieval.from_vectors(queries.values, stored.values, **flags.how), flags.k)
    rows, judged = _read_relevant(flags.relevant, queries, stored)
    task = Retrieval.from_vectors(queries.values[rows], stored.values, judged, **flags.how)
    return _to_depth(task, flags.k)


def _to_depth(task: Retrieval, k: int | None) -> Retrieval:
    """The task at depth ``k``: by default 10, or the number of documents if that is less."""
    if k is None:
        k = min(_K, len(task.documents))
        if k < _K:
            say(f"there are {k} documents, so --k {k} is measured, not --k {_K}")
    return replace(task, k=k)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _read_labels(path: Path, count: int) -> NDArray[np.generic]:
    """One label a row: the column ``label``, or the only one."""
    import numpy as np

    from nestling.data.tables.table import read_table

    table = read_table(path)
    columns = table.columns
    if _LABEL not in columns and len(columns) > 1:
        raise DataError(
            f"{path} has the columns {', '.join(columns)}; name the one of the classes {_LABEL!r}"
        )
    labels = columns.get(_LABEL, next(iter(columns.values())))
    blank = [row for row, label in enumerate(labels) if label is None or not str(label).strip()]
    if blank:
        raise DataError(f"{path} has no label in {table.name_rows(blank)}; give one for each vector")
    if len(labels) != count:
        # Readers skip blank lines; the line numbers of the rows show where they were.
        passed = sorted({*range(table.numbers[0], table.numbers[-1])} - {*table.numbers})
        lines = f"; blank: {named('line', [str(line) for line in passed], len(passed))}" if passed else ""
        raise DataError(
            f"{path} holds {len(labels):,} labels, but there are {count:,} vectors{lines}; "
            "give one label for each vector"
        )
    return np.asarray(labels)


def _held_out(labels: NDArray[np.generic], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Query rows, a fifth of each class, and document rows, at least one of each class."""
    import numpy as np

    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, codes = np.unique(labels[shuffled], return_inverse=True)
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    asks = np.zeros(len(labels), np.bool_)
    asks[order] = place % _HELD_OUT == 1
    if not asks.any():
        raise DataError("every class has one vector only, so no query has a document to find")
    return np.sort(shuffled[asks]), np.sort(shuffled[~asks])


def _read_relevant(path: Path, queries: StoredVectors, documents: StoredVectors) -> tuple[list[int], Qrels]:
    """Rows of the judged queries, and their judgements; rows are named by id, or else by number."""
    from nestling.data import RetrievalData, read_qrels
    from nestling.measure.tasks.qrels import Qrels

    asked, known = _places(queries), _places(documents)
    data = RetrievalData({name: name for name in asked}, {name: name for name in known}, read_qrels(path))
    say_left_out(data.left_out)
    return [asked[query] for query in data.qrels], Qrels.of(data)


def _places(vectors: StoredVectors) -> Mapping[str, int]:
    names = range(len(vectors)) if vectors.ids is None else vectors.ids.tolist()
    return {str(name): row for row, name in enumerate(names)}
