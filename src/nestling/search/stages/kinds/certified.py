"""``certify@full``: score rows until error bounds rule out every row not scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.errors import ConfigError
from nestling.search.certified.scan import CertifiedScan
from nestling.search.exact.filters import Allowed
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.space import Floats, Ints
from nestling.search.stages.kinds.scalar import Int4
from nestling.search.stages.stage import Stage, StageText

if TYPE_CHECKING:
    from nestling.search.plan.plan import Plan
    from nestling.search.plan.point import Point

_FOLDER = "certified"


@dataclass(frozen=True)
class Certify(Stage):
    """Ends a plan that scans 4-bit codes of full size: error bounds prove that no neighbour was missed."""

    name = "certify"

    @classmethod
    def parse(cls, text: StageText) -> Self:
        """See :class:`~nestling.search.stages.stage.Stage`."""
        if text.only().dim is not None:
            raise ConfigError(f"{text.text!r} can only certify the full size; write certify@full")
        return cls()

    def build(
        self, plan: Plan, vectors: NDArray[Any], rule: CutRule, metric: Metric, seed: int
    ) -> CertifiedPipeline:
        """Code the vectors of a plan that this stage ends.

        Raises:
            ConfigError: for a code that has no bounds, or one of a prefix.
        """
        if plan.scan != Int4(vectors.shape[1]):
            raise ConfigError(
                f"{plan} cannot be certified: bounds are known for int4@full; write int4@full > certify@full"
            )
        scan = CertifiedScan.build(vectors, rule=CutRule(after=rule.after), metric=metric, seed=seed)
        return CertifiedPipeline(plan, scan, len(vectors))

    def load(self, plan: Plan, vectors: NDArray[Any], folder: Path) -> CertifiedPipeline:
        """Read what :meth:`CertifiedPipeline.save` wrote."""
        return CertifiedPipeline(plan, CertifiedScan.load(folder / _FOLDER, vectors), len(vectors))


class CertifiedPipeline:
    """Searches by a certified plan, at full size.

    Args:
        plan: with sizes as numbers.
        scan: finds the rows.
        rows: number of rows.
    """

    def __init__(self, plan: Plan, scan: CertifiedScan, rows: int) -> None:
        self.plan, self._scan, self._rows = plan, scan, rows
        self.whole = None  # no single call that checks the queries itself

    def save(self, folder: Path) -> None:
        """Write the codes below ``folder``."""
        (folder / _FOLDER).mkdir(exist_ok=True)
        self._scan.save(folder / _FOLDER)

    def search(
        self, queries: Floats, k: int, point: Point, allowed: Allowed | None, workers: int | None
    ) -> tuple[Ints, Floats]:
        """Rows ``Int[queries, k]``, -1 where there are fewer, and their scores."""
        mask = None if allowed is None else allowed.mask
        found = self._scan.search(
            queries, min(k, self._rows), confidence=point.confidence, allowed=mask, workers=workers
        )
        if k <= self._rows:
            return found.indices, found.scores
        missing = ((0, 0), (0, k - self._rows))
        return np.pad(found.indices, missing, constant_values=-1), np.pad(found.scores, missing)
