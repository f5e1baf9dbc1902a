"""References to encoders, as ``NAME@sha256:DIGEST``: opening one, and its identity.

Either part may be missing. A name is the argument of ``nestling encode``: ``wordllama``, a folder, a model of
the hub. The digest is that of the manifest of a saved folder: the same encoder has the same one, wherever its
folder lies.
"""

from __future__ import annotations

import re
from pathlib import Path

from nestling.errors import ConfigError
from nestling.storage.artifact import MANIFEST, sha256_of

_REFERENCE = re.compile(r"(?:(?P<name>.+)@)?(?P<digest>sha256:[0-9a-f]{64})")
_BESIDE = "encoder"  # where a collection keeps its own, next to the folder of its index


def digest_of(folder: Path) -> str:
    """The reference to a saved encoder that holds wherever its folder lies: ``sha256:DIGEST``."""
    return f"sha256:{sha256_of(folder / MANIFEST)}"


def has_digest(reference: str) -> bool:
    """Whether a reference identifies an encoder by its digest."""
    return bool(_parts(reference)[1])


def same_encoder(one: str, other: str) -> bool:
    """Whether two references are to one encoder: the same digest, or else the same name.

    >>> same_encoder("wordllama", "wordllama"), same_encoder("wordllama", "minilm")
    (True, False)
    """
    (name, digest), (other_name, other_digest) = _parts(one), _parts(other)
    if digest and other_digest:
        return digest == other_digest
    return name == other_name and (bool(name) or digest == other_digest)


def with_place(reference: str, index: Path) -> str:
    """A digest alone with the folder where the encoder lies, if that is beside the folder of an index."""
    name, digest = _parts(reference)
    beside = index.resolve().parent / _BESIDE
    if name or not digest or not (beside / MANIFEST).is_file() or digest_of(beside) != digest:
        return reference
    return f"{beside}@{digest}"


def name_to_open(reference: str, given: str | None = None) -> str:
    """The name or folder that opens the encoder of a reference, checked by its digest; "" if unknown.

    Args:
        reference: to the encoder of the vectors.
        given: a name that the user gives; by default that of the reference.

    Raises:
        ConfigError: if it is another encoder, or not where the reference says.
    """
    name, digest = _parts(reference)
    opened = given or name
    if not digest:
        return opened
    remedy = "name the folder of the one that did with --encoder"
    if not opened:
        raise ConfigError(
            f"the vectors were made by the encoder {digest}, whose folder is not known; {remedy}"
        )
    folder = Path(opened)
    if not (folder / MANIFEST).is_file():
        raise ConfigError(
            f"the vectors were made by the encoder {reference}, and {opened} is no folder of an encoder that "
            f"nestling saved; {remedy}"
        )
    if digest_of(folder) != digest:
        raise ConfigError(f"the encoder in {opened} did not make the vectors, but {digest}; {remedy}")
    return opened


def _parts(reference: str) -> tuple[str, str]:
    found = _REFERENCE.fullmatch(reference)
    return (reference, "") if found is None else (found["name"] or "", found["digest"])
