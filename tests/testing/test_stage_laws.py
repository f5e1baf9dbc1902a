"""Every built-in stage keeps every law, each law finds what breaks it, and a stage is added in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.filters import Allowed, keep_allowed
from nestling.search.index.index import AdaptiveIndex
from nestling.search.plan.plan import Plan, Point
from nestling.search.stages import STAGES, Scan, StageText
from nestling.search.stages.building import Builder, Built, CoarseBuilder, Scanner, Task
from nestling.search.stages.kinds.flat import Flat
from nestling.search.tuning.planner import tune
from nestling.storage.resumable import Arrays, ResumableArrays
from nestling.testing import STAGE_LAWS, LawError, StageExample, check_stage

BUILT_IN = {
    "flat": StageExample("flat@full", ["flat8@16", "flat:int8@16", "flat16"]),
    "fp16": StageExample("fp16@24 > rerank@full", ["fp168@16"]),
    "int8": StageExample("int8@full > rerank@full", ["int8x4@16"]),
    "int4": StageExample("int4@full > rerank@full", ["int4@15"]),
    "bits": StageExample(
        "bits2@full > rerank@full", ["bits@16", "bits5@16", "bits2x4@16", "bits2:binary@16", "bits1:both@16"]
    ),
    "bits and more bits": StageExample("bits1@16 > rerank:bits4@24 > rerank:bits8@full > rerank@full"),
    "bits on both sides": StageExample("bits1:binary@full > rerank:bits8@full > rerank@full"),
    "pq": StageExample("pq8x4@16 > rerank@full", ["pq8@16", "pq8x5@16", "pq0x4@16", "pq5x4@16", "pq@16"]),
    "opq": StageExample("opq4x4@full > rerank@full", ["opq4x16@16", "opq3x4@16"]),
    "rabitq": StageExample("rabitq@full > rerank@full", ["rabitq8@16"]),
    "graph": StageExample("graph16@full > rerank:int8@full > rerank@full", ["graph@16", "graph4@16"]),
    "ivf": StageExample("ivf8@16 > flat@full", ["ivf@16", "ivf0@16", "ivf8x4@16"]),
    "ivf of relative codes": StageExample("ivf8@16 > rabitq@full > rerank@full"),
    "hnsw": StageExample("hnsw32@full > int8@full > rerank@full", ["hnsw@16", "hnsw1@16"]),
    "rerank": StageExample("flat@8 > rerank@16 > rerank@full", ["rerank8@16", "rerank:int3@16"]),
    "rerank by copies": StageExample("flat@8 > rerank:int8@16 > rerank:fp16@24 > rerank@full"),
    "rerank by bits": StageExample("int8@16 > rerank:bits3@24 > rerank@full", ["rerank:bits5@16"]),
    "certify": StageExample("int4@full > certify@full", ["certify@16"]),
}  # fmt: skip


@pytest.mark.parametrize("law", STAGE_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_laws_hold(name: str, law: Callable[[StageExample], None]) -> None:
    law(BUILT_IN[name])


def test_no_kind_is_left_out() -> None:
    assert {name.split()[0] for name in BUILT_IN} == set(STAGES)


# A stage of somebody else: some bits an entry, the digits behind the sign.


@dataclass(frozen=True)
class Rounded(Scan):
    """Entries in so many steps of the largest one; compared by numpy."""

    name = "rounded"
    is_sliceable = True

    steps: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= 127:
            raise ConfigError(f"{self} has {self.steps} steps; choose 2 to 127")

    @classmethod
    def parse(cls, text: StageText) -> Self:
        return cls(text.dim, steps=text.only(needs_count=True).count or 0)

    def _settings(self) -> str:
        return str(self.steps)

    def row_bytes(self, dim: int) -> int:
        return dim

    def begin(self, task: Task, journal: ResumableArrays, coarse: CoarseBuilder) -> Builder:
        def learn() -> Arrays:
            return {"scale": np.abs(task.sample(1000, self.size)).max(axis=0) / self.steps}

        return RoundedBuilder(self, task, journal.once("rounded", learn)["scale"])

    def lengths(self, built: Built, number: int) -> dict[str, int | None]:
        return {"codes": built.rows, "rounded.scale": built.whole.scan.size}

    def open(self, built: Built) -> Scanner:
        return RoundedScanner(self, built)

    def extract(self, built: Built, number: int) -> Arrays:
        scale, codes = built.arrays["rounded.scale"], built.arrays["codes"]
        return {"codes": cut(codes, self.size, RAW).copy(), "rounded.scale": scale[: self.size].copy()}


class RoundedBuilder(Builder):
    def __init__(self, stage: Rounded, task: Task, scale: Any) -> None:
        self.stage, self.space, self.scale = stage, task.space, scale
        self.kinds = {"codes": (np.int8, stage.size)}

    def encode(self, values: Any, start: int, made: Arrays) -> Arrays:
        prefixes = self.space.prefix(values, self.stage.size, "vectors", start)
        return {"codes": np.clip(np.rint(prefixes / self.scale), -127, 127).astype(np.int8)}


class RoundedScanner(Scanner):
    def __init__(self, stage: Rounded, built: Built) -> None:
        self.space, self.dim = built.space, stage.size
        self.rows = built.arrays["codes"][:, : stage.size] * built.arrays["rounded.scale"][: stage.size]

    def search(self, queries: Any, k: int, least: int, point: Point, allowed: Allowed | None) -> Any:
        asked = self.space.prefix(queries, self.dim, "queries")
        scores = self.space.compare(asked, np.tile(self.rows, (len(asked), 1, 1)))
        every = np.tile(np.arange(len(self.rows)), (len(asked), 1))
        wanted = k if allowed is None else len(self.rows)
        rows, scores = self.space.best_first(every, scores, wanted)
        if allowed is not None:
            rows, places = keep_allowed(rows, allowed.mask, k, 0)
            scores = np.take_along_axis(scores, places, 1)
        return rows, np.asarray(scores, np.float32)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, Rounded.name, Rounded)  # the one line


@pytest.mark.usefixtures("rounded")
def test_a_stage_of_others_is_a_file_and_a_line(tmp_path: Path) -> None:
    check_stage("rounded100@full > rerank@full", refused=["rounded@16", "rounded1@16", "rounded9x2@16"])
    example = StageExample("rounded100@full", rows=600)
    vectors, queries = example.vectors, example.queries
    engine = build("rounded100@full", vectors, folder=tmp_path)
    engine.save(tmp_path)
    again = Engine.load(tmp_path, vectors, engine.plan, CutRule())
    exact = build("flat@full", vectors)
    for dim in (32, 16):
        truth = exact.search(queries, 10, dim=dim)
        for each in (engine, again, engine.extract(dim)):
            found = each.search(queries[:, :dim], 10, dim=dim)
            pairs = zip(found.indices, truth.indices, strict=True)
            assert np.mean([len(np.intersect1d(*pair)) for pair in pairs]) > 9
    assert Plan.parse("rounded9@16 > rerank@full").cost(1000, 32).bytes_stored == 16_000
    trial, frontier = tune(
        vectors, queries=queries, plans=["rounded9@16 > rerank@full", "rounded100@full"], recall=0.9
    )
    assert {str(each.plan) for each in frontier} >= {"rounded9@16 > rerank@full"}
    assert trial.recall >= 0.9
    with AdaptiveIndex.create(
        tmp_path / "index", vectors, plan="rounded100@full", nesting="dim=16,32"
    ) as index:
        index.extract("dim=16", tmp_path / "small")
    with AdaptiveIndex.open(tmp_path / "small") as small:
        assert (small.search(vectors[:5, :16], 1).ids[:, 0] == np.arange(5)).all()


def test_without_the_line_it_is_unknown() -> None:
    with pytest.raises(ConfigError, match="rounded"):
        Plan.parse("rounded9@16 > rerank@full")


BROKEN: dict[str, tuple[type[Any], str]] = {}


def broken(law: str, plan: str = "broken@full > rerank@full") -> Callable[[type[Any]], type[Any]]:
    def keep(kind: type[Any]) -> type[Any]:
        kind.name = "broken"
        BROKEN[law] = kind, plan
        return kind

    return keep


@broken("text")
@dataclass(frozen=True)
class WritesAnother(Flat):
    def __str__(self) -> str:
        return "flat@full"


@broken("truth", "broken@full")
@dataclass(frozen=True)
class ComparesLess(Flat):
    def open(self, built: Built) -> Scanner:
        scanner = Flat(self.size).open(built)
        return type("Backwards", (Scanner,), {"search": lambda _, q, *rest: scanner.search(-q, *rest)})()


@broken("cost")
@dataclass(frozen=True)
class CostsNothing(Flat):
    def operations(self) -> float:
        return -1.0

    def row_bytes(self, dim: int) -> int:
        return 0


@broken("refusal")
@dataclass(frozen=True)
class TakesAnything(Flat):
    @classmethod
    def parse(cls, text: StageText) -> Self:
        return cls(text.dim)


@broken("damage")
@dataclass(frozen=True)
class ReadsUnchecked(Flat):
    def lengths(self, built: Built, number: int) -> dict[str, int | None]:
        return {}


@broken("innocence")
@dataclass(frozen=True)
class DrawsGlobally(Flat):
    def begin(self, task: Task, journal: ResumableArrays, coarse: CoarseBuilder) -> Builder:
        np.random.rand()
        return super().begin(task, journal, coarse)


@pytest.mark.parametrize("law", BROKEN)
def test_each_law_finds_the_stage_that_breaks_it(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, plan = BROKEN[law]
    monkeypatch.setitem(STAGES, "broken", kind)
    with pytest.raises(LawError, match=f"^{law}:"):
        next(each for each in STAGE_LAWS if each.__name__ == law)(StageExample(plan, ["broken9@16"]))
