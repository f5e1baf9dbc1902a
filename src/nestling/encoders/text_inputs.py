"""What a text encoder is given: a model, texts, a nesting, or nothing said about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, check_vectors, name_rows
from nestling.encoders.depth import depth_of
from nestling.encoders.export import modules_of, stock_modules, width_of, with_modules
from nestling.errors import ConfigError, DataError, GranularityError, unknown
from nestling.granularity import Nesting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pooling = Literal["mean", "cls", "lasttoken", "weightedmean", "max"]

_SMALLEST_DIM = 8


def prepare(
    model: SentenceTransformer, pooling: Pooling | None, max_length: int | None
) -> SentenceTransformer:
    """A model that pools its tokens another way or reads no more tokens; None leaves what it does.

    Raises:
        ConfigError: for an unknown pooling, a model without one, or a length that it cannot read.
    """
    if max_length is not None:
        longest = model.max_seq_length
        if max_length < 1 or (longest is not None and max_length > longest):
            raise ConfigError(
                f"max_length={max_length} is not possible; the model reads 1 to {longest} tokens"
            )
        model.max_seq_length = max_length
    if pooling is None:
        return model
    if pooling not in get_args(Pooling):
        raise ConfigError(unknown("pooling", pooling, get_args(Pooling)))
    modules, stock = modules_of(model), stock_modules()
    for name, module in modules.items():
        if isinstance(module, stock.Pooling):
            old: Any = module
            modules[name] = stock.Pooling(old.embedding_dimension, pooling, include_prompt=old.include_prompt)
            return with_modules(model, modules)
    raise ConfigError(f"the model has no tokens to pool, so pooling={pooling!r} has no meaning; leave it out")


def usual_rule(model: SentenceTransformer) -> CutRule:
    """L2 normalisation after the cut, but for a model that does not normalise and is not for cosines."""
    last = next(reversed(modules_of(model).values()))
    normalises = isinstance(last, stock_modules().Normalize)
    return CutRule() if normalises or model.similarity_fn_name == "cosine" else RAW


def usual_dims(full: int) -> tuple[int, ...]:
    """8, 16, ... up to ``full``: what is assumed where a model declares no sizes."""
    return Nesting.doubling(min(_SMALLEST_DIM, full), full).sizes("dim")


def check_nesting(nesting: Nesting, model: SentenceTransformer) -> None:
    """Refuse a nesting that the model cannot be cut to."""
    if nesting.axes not in (("dim",), ("dim", "layer")):
        raise GranularityError(
            f"a text encoder is cut on the axis dim, or on dim and layer, not as in {nesting}; name dim, "
            "with the full width alone if that is meant"
        )
    limits = {"dim": width_of(model), **({"layer": depth_of(model)} if "layer" in nesting.axes else {})}
    for axis, limit in limits.items():
        if nesting.full[axis] > limit:
            raise GranularityError(
                f"the nesting {nesting} goes up to {nesting.full[axis]}, but the model has {limit} {axis}s; "
                f"end the nesting at {limit}"
            )


def check_texts(texts: Iterable[str], first_row: int = 0) -> list[str]:
    """``texts`` as a list of strings that say something, or an error that names the rows.

    Args:
        texts: to be encoded.
        first_row: the number of the first one, if more came before.

    Raises:
        DataError: for no texts, or texts that are empty or no strings.
    """
    if isinstance(texts, (str, bytes)):
        raise DataError("texts must be a list of strings, not one string; write [text]")
    rows = list(texts)
    if not rows:
        raise DataError("there are no texts to encode; give at least one")
    wrong = np.array([row for row, text in enumerate(rows) if not isinstance(text, str)], np.int64)
    if len(wrong):
        kind, named = type(rows[wrong[0]]).__name__, name_rows(wrong + first_row)
        raise DataError(f"texts must be strings, not {kind} as in {named}; convert or drop those")
    empty = np.array([row for row, text in enumerate(rows) if not text.strip()], np.int64)
    if len(empty):
        raise DataError(f"an empty text has no vector; drop or fill {name_rows(empty + first_row)}")
    return rows


def check_found(vectors: NDArray[np.float32], rule: CutRule, first_row: int) -> None:
    """Refuse vectors of texts that are NaN, or have no direction where ``rule`` needs one.

    Raises:
        DataError: naming the rows, of which the first has the number ``first_row``.
    """
    check_vectors(vectors, "the vectors of these texts")
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero) and rule.after == "l2":
        raise DataError(
            f"{name_rows(zero + first_row)} of the texts have no tokens or a vector of zeros, which "
            "has no direction; remove them"
        )


def prompt_of(model: SentenceTransformer, prompt: str | None = None, name: str | None = None) -> str | None:
    """What is put before every text: ``prompt``, or that of a name, or the model's default.

    Raises:
        ConfigError: for both, or a name that the model does not have.
    """
    if prompt is not None and name is not None:
        raise ConfigError("give prompt or prompt_name, not both")
    name = model.default_prompt_name if name is None else name
    if prompt is not None or name is None:
        return prompt
    if name not in model.prompts:
        raise ConfigError(unknown("prompt_name", name, model.prompts))
    return model.prompts[name]
