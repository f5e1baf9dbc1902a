"""Stored vectors: existing embeddings, in memory or a file, checked once and used by row number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.ids import Ids, as_ids, check_different
from nestling.arguments.paths import home_path
from nestling.cut import RAW, CutRule, check_vectors, cut, cut_each, name_rows
from nestling.data.tables.description import TableFile, Wanted
from nestling.data.tables.fields.columns import Columns, Kinds, parts_of, read_columns, write_columns
from nestling.data.tables.table_ids import IdKind, check_id_kind, ids_as
from nestling.elastic import Cost, resolve_each
from nestling.errors import DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.storage.artifact import open_array, read_folder, reading_errors, write_folder
from nestling.storage.npy import write_npy
from nestling.vectors.files import read_vector_file
from nestling.vectors.matrix import Sizes, Vectors, blocks_of, read_full_sizes, refuse_zero_rows

if TYPE_CHECKING:
    from nestling.vectors.vectors_like import VectorsLike

_KIND = "stored_vectors"
_VALUES = "vectors.npy"
_IDS = "ids.npy"
_FIELDS = "fields"


class Map(Protocol):
    """A map of vectors, such as :class:`~nestling.encoders.maps.pca.PCARotation`."""

    nesting: Any
    rule: Any

    def transform(self, X: Any, /) -> Vectors:  # noqa: N803 - scikit-learn's name
        """``Float[n, dim]`` of ``Float[n, features]``, before the cut rule."""
        ...


class StoredVectors:
    """Checked vectors together with their sizes, cut rule, ids, fields and the name of their encoder.

    ``stored(rows, at=)`` gives the vectors of some rows at one size. The matrix may be a memory map;
    nothing is copied before it is needed; saving and extracting work block by block.

    Args:
        values: ``Float[n, dim]``, before the cut rule.
        nesting: sizes on the axis ``dim``, the full one last; by default 8, 16, ... up to it.
        rule: how the vectors are treated around a cut.
        ids: n different integers or strings, what the rows are called elsewhere; None is none.
        encoder: what made the vectors, such as the name of a model.
        fields: of the rows, to be filtered by later: a mapping of names to columns, a data frame, or a list
            of one mapping a row.
        columns: what the columns of the table were called that the rows came from, by their part in it
            (``text``, ``id``, ``vector``).

    Attributes:
        is_nested: whether the sizes were given, by the caller or a folder; an index then answers at each.

    Raises:
        DataError: for another shape or type; rows with NaN or infinity, or (with ``l2`` after the cut)
            of zeros, named; ids or fields that are not of the rows.
        GranularityError: for a nesting that does not end at the full size.

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
        sizes = read_full_sizes(nesting, matrix.shape[1])
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
            encoder: what made the vectors.
            fields: of the rows.
            kinds: what each field holds, where the first rows do not say it.
            columns: what the columns of their table were called.

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
            self.nesting if nesting is None else read_full_sizes(nesting, self.values.shape[1]),
            self.rule if rule is None else rule,
            self.ids if ids is None else check_different(as_ids(ids), len(self)),
            self.encoder if encoder is None else encoder,
            self.fields,
            self.columns if columns is None else columns,
        )
        other.is_nested = self.is_nested or nesting is not None
        return other

    def _fill(
        self,
        values: Vectors,
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
        shape = f"{len(self)} of {self.values.dtype}"
        return f"StoredVectors({shape}, {str(self.nesting)!r}, {self.rule}, encoder={self.encoder!r})"

    def __call__(self, rows: ArrayLike, /, at: At = None) -> Vectors:
        """Vectors ``Float[rows, dim]`` of the rows with these numbers, treated by the rule.

        Raises:
            DataError: for unknown row numbers, or rows whose leading entries are zero.
        """
        dim = self.nesting.resolve(at)["dim"]
        return cut(self._gather(rows, dim), dim, self.rule)

    def forward_each(
        self, rows: ArrayLike, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Vectors]:
        """Vectors at several sizes; the rows are read once."""
        wanted = resolve_each(self.nesting, granularities)
        dims = [g["dim"] for g in wanted]
        found = cut_each(self._gather(rows, max(dims)), dims, self.rule)
        return {g: found[g["dim"]] for g in wanted}

    def blocks(self, at: At = None) -> Iterator[Vectors]:
        """All vectors in order, some thousands at a time, at one size and treated by the rule."""
        dim = self.nesting.resolve(at)["dim"]
        for rows in blocks_of(self.values):
            yield cut(self._read(rows, dim), dim, self.rule)

    def matrix(self, at: At = None) -> Vectors:
        """All vectors at one size, ``Float[n, dim]``; where the rule does nothing, a view of them."""
        dim = self.nesting.resolve(at)["dim"]
        return cut(self.values, dim, RAW) if self.rule == RAW else self._join(self.blocks(at), dim)

    def extract(self, at: At, folder: str | Path | None = None) -> StoredVectors:
        """The leading entries alone.

        Args:
            at: how many.
            folder: write them there, block by block, and read them from it as a memory map; None holds
                them in memory.
        """
        granularity = self.nesting.resolve(at)
        nesting, rule = self.nesting.up_to(granularity), CutRule("none", self.rule.after)
        blocks = self._prepared(granularity["dim"])
        if folder is not None:
            self._write(folder, blocks, nesting, rule, self.values.dtype, self.encoder)
            small = StoredVectors.load(folder)
        else:
            values = self._join(blocks, granularity["dim"])
            ids = None if self.ids is None else self.ids.copy()
            small = StoredVectors.__new__(StoredVectors)
            small._fill(values, nesting, rule, ids, self.encoder, self.fields, self.columns)
        small.is_nested = self.is_nested
        return small

    def mapped(self, by: Map, folder: str | Path, *, encoder: str | None = None) -> StoredVectors:
        """These vectors under a map, written to a folder block by block and read from it as a memory map.

        Args:
            by: the map; the result has its nesting and rule. Extract it first to keep fewer entries.
            folder: where to.
            encoder: what to say made the result; by default this encoder and the name of the map.
        """
        name = " + ".join(filter(None, (self.encoder, type(by).__name__))) if encoder is None else encoder
        values = (by.transform(self.values[rows]).astype(np.float32) for rows in blocks_of(self.values))
        blocks = (check_vectors(block, "mapped vectors") for block in values)
        self._write(folder, blocks, by.nesting, by.rule, np.dtype(np.float32), name)
        return StoredVectors.load(folder)

    def with_table(self, ids: Ids | None, fields: Any, columns: Mapping[str, str]) -> StoredVectors:
        """These vectors with the fields of a table and, where it has any, its ids; see the class."""
        found = self._with(None, None, ids, None, columns)
        found.fields = Columns.read(fields, len(self))
        return found

    def cost(self, at: At = None) -> Cost:
        """Bytes of the vectors at one size, all and one; nothing is computed."""
        dim = self.nesting.resolve(at)["dim"]
        one = dim * self.values.dtype.itemsize
        return Cost(size_bytes=len(self) * one, output_bytes=one)

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder."""
        blocks = (self.values[rows] for rows in blocks_of(self.values))
        self._write(folder, blocks, self.nesting, self.rule, self.values.dtype, self.encoder)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote; the vectors stay on disk as a memory map."""
        manifest, root = read_folder(folder, _KIND), home_path(folder)
        values = open_array(root / _VALUES)
        ids = open_array(root / _IDS) if _IDS in manifest.files else None
        nesting, rule, settings = manifest.read_nesting(), manifest.read_cut(), manifest.settings
        fields = read_columns(root / _FIELDS, settings.get("fields", {}), len(values))
        return cls.__new__(cls)._fill(
            values, nesting, rule, ids, settings["encoder"], fields, settings.get("columns", {})
        )

    def _write(
        self,
        folder: str | Path,
        blocks: Iterable[Vectors],
        nesting: Nesting,
        rule: CutRule,
        dtype: np.dtype[Any],
        encoder: str,
    ) -> None:
        of_table = {"fields": self.fields.kinds, "columns": self.columns}
        settings = {"encoder": encoder, **{name: value for name, value in of_table.items() if value}}
        with write_folder(folder, _KIND, nesting=nesting, rule=rule, settings=settings) as path:
            write_npy(path / _VALUES, blocks, (len(self), nesting.full["dim"]), dtype)
            if self.ids is not None:
                with (path / _IDS).open("wb") as stream:
                    np.save(stream, self.ids, allow_pickle=False)
            if self.fields.by_name:
                write_columns(path / _FIELDS, parts_of(self.fields), self.fields.kinds)

    def _gather(self, rows: ArrayLike, dim: int) -> Vectors:
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
        return self._read(numbers, dim)

    def _read(self, rows: slice | NDArray[Any], dim: int) -> Vectors:
        """Rows as they are stored; only the entries that a cut to ``dim`` needs."""
        found: Vectors = (self.values if self.rule.before != "none" else cut(self.values, dim, RAW))[rows]
        return found

    def _prepared(self, dim: int) -> Iterator[Vectors]:
        """The leading entries of all rows, after what comes before the cut and before what comes after."""
        for rows in blocks_of(self.values):
            yield cut(self._read(rows, dim), dim, CutRule(self.rule.before, "none"))

    def _join(self, blocks: Iterable[Vectors], dim: int) -> Vectors:
        values = np.empty((len(self), dim), self.values.dtype)
        for rows, block in zip(blocks_of(self.values), blocks, strict=True):
            values[rows] = block
        return values


def open_vectors(
    path: str | Path,
    nesting: Sizes = None,
    rule: CutRule | None = None,
    *,
    ids: Sequence[int] | Sequence[str] | Ids | None = None,
    encoder: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    id_kind: IdKind | None = None,
    fields: Wanted = None,
) -> StoredVectors:
    """Vectors from a file or a saved folder.

    Args:
        path: a folder that nestling saved, which says everything else; or a file: ``.npy`` and ``.fvecs``
            are read as memory maps, ``.parquet`` into memory. ``-`` is standard input (``.npy`` or parquet).
        nesting: see :class:`StoredVectors`; goes before what a folder says, as do the next three.
        rule: by default L2 normalisation after the cut, for cosines.
        ids: what the rows are called.
        encoder: what made the vectors.
        column: of a parquet file, the one that holds the vectors as lists or tensors, or what the names of
            numbered columns of floats (``v0``, ``v1``, ...) begin with; needed if several could.
        id_column: of a parquet file, the one that holds the ids; by default ``id`` or ``_id``, if there; ""
            is none.
        id_kind: ``"text"`` makes whole numbers in that column texts, ``"int"`` texts whole numbers.
        fields: of a parquet file, the other columns to keep; by default all whose values a field can hold.

    Raises:
        DataError: if it does not exist, is of another kind, truncated or corrupt, or holds vectors that
            cannot be used (rows named); see :class:`StoredVectors`.
        ArtifactError: if a saved folder is torn or altered.
        MissingExtraError: for parquet without pyarrow.
    """
    with reading_errors(home_path(path)):
        is_folder = home_path(path).is_dir()
    if is_folder:
        return StoredVectors.of(StoredVectors.load(home_path(path)), nesting, rule, ids=ids, encoder=encoder)
    check_id_kind(id_kind)
    file = read_vector_file(path, column=column, id_column=id_column)
    kept, named = None, {"vector": column, "id": id_column}
    if file.others is not None:
        read = file.others
        kept = TableFile.open(path, None, "", fields, has_texts=False, read=lambda _: read()).all_fields()
    return StoredVectors(
        file.values,
        nesting,
        rule or CutRule(),
        ids=ids_as(file.ids, id_kind) if ids is None else ids,
        encoder=encoder or "",
        fields=kept,
        columns={part: name for part, name in named.items() if name is not None},
    )
