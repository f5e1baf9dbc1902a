"""The specification of an index as one value: plan, sizes, cut rule, metric, encoder, fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from nestling.arguments.constraints import check
from nestling.cut import CutRule
from nestling.data.tables.fields.columns import Kinds
from nestling.data.tables.fields.kinds import check_kinds
from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.tiles import METRIC
from nestling.search.plan.plan import Plan
from nestling.search.stages.registry import sliceable_names
from nestling.vectors.matrix import Sizes, read_full_sizes
from nestling.vectors.stored import StoredVectors


@dataclass(frozen=True)
class IndexSpec:
    """Everything that defines an index besides its rows.

    Args:
        plan: of searches; its sizes are numbers.
        nesting: sizes the index is searched at; the full one is that of the vectors.
        rule: steps around a cut.
        metric: of comparisons.
        encoder: name of the encoder of the vectors; "" is unknown.
        seed: of all random choices while building.
        fields: of the rows, each with its type.
        columns: names of the columns of the source table.
    """

    plan: Plan
    nesting: Nesting
    rule: CutRule
    metric: Metric
    encoder: str
    seed: int
    fields: Kinds
    columns: Mapping[str, str]

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self.nesting.full["dim"]

    @classmethod
    def of(
        cls,
        rows: StoredVectors | None,
        *,
        plan: Plan | str,
        dim: int | None,
        nesting: Sizes,
        rule: CutRule | None,
        metric: Metric,
        encoder: str | None,
        seed: int,
        kinds: Kinds | None,
        columns: Mapping[str, str] | None,
    ) -> Self:
        """The specification from arguments; the first rows say what is left open.

        Args:
            rows: the first; None where there are none yet.
            plan: or its text.
            dim: of rows to come.
            nesting: required sizes; None takes those of the rows at which the plan can be searched.
            rule: of rows to come.
            metric: of comparisons.
            encoder: of rows to come.
            seed: of all random choices while building.
            kinds: of the fields of rows to come.
            columns: of their table.

        Raises:
            ConfigError: for an unknown metric, or a plan that does not fit the rows or the sizes.
            DataError: for rows of another size than ``dim``, or unknown kinds of fields.
            GranularityError: for sizes that do not end at the full one.
        """
        check("metric", metric, METRIC)
        if kinds is not None:
            check_kinds(kinds)
        full = dim if rows is None else rows.values.shape[1]
        if full is None:
            raise ConfigError("an index without vectors needs to know their size; give dim=")
        if dim not in (None, full):
            raise DataError(f"the vectors have {full} entries a row, but {dim} are expected")
        chosen = Plan.parse(plan) if isinstance(plan, str) else plan
        if rows is not None:
            _check_lists(chosen, len(rows))
        resolved = chosen.resolve(full)
        sizes = read_full_sizes(rows.sizes if nesting is None and rows is not None else nesting, full)
        if rows is not None:  # the rows took the arguments in already
            rule, encoder, columns = rows.rule, rows.encoder, rows.columns
            kinds = rows.fields.kinds if kinds is None else kinds
        return cls(
            resolved,
            _searchable(sizes, resolved, is_asked=nesting is not None),
            rule or CutRule(),
            metric,
            encoder or "",
            seed,
            dict(kinds or {}),
            dict(columns or {}),
        )


def _check_lists(plan: Plan, rows: int) -> None:
    """A plan that the first rows cannot fill is a mistake; later segments may be smaller."""
    if plan.coarse is None:
        return
    try:
        plan.coarse.check_rows(rows)
    except ConfigError as error:
        raise ConfigError(f"{error}, or make the index empty with dim= and add to it") from error


def _searchable(sizes: Nesting, plan: Plan, *, is_asked: bool) -> Nesting:
    """The sizes at which the plan can be searched: not below the size of codes that mix entries, or certify.

    Sizes that came with the vectors are possible ones; only sizes given as an argument are required.
    """
    smallest = plan.smallest_dim
    large = [size for size in sizes.sizes("dim") if size >= smallest]
    if is_asked and len(large) < len(sizes):
        reason = (
            f"the code {plan.scan} mixes" if plan.certify is None else f"{plan.certify} proves results of"
        )
        raise ConfigError(
            f"{reason} {smallest} entries, so that sizes below cannot be searched; leave them out of the "
            f"nesting {sizes}, or scan with {', '.join(sliceable_names())}{' only' if plan.certify else ''}"
        )
    return Nesting.chain(dim=large)
