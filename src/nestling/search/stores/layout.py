"""The layout of a table of vectors: stored in the database itself, and checked on open."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import Field, ValidationError

from nestling.arguments.constraints import OneOf, check
from nestling.arguments.formatting import shown
from nestling.axes import FLOAT_BITS
from nestling.cut import CutRule
from nestling.data.tables.fields.kinds import FieldKind
from nestling.encoders.reference import same_encoder
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError, unknown
from nestling.granularity import Nesting
from nestling.kernels.planes import packed
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.tiles import METRIC
from nestling.search.index.files.ids import IdKind
from nestling.search.stores.results import Bytes, Floats
from nestling.storage.schema import SavedFields, check_schema

SCHEMA_VERSION = 3  # 1 had no fields, 2 no precisions
_COSINE = CutRule()
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


@dataclass(frozen=True)
class Layout:
    """Sizes, cut rule, metric and encoder of the vectors of one table.

    Args:
        nesting: sizes the vectors were trained for, on the axis ``dim``; the last is the full size. Text such
            as ``"dim=64,256"`` is read.
        shortlist_dim: size of the first stage of a search, one of the nesting's.
        rerank_dims: further sizes that a re-rank may stop at; the full one is always kept.
        rule: steps around a cut; ``l2`` after it makes ``"dot"`` the cosine.
        metric: ``"dot"`` (largest first) or ``"euclidean"`` (smallest distance first).
        ids: whether rows are called by strings or by whole numbers.
        encoder: name of the encoder of the vectors; see :mod:`~nestling.encoders.reference`.
        fields: the metadata that rows may have, each with its kind: ``"int"``, ``"float"``, ``"bool"`` or
            ``"text"``. Their values are held to it, and ``optimize`` indexes them. Where none are declared,
            rows may have any.
        bits: of an entry: 32 or 16 (half precision).
        shortlist_bits: of an entry in the first stage: the same, or 1. One bit says on which side of the
            mean of the rule's code (:meth:`CutRule.calibrated`) an entry lies; rows and queries are compared
            by Hamming distance.

    Raises:
        GranularityError: for sizes that are not of the nesting, or another axis than ``dim``.
        ConfigError: for an unknown metric, kind of ids, kind of a field or precision.
        DataError: for a shortlist of one bit under a rule without a code.

    >>> Layout(Nesting.chain(dim=(64, 256, 768)), 64).dims
    (64, 768)
    """

    nesting: Nesting
    shortlist_dim: int
    rerank_dims: tuple[int, ...] = ()
    rule: CutRule = _COSINE
    metric: Metric = "dot"
    ids: IdKind = "str"
    encoder: str = ""
    fields: Mapping[str, FieldKind] = field(default_factory=dict, hash=False)
    bits: int = 32
    shortlist_bits: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "nesting", Nesting.of(self.nesting))
        self.nesting.within("a table of vectors", dim=None)
        object.__setattr__(self, "rerank_dims", tuple(self.rerank_dims))
        for size in (self.shortlist_dim, *self.rerank_dims):
            self.nesting.resolve(size)
        if min((self.shortlist_dim, *self.rerank_dims)) < self.shortlist_dim:
            raise GranularityError(
                f"rerank_dims {list(self.rerank_dims)} must not be below shortlist_dim={self.shortlist_dim}"
            )
        check("metric", self.metric, METRIC)
        check("ids", self.ids, OneOf(get_args(IdKind)))
        self._check_bits()
        object.__setattr__(self, "fields", dict(self.fields))
        for name, kind in self.fields.items():
            if kind not in get_args(FieldKind):
                raise ConfigError(unknown(f"kind of the field {name!r}", kind, get_args(FieldKind)))

    def _check_bits(self) -> None:
        if self.shortlist_bits is None:
            object.__setattr__(self, "shortlist_bits", self.bits)
        _check_one_of("bits", self.bits, FLOAT_BITS)
        _check_one_of("shortlist_bits", self.shortlist_bits, (1, self.bits))
        if self.has_codes:
            self.rule.needed_code.check_size(self.dim)

    @property
    def has_codes(self) -> bool:
        """Whether the first stage compares codes of one bit."""
        return self.shortlist_bits == 1

    @property
    def dim(self) -> int:
        """The full size."""
        return self.nesting.full["dim"]

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes that are kept in ``bits``, rising to the full one."""
        shortlist = () if self.has_codes else (self.shortlist_dim,)
        return tuple(sorted({*shortlist, *self.rerank_dims, self.dim}))

    def codes(self, x: Floats, rule: CutRule) -> Bytes | None:
        """Codes of a first stage that compares bits, ``UInt8[n, bytes]``, eight to a byte; None for others.

        Args:
            x: ``Float[n, dim]``, whole vectors.
            rule: steps before a cut that are still to be done.
        """
        if not self.has_codes:
            return None
        whole = self.rule if rule.before == self.rule.before else self.rule.again
        return packed(whole.encode(x, self.shortlist_dim), 1)[0]

    def to_text(self) -> str:
        """The layout as one line of JSON, as the database holds it."""
        record = _Record(
            nestling_store=SCHEMA_VERSION,
            nesting=str(self.nesting),
            shortlist_dim=self.shortlist_dim,
            rerank_dims=self.rerank_dims,
            cut=self.rule.to_json(),
            metric=self.metric,
            ids=self.ids,
            encoder=self.encoder,
            fields=dict(self.fields),
            bits=self.bits,
            shortlist_bits=self.shortlist_bits,
        )
        return record.model_dump_json()

    @classmethod
    def from_text(cls, text: str | None, where: str) -> Layout:
        """Read what ``to_text`` wrote.

        Raises:
            ArtifactError: for a table that nestling did not make, or a newer nestling did.
        """
        try:
            raw: Any = json.loads(text or "")
        except ValueError as error:
            raise ArtifactError(
                f"{where} was not made by nestling; choose another name, or copy its vectors into a new one"
            ) from error
        check_schema(raw, "nestling_store", SCHEMA_VERSION, f"{where} was made")
        try:
            record = _Record.model_validate(raw)
            rule = CutRule.from_json(record.cut)
            return cls(
                Nesting.parse(record.nesting),
                record.shortlist_dim,
                record.rerank_dims,
                rule,
                record.metric,
                record.ids,
                record.encoder,
                record.fields,
                record.bits,
                record.shortlist_bits,
            )
        except (ValidationError, ConfigError, GranularityError, DataError, TypeError) as error:
            raise ArtifactError(f"{where} keeps a malformed layout: {error}") from error


class _Record(SavedFields):
    nestling_store: int
    nesting: str
    shortlist_dim: int
    rerank_dims: tuple[int, ...]
    cut: dict[str, Any]
    metric: Metric
    ids: IdKind
    encoder: str
    fields: dict[str, FieldKind] = Field(default_factory=dict)
    bits: int = 32
    shortlist_bits: int | None = None


def check_identity(layout: Layout, where: str, *, encoder: str | None, rule: CutRule | None) -> None:
    """Refuse to use vectors with another encoder or cut rule than they were made with.

    Raises:
        ConfigError: with the command that makes a table with the wanted layout.
    """
    remedy = "fill a new table for the other one: nestling index export INDEX --to URL"
    if encoder is not None and not same_encoder(encoder, layout.encoder):
        raise ConfigError(
            f"{where} holds vectors of the encoder {layout.encoder!r}, not of {encoder!r}: distances between "
            f"the two mean nothing. Open it with encoder={layout.encoder!r}, or {remedy}"
        )
    if rule is not None and not same_rule(rule, layout.rule):
        raise ConfigError(
            f"{where} holds vectors cut by {layout.rule}, not by {rule}. Open it with the first, or {remedy}"
        )


def _check_one_of(name: str, given: Any, allowed: tuple[int, ...]) -> None:
    if isinstance(given, bool) or given not in allowed:
        raise ConfigError(f"{name}={shown(given)} must be one of {', '.join(map(str, allowed))}")


def same_rule(a: CutRule, b: CutRule) -> bool:
    """Whether two rules cut alike; a code counts only where both have one."""
    is_known = a.code is not None and b.code is not None
    return (a.before, a.after) == (b.before, b.after) and (not is_known or a.code == b.code)


def check_name(name: str) -> str:
    """``name`` if it is a name in all four databases and in none of them anything else.

    Raises:
        ConfigError: for anything but letters, digits and underscores, or a digit first.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a table cannot be called {name!r}; use 1 to 48 of the letters a-z and A-Z, digits and _, "
            "not a digit first"
        )
    return name
