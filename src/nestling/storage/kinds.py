"""The kinds of saved folders, in words."""

from __future__ import annotations

from pathlib import Path

from nestling.errors import ArtifactError

_WRITTEN = {"pca_rotation": "PCA rotation", "rdms": "RDMs"}


def in_words(kind: str) -> str:
    """The kind of a folder with its article; several things have none.

    >>> in_words("text_encoder"), in_words("index"), in_words("stored_vectors")
    ('a text encoder', 'an index', 'stored vectors')
    """
    words = _WRITTEN.get(kind, kind.replace("_", " ").replace("-", " "))
    if words.endswith("s"):
        return words
    return f"{'an' if words.startswith(tuple('aeiou')) else 'a'} {words}"


def check_kind(folder: Path, found: str, *allowed: str) -> None:
    """Refuse a folder of another kind.

    Raises:
        ArtifactError: if ``found`` is not among the kinds ``allowed``.
    """
    if found not in allowed:
        needed = " or ".join(map(in_words, allowed))
        raise ArtifactError(
            f"{folder} holds {in_words(found)}, not {needed}; give a folder that holds {needed}"
        )
