"""Stored vectors from a file or a saved folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nestling.arguments.ids import Ids
from nestling.arguments.paths import home_path
from nestling.cut import CutRule
from nestling.data.tables.description import TableFile, Wanted
from nestling.data.tables.table_ids import IdKind, check_id_kind, ids_as
from nestling.storage.artifact import reading_errors
from nestling.vectors.files import read_vector_file
from nestling.vectors.matrix import Sizes
from nestling.vectors.stored import StoredVectors


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
        ids: of the rows, integers or strings.
        encoder: name of the encoder of the vectors.
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
