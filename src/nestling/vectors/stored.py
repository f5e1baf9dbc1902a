"""Stored vectors: existing embeddings, in memory or a file, checked once and used by row number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling._exports import old_names
from nestling.arguments.ids import Ids, as_ids, check_different
from nestling.arguments.paths import home_path
from nestling.axes import CODE_BITS
from nestling.bits import MOST_ROWS, halved
from nestling.cut import RAW, CutRule, check_vectors, cut, cut_each, name_rows
from nestling.data.tables.fields.columns import Columns, Kinds, parts_of, read_columns, write_columns
from nestling.elastic import Cost, resolve_each
from nestling.errors import DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.storage.artifact import open_array, read_folder, write_folder
from nestling.storage.npy import write_array
from nestling.vectors.matrix import Map, Sizes, Vectors, blocks_of, refuse_zero_rows
from nestling.vectors.planes import BitPlanes
from nestling.vectors.precision import (
    Precision,
    Values,
    check_encoder,
    check_saved,
    extracted,
    extracted_rule,
    full_nesting,
    held_at,
    open_values,
)

if TYPE_CHECKING:
    from nestling.vectors.vectors_like import VectorsLike

_KIND = "stored_vectors"
_IDS = "ids.npy"
_FIELDS = "fields"


class StoredVectors:
    """Checked vectors together with their sizes, cut rule, ids, fields and the name of their encoder.

    ``stored(rows, at=)`` gives the vectors of some rows at one size and precision. The matrix may be a memory
    map; nothing is copied before it is needed; saving and extracting work block by block. With a calibrated
    rule (:meth:`calibrated`) there is an axis ``bits``: ``stored.extract("dim=256,bits=8")`` holds codes.

    Args:
        values: ``Float[n, dim]``, before the cut rule.
        nesting: sizes on the axis ``dim``, the full one last; by default 8, 16, ... up to it.
        rule: steps around a cut.
        ids: n different integers or strings; None is none.
        encoder: name of the encoder, such as the name of a model.
        fields: of the rows, to be filtered by later: a mapping of names to columns, a data frame, or a list
            of one mapping per row.
        columns: names of the columns of the source table, by their part in it
            (``text``, ``id``, ``vector``).

    Attributes:
        is_nested: whether the sizes were given, by the caller or a folder; an index then has all of them.

    Raises:
        DataError: for another shape or type; rows with NaN or infinity, or (with ``l2`` after the cut)
            of zeros, named; ids or fields that are not of the rows; a code that was calibrated on vectors of
            another size or encoder.
        GranularityError: for a nesting that does not end at the full size, or names bits without a code.

    >>> stored = StoredVectors(np.array([[3.0, 4.0, 0.0], [0.0, 1.0, 1.0]]), "dim=2,3")
    >>> stored([0], at="dim=2")
    array([[0.6, 0.8]])
    """

    def __init__(
        self,
        values: ArrayLike,
        nesting: Sizes = None,
        rule: CutRule = CutRule(),
        *,
        ids: Sequence[int] | Sequence[str] | Ids | None = None,
        encoder: str = "",
        fields: Any = None,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        matrix = check_vectors(values)
        refuse_zero_rows(matrix, rule)
        sizes = full_nesting(nesting, matrix, rule)
        check_encoder(rule, encoder)
        names = None if ids is None else check_different(as_ids(ids), len(matrix))
        self._fill(matrix, sizes, rule, names, encoder, Columns.read(fields, len(matrix)), columns or {})
        self.is_nested = nesting is not None

    @classmethod
    def of(
        cls,
        given: VectorsLike,
        nesting: Sizes = None,
        rule: CutRule | None = None,
        *,
        ids: Any = None,
        encoder: str | None = None,
        fields: Any = None,
        kinds: Kinds | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> StoredVectors:
        """Checked vectors from what a caller gives: arrays are checked here, stored vectors were before.

        Args:
            given: an array, memory map, tensor or list of rows; or stored vectors, of which the other
                arguments replace what they name. For those see the class.
            nesting: None is that of stored vectors.
            rule: None is that of stored vectors, and cosines for others.
            ids: of the rows.
            encoder: name of the encoder of the vectors.
            fields: of the rows.
            kinds: type of each field, where the first rows do not determine it.
            columns: names of the columns of the source table, by their part in it.

        Raises:
            DataError: as the class.
            GranularityError: as the class.
        """
        if not isinstance(given, StoredVectors):
            found = cls(given, nesting, rule or CutRule(), ids=ids, encoder=encoder or "", columns=columns)
        elif (nesting, rule, ids, encoder, fields, kinds, columns) == (None,) * 7:
            return given
        else:
            found = given._with(nesting, rule, ids, encoder, columns)
        if fields is not None or kinds is not None:
            found.fields = Columns.read(found.fields if fields is None else fields, len(found), kinds)
        return found

    def _with(
        self,
        nesting: Sizes,
        rule: CutRule | None,
        ids: Any,
        encoder: str | None,
        columns: Mapping[str, str] | None,
    ) -> StoredVectors:
        """The same values with the arguments that are not None replaced; only these are checked."""
        if rule is not None and self.rule.after != "l2":
            refuse_zero_rows(self.values, rule)
        other = StoredVectors.__new__(StoredVectors)
        other._fill(
            self.values,
            self._nesting_under(rule)
            if nesting is None
            else full_nesting(nesting, self.values, rule or self.rule),
            self.rule if rule is None else rule,
            self.ids if ids is None else check_different(as_ids(ids), len(self)),
            self.encoder if encoder is None else encoder,
            self.fields,
            self.columns if columns is None else columns,
        )
        other.is_nested = self.is_nested or nesting is not None
        return other

    def _nesting_under(self, rule: CutRule | None) -> Nesting:
        """The nesting with the precisions of another rule."""
        if rule is None or rule.code == self.rule.code:
            return self.nesting
        return full_nesting(self.sizes, self.values, rule)

    def _fill(
        self,
        values: Values,
        nesting: Nesting,
        rule: CutRule,
        ids: Ids | None,
        encoder: str,
        fields: Columns,
        columns: Mapping[str, str],
    ) -> Self:
        self.values, self.nesting, self.rule, self.ids, self.encoder = values, nesting, rule, ids, encoder
        self.fields, self.columns, self.is_nested = fields, dict(columns), True
        return self

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        held = Precision.of(self.values)
        of_codes = (
            f"{len(self)} in codes of {held.bits} bits, {held.row_bytes(self.values.shape[1])} bytes each"
        )
        shape = of_codes if held.is_code else f"{len(self)} of {self.values.dtype}"
        return f"StoredVectors({shape}, {str(self.nesting)!r}, {self.rule}, encoder={self.encoder!r})"

    def __call__(self, rows: ArrayLike, /, at: At = None) -> Vectors:
        """Vectors ``Float[rows, dim]`` of the rows with these numbers, treated by the rule.

        Raises:
            DataError: for unknown row numbers, or rows whose leading entries are zero.
        """
        return self._at(self._check(rows), self.nesting.resolve(at))

    def forward_each(
        self, rows: ArrayLike, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Vectors]:
        """Vectors at several sizes; the rows are read once."""
        numbers, by_bits = self._check(rows), defaultdict(list)
        wanted = resolve_each(self.nesting, granularities)
        for g in wanted:
            by_bits[g.get("bits", 32)].append(g["dim"])
        found = {bits: self._each(numbers, dims, bits) for bits, dims in by_bits.items()}
        return {g: found[g.get("bits", 32)][g["dim"]] for g in wanted}

    def blocks(self, at: At = None) -> Iterator[Vectors]:
        """All vectors in order, some thousands at a time, at one size and treated by the rule."""
        granularity = self.nesting.resolve(at)
        for rows in blocks_of(self.values):
            yield self._at(rows, granularity)

    def matrix(self, at: At = None) -> Vectors:
        """All vectors at one size, ``Float[n, dim]``; where the rule does nothing, a view of them."""
        granularity = self.nesting.resolve(at)
        if self.rule == RAW:
            return cut(self.values, granularity["dim"], RAW)
        blocks = self.blocks(at)
        first = next(blocks)
        values = np.empty((len(self), first.shape[1]), first.dtype)
        for rows, block in zip(blocks_of(self.values), chain([first], blocks), strict=True):
            values[rows] = block
        return values

    @property
    def sizes(self) -> Nesting:
        """The sizes on the axis ``dim``, without precisions."""
        return self.nesting.without("bits") if "bits" in self.nesting.axes else self.nesting

    def calibrated(self, sample: ArrayLike | None = None) -> StoredVectors:
        """These vectors with the axis ``bits``: the rule gets a code that fits them.

        Args:
            sample: ``Float[n, dim]``, vectors such as those that will be stored, before the cut rule; by
                default at most 65,536 of these.

        Raises:
            DataError: for vectors that are held in codes already, or a sample of another size.
        """
        if isinstance(self.values, BitPlanes):
            raise DataError(
                "these vectors are held in codes already; calibrate the floats that they were made from"
            )
        some = self.values[:: -(-len(self) // MOST_ROWS)] if sample is None else sample
        return self._with(None, self.rule.calibrated(some, encoder=self.encoder), None, None, None)

    def extract(self, at: At, folder: str | Path | None = None) -> StoredVectors:
        """The leading entries alone.

        Args:
            at: number of leading entries, or a granularity.
            folder: write them there, block by block, and read them from it as a memory map; None holds
                them in memory.
        """
        granularity = held_at(self.nesting, self.values, at)
        nesting, rule = extracted(self.nesting, granularity), extracted_rule(self.rule, granularity)
        precision = Precision.of(self.values).at(granularity)
        blocks = self._prepared(granularity["dim"], precision)
        if folder is not None:
            self._write(folder, blocks, nesting, rule, precision, self.encoder)
            small = StoredVectors.load(folder)
        else:
            values = precision.join(blocks, (len(self), granularity["dim"]), rule)
            ids = None if self.ids is None else self.ids.copy()
            small = StoredVectors.__new__(StoredVectors)
            small._fill(values, nesting, rule, ids, self.encoder, self.fields, self.columns)
        small.is_nested = self.is_nested
        return small

    def mapped(self, by: Map, folder: str | Path, *, encoder: str | None = None) -> StoredVectors:
        """These vectors under a map, written to a folder block by block and read from it as a memory map.

        Args:
            by: the map; the result has its nesting and rule. Extract it first to keep fewer entries.
            folder: target folder.
            encoder: name of the encoder of the result; by default this encoder and the name of the map.
        """
        name = " + ".join(filter(None, (self.encoder, type(by).__name__))) if encoder is None else encoder
        values = (by.transform(self.values[rows]).astype(np.float32) for rows in blocks_of(self.values))
        blocks = (check_vectors(block, "mapped vectors") for block in values)
        floats = Precision(np.dtype(np.float32), 32)
        precisions = floats.precisions(by.rule)
        nesting = by.nesting.times(bits=precisions) if precisions else by.nesting
        self._write(folder, blocks, nesting, by.rule, floats, name)
        return StoredVectors.load(folder)

    def with_table(self, ids: Ids | None, fields: Any, columns: Mapping[str, str]) -> StoredVectors:
        """These vectors with the fields of a table and, where it has any, its ids; see the class."""
        found = self._with(None, None, ids, None, columns)
        found.fields = Columns.read(fields, len(self))
        return found

    def cost(self, at: At = None) -> Cost:
        """Bytes of the vectors at one size, all and one; nothing is computed."""
        granularity = self.nesting.resolve(at)
        one = Precision.of(self.values).at(granularity).row_bytes(granularity["dim"])
        return Cost(size_bytes=len(self) * one, output_bytes=one)

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder."""
        held, rows = self.values, blocks_of(self.values)
        blocks = (held.codes(each) if isinstance(held, BitPlanes) else held[each] for each in rows)
        self._write(folder, blocks, self.nesting, self.rule, Precision.of(held), self.encoder)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote; the vectors stay on disk as a memory map."""
        manifest, root = read_folder(folder, _KIND), home_path(folder)
        nesting, rule, settings = manifest.read_nesting(), manifest.read_cut(), manifest.settings
        values = open_values(root, rule, settings.get("bits"))
        check_saved(root, nesting, values, rule)
        ids = open_array(root / _IDS) if _IDS in manifest.files else None
        fields = read_columns(root / _FIELDS, settings.get("fields", {}), len(values))
        return cls.__new__(cls)._fill(
            values, nesting, rule, ids, settings["encoder"], fields, settings.get("columns", {})
        )

    def _write(
        self,
        folder: str | Path,
        blocks: Iterable[NDArray[Any]],
        nesting: Nesting,
        rule: CutRule,
        precision: Precision,
        encoder: str,
    ) -> None:
        bits = precision.bits if precision.is_code else None
        of_table = {"fields": self.fields.kinds, "columns": self.columns, "bits": bits}
        settings = {"encoder": encoder, **{name: value for name, value in of_table.items() if value}}
        with write_folder(folder, _KIND, nesting=nesting, rule=rule, settings=settings) as path:
            precision.write(path, blocks, (len(self), nesting.full["dim"]))
            if self.ids is not None:
                write_array(path / _IDS, self.ids)
            if self.fields.by_name:
                write_columns(path / _FIELDS, parts_of(self.fields), self.fields.kinds)

    def _check(self, rows: ArrayLike) -> NDArray[Any]:
        numbers = np.asarray(rows)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise DataError(
                f"rows must be a list of row numbers, not {numbers.dtype} of shape {numbers.shape}"
            )
        wrong = numbers[(numbers < 0) | (numbers >= len(self))]
        if len(wrong):
            raise DataError(
                f"there is no {name_rows(wrong)}; the {len(self)} rows are numbered 0 to {len(self) - 1}"
            )
        return numbers

    def _at(self, rows: slice | NDArray[Any], granularity: Granularity) -> Vectors:
        dim = granularity["dim"]
        return self._each(rows, [dim], granularity.get("bits", 32))[dim]

    def _each(self, rows: slice | NDArray[Any], dims: Sequence[int], bits: int) -> dict[int, Vectors]:
        """Rows at several sizes of one precision; they are read once."""
        if isinstance(self.values, BitPlanes):
            return cut_each(self.values.read(rows, max(dims), bits), dims, self.rule)
        if bits in CODE_BITS:
            return cut_each(self.values[rows], dims, self.rule, bits=bits)
        if bits >= Precision.of(self.values).bits:
            bits = 32  # they are held in so many
        found = self._read(rows, self.values.shape[1] if bits < 32 else max(dims))
        if "bits" in self.nesting.axes:
            found = found.astype(np.float32, copy=False)
        return cut_each(found, dims, self.rule, bits=bits)

    def _whole(self, rows: slice) -> Vectors:
        """Vectors as codes and halves are made of them."""
        return cut(self.values[rows], self.values.shape[1], self.rule.without_code)

    def _read(self, rows: slice | NDArray[Any], dim: int) -> Vectors:
        """Floats as they are stored; only the entries that a cut to ``dim`` needs."""
        found: Vectors = (self.values if self.rule.before != "none" else cut(self.values, dim, RAW))[rows]
        return found

    def _prepared(self, dim: int, precision: Precision) -> Iterator[NDArray[Any]]:
        """The leading entries of all rows as they will be held, before what comes after a cut."""
        for rows in blocks_of(self.values):
            if isinstance(self.values, BitPlanes):
                yield self.values.codes(rows, dim, precision.bits)
            elif precision.is_code:
                yield self.rule.encode(self.values[rows], dim)
            elif precision.bits < Precision.of(self.values).bits:
                yield cut(halved(self._whole(rows)), dim, RAW)
            else:
                yield cut(self._read(rows, dim), dim, CutRule(self.rule.before, "none"))


__getattr__ = old_names(__name__, {"open_vectors": "nestling.vectors.opening.open_vectors"})
