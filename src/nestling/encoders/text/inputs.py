"""What a text encoder is given: a model, a nesting, or nothing said about it."""

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
    """A model that pools its tokens another way or reads no more tokens; None leaves what it does.

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
    raise ConfigError(f"the model has no tokens to pool, so pooling={pooling!r} has no meaning; leave it out")


def usual_rule(model: SentenceTransformer) -> CutRule:
    """L2 normalisation after the cut, but for a model that does not normalise and is not for cosines."""
    last = next(reversed(modules_of(model).values()))
    normalises = isinstance(last, stock_modules().Normalize)
    return CutRule() if normalises or model.similarity_fn_name == "cosine" else RAW


def check_nesting(nesting: Nesting, model: SentenceTransformer) -> None:
    """Refuse a nesting that the model cannot be cut to."""
    depth = depth_of(model) if "layer" in nesting.axes else None  # static vectors have none
    nesting.within("the text encoder", dim=width_of(model), layer=depth)


def check_rest(rest: Granularity) -> Granularity:
    """``rest``, if a text encoder can be run so: at a layer, or whole."""
    if rest:
        Nesting((rest,)).within("the text encoder", needs=(), layer=None)
    return rest
