"""What a text encoder is given: texts, a nesting, or nothing said about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from nestling.cut import RAW, CutRule, name_rows
from nestling.encoders.depth import depth_of
from nestling.encoders.export import modules_of, stock_modules, width_of
from nestling.errors import DataError, GranularityError
from nestling.granularity import Nesting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SMALLEST_DIM = 8


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
