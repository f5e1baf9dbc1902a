"""Preparation of the model of a text encoder, and its defaults and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from nestling.arguments.constraints import OneOf, Whole, check
from nestling.cut import RAW, CutRule
from nestling.encoders.text.depth import depth_of
from nestling.encoders.text.export import modules_of, stock_modules, width_of, with_modules
from nestling.errors import ConfigError
from nestling.granularity import Granularity, Nesting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Pooling = Literal["mean", "cls", "lasttoken", "weightedmean", "max"]


def prepare(
    model: SentenceTransformer, pooling: Pooling | None, max_length: int | None
) -> SentenceTransformer:
    """A model with another pooling or a shorter maximum length; None keeps its own.

    Raises:
        ConfigError: for an unknown pooling, a model without one, or a length that it cannot read.
    """
    if max_length is not None:
        longest = model.max_seq_length
        check("max_length", max_length, Whole(1, longest, hint="the model reads no more tokens"))
        model.max_seq_length = max_length
    if pooling is None:
        return model
    check("pooling", pooling, OneOf(get_args(Pooling)))
    modules, stock = modules_of(model), stock_modules()
    for name, module in modules.items():
        if isinstance(module, stock.Pooling):
            old: Any = module
            modules[name] = stock.Pooling(old.embedding_dimension, pooling, include_prompt=old.include_prompt)
            return with_modules(model, modules)
    raise ConfigError(f"the model does no pooling, so pooling={pooling!r} has no effect; leave it out")


def usual_rule(model: SentenceTransformer) -> CutRule:
    """L2 normalisation after the cut; none for a model that does not normalise and is not for cosines."""
    last = next(reversed(modules_of(model).values()))
    normalises = isinstance(last, stock_modules().Normalize)
    return CutRule() if normalises or model.similarity_fn_name == "cosine" else RAW


def check_nesting(nesting: Nesting, model: SentenceTransformer) -> None:
    """Refuse a nesting that the model cannot be cut to."""
    depth = depth_of(model) if "layer" in nesting.axes else None  # static vectors have none
    nesting.within("the text encoder", dim=width_of(model), layer=depth)


def check_rest(rest: Granularity) -> Granularity:
    """``rest``, if it names a layer or nothing."""
    if rest:
        Nesting((rest,)).within("the text encoder", needs=(), layer=None)
    return rest
