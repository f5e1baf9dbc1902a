"""The laws of stages as checks that anybody can run on theirs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.formatting import shown
from nestling.cut import RAW, CutRule, cut
from nestling.errors import ArtifactError, ConfigError
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.faiss_arrays import faiss_threads
from nestling.search.exact.filters import Allowed
from nestling.search.exact.neighbours import Metric, Neighbours, nearest
from nestling.search.plan.plan import Plan, Point
from nestling.search.stages.registry import parse_stage
from nestling.storage.npy import read_arrays, write_array
from nestling.testing.laws import LawError, as_laws, check_refused, random_state

_ROWS, _QUERIES, _K = 600, 8, 7
# A shortlist of a tenth of all rows holds by chance a tenth of the nearest, and a quarter of them less than
# once in a thousand times (56 rows, which eight queries look for).
_PART, _TIMES_CHANCE = 10, 2.5
_SPACES: tuple[tuple[CutRule, Metric], ...] = ((CutRule(), "dot"), (RAW, "dot"), (RAW, "euclidean"))


@dataclass(frozen=True)
class StageExample:
    """A stage under test, in a plan that loses nothing where everything is scanned.

    Args:
        plan: text of a plan for vectors of ``dim`` entries. Let ``rerank@full`` end it where codes lose.
        refused: texts of the stage with parameters that do not exist or lie outside their range.
        dim: entries of the vectors.
        rows: number of rows.
        tolerance: largest difference between scores that counts as equal, relative and absolute.
    """

    plan: str
    refused: Sequence[str] = ()
    dim: int = 32
    rows: int = _ROWS
    tolerance: float = 1e-3

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Clusters, whose early entries tell more than the late ones."""
        return self._drawn(0, self.rows)

    @cached_property
    def queries(self) -> NDArray[np.float32]:
        """Queries from the same clusters."""
        return self._drawn(1, _QUERIES)

    def _drawn(self, seed: int, rows: int) -> NDArray[np.float32]:
        draw, centres = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(20, self.dim))
        values = centres[draw.integers(20, size=rows)] + draw.normal(size=(rows, self.dim))
        return (values / np.sqrt(np.arange(1, self.dim + 1))).astype(np.float32)

    @cached_property
    def engines(self) -> list[Engine]:
        """The plan, built for cosines, inner products and distances."""
        return [self.build(rule, metric) for rule, metric in _SPACES]

    def build(self, rule: CutRule, metric: Metric, vectors: NDArray[Any] | None = None) -> Engine:
        """The plan over some vectors, all by default."""
        rows = self.vectors if vectors is None else vectors
        return build(self.plan, rows, rule=rule, metric=metric, seed=3, workers=1)

    def widest(self, plan: Plan) -> Point:
        """The point at which all rows are scanned: reached from the smallest, as tuning does."""
        point = plan.smallest_point(self.rows, _K)
        while larger := next(plan.larger_points(point, self.rows), None):
            point = larger
        return replace(point, shortlists=(self.rows,) * len(plan.reranks))

    @property
    def shortlist(self) -> int:
        """Length of a short list."""
        return max(_K, self.rows // _PART)

    def narrow(self, plan: Plan) -> list[Point]:
        """Points at which one stage after another selects a short list; all rows reach it."""
        widest, count = self.widest(plan), len(plan.reranks)
        lengths = [(self.rows,) * stage + (self.shortlist,) * (count - stage) for stage in range(count)]
        return [replace(widest, shortlists=each) for each in lengths]

    def search(self, engine: Engine, k: int = _K, **options: Any) -> Neighbours:
        """The hits of an engine if all rows are scanned."""
        return engine.search(self.queries, k, self.widest(engine.plan), workers=1, **options)

    def equal(self, found: NDArray[Any], wanted: NDArray[Any]) -> bool:
        """Whether scores are the same to the tolerance."""
        limits = {"rtol": self.tolerance, "atol": self.tolerance}
        return found.shape == wanted.shape and np.allclose(found, wanted, equal_nan=True, **limits)


def text(example: StageExample) -> None:
    """A plan and its stages are what their text says; equal ones are equal."""
    plan = Plan.parse(example.plan)
    if Plan.parse(str(plan)) != plan or hash(Plan.parse(str(plan))) != hash(plan):
        raise LawError(f"text: {str(plan)!r} is read as another plan than {example.plan!r}")
    for stage in plan.stages():
        if parse_stage(str(stage)) != stage:
            raise LawError(f"text: {str(stage)!r} is read as {parse_stage(str(stage))!r}, not as {stage!r}")


def truth(example: StageExample) -> None:
    """If all rows are scanned, the ground truth is found, in every space."""
    for engine in example.engines:
        found = example.search(engine)
        wanted = nearest(example.queries, example.vectors, _K, rule=engine.rule, metric=engine.metric)
        if not example.equal(found.scores, wanted.scores):
            raise LawError(f"truth: {_named(engine)} finds {found.scores[0]}, not {wanted.scores[0]}")


def shortlists(example: StageExample) -> None:
    """A short list of candidates holds far more of the nearest rows than chance does, filtered or not."""
    most = np.arange(example.rows) % 5 != 0  # so many that plans do not compare just them
    for engine in example.engines:
        points, stages = example.narrow(engine.plan), [engine.plan.scan, *engine.plan.reranks]
        for dim in _sizes(example, engine) if points else ():
            for allowed in (None, most):
                _check_candidates(example, engine, dim, allowed)
                for stage, point in zip(stages, points, strict=False):  # the last stage selects the results
                    recall, chance = _recall(example, engine, dim, point, allowed), 1 / _PART
                    if recall < _TIMES_CHANCE * chance:
                        raise LawError(
                            f"shortlists: the best {example.shortlist} of {example.rows} rows by {stage} of "
                            f"{_named(engine)} at {dim} dims hold {recall:.2f} of the nearest; random rows "
                            f"hold {chance:g}"
                        )


def filters(example: StageExample) -> None:
    """No row is found that a filter forbids; -1 and nan fill the places where there are fewer than ``k``."""
    some = np.arange(example.rows) % 3 == 0
    few = np.arange(example.rows) < _K - 2
    for engine in example.engines:
        for allowed in (some, few):
            found, count = example.search(engine, allowed=allowed), min(_K, int(allowed.sum()))
            hits = found.indices[:, :count]
            if (hits < 0).any() or not allowed[hits].all():
                raise LawError(f"filters: {_named(engine)} gives rows {hits[0]}, of which some are forbidden")
            if (found.indices[:, count:] != -1).any() or not np.isnan(found.scores[:, count:]).all():
                raise LawError(f"filters: {_named(engine)} gives more rows than the {count} that are allowed")


def saved(example: StageExample) -> None:
    """A saved and loaded engine gives the same results."""
    for engine in example.engines:
        with _folder_of(engine) as folder:
            again = _load(folder, engine)
            if not _same(example.search(engine), example.search(again)):
                raise LawError(f"saved: {_named(engine)} gives other results once it is saved and loaded")


def sizes(example: StageExample) -> None:
    """A cut index gives the ground truth of its size, extracted or not; other sizes are refused."""
    for engine in example.engines:
        for dim in range(example.dim // 4, engine.plan.smallest_dim, example.dim // 4):
            _refused(f"sizes: dim={dim}", lambda e=engine, d=dim: e.search(example.queries, _K, dim=d))  # type: ignore[misc]
        for dim in _sizes(example, engine):
            wanted, small = _truth_of(example, engine, dim), engine.extract(dim)
            for point in (example.widest(engine.plan), *example.narrow(engine.plan)):
                found = engine.search(example.queries, _K, point, dim=dim, workers=1).scores
                if wanted is not None and not example.equal(found, wanted):
                    raise LawError(f"sizes: {_named(engine)} at {dim} finds {found[0]}, not {wanted[0]}")
                wanted = None  # short lists may miss some
                part = small.search(cut(example.queries, dim, RAW), _K, point, workers=1).scores
                if not example.equal(found, part):
                    where = f"{_named(engine)} at {dim} and its extract({dim})"
                    raise LawError(f"sizes: {where} give other results at {point}")


def cost(example: StageExample) -> None:
    """Costs are positive, and do not fall with the rows or with any parameter."""
    plan = Plan.parse(example.plan).resolve(example.dim)
    points = [replace(plan.smallest_point(example.rows, _K), shortlists=(_K,) * len(plan.reranks))]
    while larger := next(plan.larger_points(points[-1], example.rows), None):
        points.append(larger)
    points.append(example.widest(plan))
    costs = [plan.cost(example.rows, example.dim, point) for point in points]
    costs.append(plan.cost(3 * example.rows, example.dim, points[-1]))
    for each in costs:
        if min(each.mflops, each.bytes_read, each.bytes_stored) <= 0:
            raise LawError(f"cost: {plan} costs {each}; nothing is free")
    for less, more in pairwise(costs):
        if more.mflops < less.mflops or more.bytes_read < less.bytes_read:
            raise LawError(f"cost: {plan} costs {more} where more is read than for {less}")
    if example.engines[0].cost().bytes_stored <= 0:
        raise LawError(f"cost: the index built by {plan} takes no bytes")


def refusal(example: StageExample) -> None:
    """Parameters that do not fit are a ``ConfigError``: of a text, a size, or a point."""
    for wrong in example.refused:
        _refused(f"refusal: {wrong!r}", lambda text=wrong: Plan.parse(text).resolve(example.dim))  # type: ignore[misc]
    plan = Plan.parse(example.plan)
    for stage in plan.stages():
        for size in (0, example.dim + 1):
            _refused(f"refusal: {stage} at {size}", lambda s=stage, d=size: _resized(plan, s, d))  # type: ignore[misc]
    for name in {"nprobe", "ef"} - plan.parameters:
        given: dict[str, Any] = {name: 1}
        point = replace(example.widest(plan), **given)
        _refused(f"refusal: {name}=1 of {plan}", lambda p=point: plan.check_point(p))  # type: ignore[misc]


def damage(example: StageExample) -> None:
    """A file that lacks, or an array of another length, is an ``ArtifactError`` before it is read."""
    engine = example.engines[0]
    with _folder_of(engine) as folder:
        for path in sorted(folder.rglob("*.npy")):
            content = path.read_bytes()
            path.unlink()
            _refused(f"damage: without {path.name}", lambda: _load(folder, engine), ArtifactError)
            path.write_bytes(content)
        for name, array in read_arrays(folder).items():
            if len(array) == example.rows:
                write_array(folder / f"{name}.npy", array[:-1])
                _refused(f"damage: a shorter {name}", lambda: _load(folder, engine), ArtifactError)
                write_array(folder / f"{name}.npy", array)


def innocence(example: StageExample) -> None:
    """Equal seeds build equal engines; vectors, queries and the global random state do not change."""
    vectors, queries, before = example.vectors.copy(), example.queries.copy(), random_state()
    (rule, metric), engine = _SPACES[0], example.engines[0]
    if not _same(example.search(engine), example.search(example.build(rule, metric))):
        raise LawError(f"innocence: {_named(engine)} gives other results when built again with one seed")
    if random_state() != before:
        raise LawError(f"innocence: {_named(engine)} draws from the global random state")
    if not (np.array_equal(vectors, example.vectors) and np.array_equal(queries, example.queries)):
        raise LawError(f"innocence: {_named(engine)} changes its vectors or queries")


STAGE_LAWS = as_laws(text, truth, shortlists, filters, saved, sizes, cost, refusal, damage, innocence)
"""The laws one by one, for a parametrised test; :func:`check_stage` asks them all."""


def check_stage(plan: str, *, refused: Sequence[str] = (), tolerance: float = 1e-3) -> None:
    """Check a stage that was added to :data:`~nestling.search.stages.registry.STAGES`.

    Args:
        plan: text of a plan with the stage, for vectors of 32 entries, which finds the ground truth where
            everything is scanned. Let ``rerank@full`` end it where codes lose.
        refused: texts of the stage with parameters that do not exist or lie outside their range.
        tolerance: largest difference between scores that counts as equal.

    Raises:
        LawError: for the first law that is broken.
        ConfigError: for a plan that is no text, or cannot be read.

    >>> check_stage("ivf8@16 > flat@full", refused=["ivf@16", "ivf0@16"])
    """
    if not isinstance(plan, str):
        raise ConfigError(
            f'plan must be the text of a plan, such as "sign@full > rerank@full", not {shown(plan)}'
        )
    Plan.parse(plan)
    example = StageExample(plan, refused, tolerance=tolerance)
    for law in STAGE_LAWS:
        law(example)


def _named(engine: Engine) -> str:
    return f"{engine.plan} ({'cosine' if engine.rule.after == 'l2' else engine.metric})"


def _sizes(example: StageExample, engine: Engine) -> list[int]:
    """Sizes to search at: the full one, and a half and a quarter of it where codes can be cut to them."""
    return [d for part in (1, 2, 4) if (d := example.dim // part) >= engine.plan.smallest_dim]


def _check_candidates(
    example: StageExample, engine: Engine, dim: int, allowed: NDArray[np.bool_] | None
) -> None:
    """Hold the rows that the scan selects to their number, and to the filter."""
    built, length = engine.built(dim), example.shortlist
    chosen = None if allowed is None else Allowed(allowed, example.rows)
    with faiss_threads(1):
        point = example.narrow(built.plan)[0]
        rows, _ = built.plan.scan.open(built).search(example.queries, length, length, point, chosen)
    where = f"shortlists: the scan of {_named(engine)} at {dim} dims gives"
    if rows.shape != (_QUERIES, length) or rows.dtype.kind != "i" or (rows < 0).any():
        given = f"{rows.dtype} of shape {rows.shape}, {int((rows >= 0).sum())} of them rows"
        raise LawError(f"{where} {given}; {length} rows for each of {_QUERIES} queries are asked for")
    if rows.max() >= example.rows or any(len(np.unique(each)) < length for each in rows):
        raise LawError(f"{where} rows that do not exist, or one row twice: {rows[0]}")
    if allowed is not None and not allowed[rows].all():
        raise LawError(f"{where} rows that the filter forbids: {rows[0][~allowed[rows[0]]]}")


def _recall(
    example: StageExample, engine: Engine, dim: int, point: Point, allowed: NDArray[np.bool_] | None
) -> float:
    """Share of the nearest rows among the results at a point."""
    kept = np.arange(example.rows) if allowed is None else np.flatnonzero(allowed)
    options: Any = {"dim": dim, "rule": engine.rule, "metric": engine.metric}
    wanted = kept[nearest(example.queries, example.vectors[kept], _K, **options).indices]
    found = engine.search(example.queries, _K, point, dim=dim, allowed=allowed, workers=1).indices
    return float(np.mean([np.isin(each, of).mean() for each, of in zip(wanted, found, strict=True)]))


def _truth_of(example: StageExample, engine: Engine, dim: int) -> NDArray[Any] | None:
    """Ground truth at a size, of plans that end in what reads vectors as they are."""
    last = engine.plan.reranks[-1] if engine.plan.reranks else engine.plan.scan
    if str(last) not in (f"rerank@{example.dim}", f"flat@{example.dim}"):
        return None
    options: Any = {"dim": dim, "rule": engine.rule, "metric": engine.metric}
    return nearest(example.queries, example.vectors, _K, **options).scores


def _resized(plan: Plan, stage: Any, dim: int) -> Plan:
    """The plan, one of whose stages reads another size; of vectors that are one entry shorter than that."""
    full = max(1, dim - 1)
    return Plan.parse(
        " > ".join(str(replace(each, dim=dim) if each == stage else each) for each in plan.stages())
    ).resolve(full)


def _same(one: Neighbours, other: Neighbours) -> bool:
    return np.array_equal(one.indices, other.indices) and np.array_equal(
        one.scores, other.scores, equal_nan=True
    )


@contextmanager
def _folder_of(engine: Engine) -> Iterator[Path]:
    """The files that an engine saves."""
    with tempfile.TemporaryDirectory() as name:
        engine.save(name)
        yield Path(name)


def _load(folder: Path, engine: Engine) -> Engine:
    return Engine.load(folder, engine.vectors, engine.plan, engine.rule, engine.metric)


def _refused(case: str, action: Callable[[], Any], kind: type[Exception] = ConfigError) -> None:
    advice = f"raise a nestling.errors.{kind.__name__} that says what is wrong"
    check_refused(case, action, kind, advice, is_one=True)
