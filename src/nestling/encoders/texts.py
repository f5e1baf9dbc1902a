"""The parts that all text encoders share: checks, prompts, batches, fingerprints."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, check
from nestling.cut import CutRule, check_vectors, name_rows
from nestling.data.tables.text_checks import check_texts as whole_texts
from nestling.elastic import Cost
from nestling.errors import ConfigError, DataError, UntrainedGranularityWarning, unknown
from nestling.granularity import At, Granularity, Nesting
from nestling.process.blocks import blocks
from nestling.process.progress import Progress

SAMPLE_TEXT = " ".join(["word"] * 32)
"""The text whose encoding is the cost of a text encoder."""


class Encoder(Protocol):
    """A text encoder: ``TextEncoder``, or ``StaticEncoder`` without torch."""

    nesting: Nesting
    rule: CutRule

    def encode(
        self,
        texts: Sequence[str],
        at: At = None,
        *,
        batch_size: int = 64,
        prompt: str | None = None,
        prompt_name: str | None = None,
        first_row: int = 0,
    ) -> NDArray[np.float32]:
        """Vectors ``Float32[texts, dim]`` of any number of texts."""
        ...

    def extract(self, at: At) -> Encoder:
        """A standalone, smaller encoder."""
        ...

    def cost(self, at: At = None) -> Cost:
        """Cost of one text at one size."""
        ...

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder that plain sentence-transformers (6 or newer) loads too."""
        ...

    def fingerprint(self) -> str:
        """Digest of weights, cut rule, default prompt and maximum length, in hex."""
        ...


class Prompted(Protocol):
    """A model with named prompts."""

    @property
    def prompts(self) -> Any:
        """Prompts by name."""
        ...

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the default prompt."""
        ...


def check_texts(texts: Iterable[str], first_row: int = 0) -> list[str]:
    """``texts`` as a list of at least one text to encode, or an error that names the rows.

    Args:
        texts: to be encoded.
        first_row: the number of the first one, if more came before.

    Raises:
        DataError: for no texts, and as :func:`nestling.data.tables.text_checks.check_texts`.
    """
    rows = whole_texts(texts, name=lambda wrong: name_rows([row + first_row for row in wrong]))
    if not rows:
        raise DataError("there are no texts to encode; give at least one")
    return rows


def encode_batches(
    encode: Callable[[list[str], NDArray[np.int64]], Mapping[Granularity, NDArray[np.float32]]],
    texts: Sequence[str],
    wanted: Sequence[Granularity],
    *,
    batch_size: int,
    first_row: int,
) -> dict[Granularity, NDArray[np.float32]]:
    """Vectors ``Float32[texts, dim]`` of any number of texts, in batches of similar length, with progress.

    Args:
        encode: vectors of one batch at every granularity; gets the texts and their numbers in errors.
        texts: none of them empty.
        wanted: the granularities.
        batch_size: texts encoded at a time, at least 1.
        first_row: the number of the first text in errors.

    Raises:
        DataError: for no texts, or texts that are empty or no strings; the rows are named.
    """
    check("batch_size", batch_size, Whole(1))
    rows = check_texts(texts, first_row)
    order = np.array(sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True))
    found = {g: np.empty((len(rows), g["dim"]), np.float32) for g in wanted}
    with Progress("encoding", len(rows), "texts") as progress:
        for some in blocks(len(order), batch_size):
            batch = order[some]
            for g, vectors in encode([rows[row] for row in batch], batch + first_row).items():
                found[g][batch] = vectors
            progress.update(len(batch))
    return found


def check_found(vectors: NDArray[np.float32], rule: CutRule, numbers: NDArray[np.int64]) -> None:
    """Refuse vectors of texts that are NaN, or have no direction where ``rule`` needs one.

    Raises:
        DataError: naming the texts by their ``numbers``.
    """
    check_vectors(vectors, "the vectors of these texts")
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero) and rule.after == "l2":
        raise DataError(
            f"{name_rows(np.sort(numbers[zero]), 'of the texts have')} no tokens or a vector of zeros, which "
            "has no direction; remove them"
        )


def prompt_of(model: Prompted, prompt: str | None = None, name: str | None = None) -> str | None:
    """The prompt to put before every text: ``prompt``, the one called ``name``, or the model's default.

    Raises:
        ConfigError: for both, or an unknown name.
    """
    if prompt is not None and name is not None:
        raise ConfigError("give prompt or prompt_name, not both")
    name = model.default_prompt_name if name is None else name
    if prompt is not None or name is None:
        return prompt
    if name not in model.prompts:
        raise ConfigError(unknown("prompt_name", name, model.prompts))
    return str(model.prompts[name])


def warn_if_smaller(wanted: Iterable[Granularity], nesting: Nesting) -> None:
    """Warn that sizes below the full one are plain truncation, for a nesting that is assumed."""
    smaller = [str(g) for g in wanted if g != nesting.full]
    if smaller:
        warnings.warn(
            f"this model declares no sizes below its full one, so {', '.join(smaller)} is plain truncation; "
            "train it with nestling.losses.Nested, or give nesting= if you know its trained sizes",
            UntrainedGranularityWarning,
            stacklevel=5,
        )


def fingerprint_of(
    model: Prompted, rule: CutRule, longest: object, weights: Iterable[tuple[str, NDArray[Any]]]
) -> str:
    """Digest of an encoder, in hex.

    Args:
        model: its default prompt is part of it.
        rule: of the cut.
        longest: maximum number of tokens of a text.
        weights: by name.
    """
    prompt = model.prompts.get(model.default_prompt_name or "")
    digest = hashlib.sha256(repr((rule, prompt, longest)).encode())
    for name, value in weights:
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
