"""Building the arrays of an engine as a stream: learn from samples, then code the rows block by block."""

from __future__ import annotations

from pathlib import Path

from nestling.search.exact.space import read_rows
from nestling.search.stages.building import Builder, CoarseBuilder, Task
from nestling.storage.resumable import Arrays, ResumableArrays


def build_arrays(task: Task, folder: Path | None) -> Arrays:
    """Everything that an engine for ``task`` holds, by name.

    Raises:
        ConfigError: for a plan that asks for more than the vectors can teach.
        DataError: for vectors with NaN, infinity, or a prefix of zeros under ``l2``; rows are named.
    """
    for stage in task.plan.stages():
        stage.check_rows(task.rows)
    journal = ResumableArrays(folder, task.identity())
    builders = _begin(task, journal)
    if not any(builder.is_done for builder in builders):
        _encode(task, journal, builders)
    replaced: Arrays = {}
    for builder in builders:
        replaced |= builder.finish()
    arrays = journal.finish()
    return arrays if folder is not None else arrays | replaced


def _begin(task: Task, journal: ResumableArrays) -> list[Builder]:
    """A builder for each stage, in the order in which a query passes them."""
    plan = task.plan
    coarse = CoarseBuilder() if plan.coarse is None else plan.coarse.begin(task, journal)
    scan = plan.scan.begin(task, journal, coarse)
    return [coarse, scan, *(stage.begin(task, journal, place) for place, stage in enumerate(plan.reranks))]


def _encode(task: Task, journal: ResumableArrays, builders: list[Builder]) -> None:
    """One pass over all vectors: their list, their code and their copies."""

    def make(span: slice) -> Arrays:
        values = read_rows(task.vectors[span], "vectors", span.start)
        made: Arrays = {}
        for builder in builders:
            made |= builder.encode(values, span.start, made)
        return made

    kinds = {name: kind for builder in builders for name, kind in builder.kinds.items()}
    journal.grow(kinds, task.rows, task.block, make)
