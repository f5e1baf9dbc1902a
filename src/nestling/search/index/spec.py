"""The specification of an index as one value: plan, sizes, cut rule, metric, encoder, fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from nestling.arguments.constraints import check
from nestling.axes import CODE_BITS, FLOAT_BITS
from nestling.cut import CutRule
from nestling.data.tables.fields.columns import Kinds
from nestling.data.tables.fields.kinds import check_kinds
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.tiles import METRIC
from nestling.search.plan.plan import Plan
from nestling.search.stages.registry import sliceable_names
from nestling.vectors.coding import size_and_bits
from nestling.vectors.matrix import Sizes, read_full_sizes
from nestling.vectors.planes import BitPlanes
from nestling.vectors.precision import extracted_rule
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
        sources: entries and cut rule of longer vectors, of which rows and queries keep the leading entries.
    """

    plan: Plan
    nesting: Nesting
    rule: CutRule
    metric: Metric
    encoder: str
    seed: int
    fields: Kinds
    columns: Mapping[str, str]
    sources: tuple[tuple[int, dict[str, Any]], ...] = ()

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return self.nesting.full["dim"]

    @classmethod
    def of(
        cls,
        rows: StoredVectors | None,
        *,
        at: At,
        plan: Plan | str | None,
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
            at: what is kept of each row; few bits need rows or a rule with a code.
            plan: or its text; None compares all rows exactly.
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
            GranularityError: for sizes that do not end at the full one, or an ``at`` that there is not.
        """
        check("metric", metric, METRIC)
        if kinds is not None:
            check_kinds(kinds)
        full = dim if rows is None else rows.values.shape[1]
        if full is None:
            raise ConfigError("an index without vectors needs to know their size; give dim=")
        if dim not in (None, full):
            raise DataError(f"the vectors have {full} entries a row, but {dim} are expected")
        if rows is not None:  # the rows took the arguments in already
            rule, encoder, columns = rows.rule, rows.encoder, rows.columns
            kinds = rows.fields.kinds if kinds is None else kinds
        rule = rule or CutRule()
        given = rows.sizes if nesting is None and rows is not None else nesting
        sizes = read_full_sizes(given, full)
        kept = _kept(rows, sizes, rule, at)
        dim, bits = kept["dim"], kept["bits"] if kept["bits"] in CODE_BITS else None
        chosen = _plan_of(plan, bits)
        if rows is not None:
            _check_lists(chosen, len(rows))
        resolved = chosen.resolve(dim)
        sizes = _searchable(sizes.up_to(kept.replace(bits=None)), resolved, is_asked=nesting is not None)
        if bits is not None:
            resolved.check_held(bits)
            sizes = sizes.times(bits=[each for each in CODE_BITS if each <= bits])
        return cls(
            resolved,
            sizes,
            rule if dim == full else extracted_rule(rule, kept),
            metric,
            encoder or "",
            seed,
            dict(kinds or {}),
            dict(columns or {}),
            () if dim == full else ((full, rule.without_code.to_json()),),
        )


def _kept(rows: StoredVectors | None, sizes: Nesting, rule: CutRule, at: At) -> Granularity:
    """What is kept of each row: dims, and bits, which are 32 for floats."""
    if rows is not None and isinstance(rows.values, BitPlanes):
        return sizes.times(bits=rows.nesting.sizes("bits")).resolve(at)
    size, bits = size_and_bits(sizes, at)
    check_kept(bits)
    if bits in CODE_BITS and rule.code is None:
        raise ConfigError(
            f"at={at!r} needs a code, and there are no vectors yet to calibrate it on; give some, or a rule "
            "with a code: CutRule().calibrated(sample)"
        )
    return size.replace(bits=bits)


def check_kept(bits: int, plan: Plan | None = None) -> None:
    """Refuse a precision in which no index keeps rows, or a plan that cannot search it.

    Raises:
        ConfigError: for half precision, or a plan that needs floats where codes are kept.
    """
    if bits == min(FLOAT_BITS):
        raise ConfigError(
            f"an index keeps floats of {max(FLOAT_BITS)} bits, or codes of {', '.join(map(str, CODE_BITS))}, "
            f"not of {bits}; leave out bits={bits}, or choose a code"
        )
    if bits in CODE_BITS and plan is not None:
        plan.check_held(bits)


def _plan_of(given: Plan | str | None, bits: int | None) -> Plan:
    """The plan of an argument; by default an exact scan."""
    if given is None:
        return Plan.parse("flat@full" if bits is None else f"bits{bits}@full")
    return Plan.parse(given) if isinstance(given, str) else given


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
