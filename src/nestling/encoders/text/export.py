"""Cuts as stock sentence-transformers modules, so that plain sentence-transformers loads a cut model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

EMBEDDING = "sentence_embedding"
_ELEMENTWISE = (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.Mish, nn.Softplus)


def stock_modules() -> Any:
    """The module that holds the module types of sentence-transformers.

    Raises:
        MissingExtraError: if sentence-transformers is not installed.
    """
    require("sentence_transformers", "text")
    return require("sentence_transformers.sentence_transformer.modules", "text")


def modules_of(model: SentenceTransformer) -> OrderedDict[str, nn.Module]:
    """The modules of a model by name, in order."""
    return OrderedDict(model.named_children())


def with_modules(model: SentenceTransformer, modules: OrderedDict[str, nn.Module]) -> SentenceTransformer:
    """A model of other ``modules`` with the prompts and the similarity of ``model``; weights are shared."""
    from sentence_transformers import SentenceTransformer

    rebuilt = SentenceTransformer(
        modules=modules,  # type: ignore[arg-type]  # it takes names too
        device=str(model.device),
        prompts={name: prompt or "" for name, prompt in model.prompts.items()},
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
    )
    rebuilt.module_kwargs = model.module_kwargs
    return rebuilt


def append(modules: OrderedDict[str, nn.Module], *more: nn.Module) -> None:
    """Put modules at the end, under the next free names."""
    for module in more:
        modules[next(name for name in map(str, count(len(modules))) if name not in modules)] = module


def absorb_rule(model: SentenceTransformer, rule: CutRule) -> SentenceTransformer:
    """A model that includes the step before the cut and leaves the step after it to the cut.

    The normalisation at the end goes where ``rule`` normalises after the cut anyway; a layer norm comes
    in where ``rule`` asks for one before the cut.
    """
    modules, stock = modules_of(model), stock_modules()
    name, last = next(reversed(modules.items()))
    if rule.after == "l2" and isinstance(last, stock.Normalize) and _on_embedding(last):
        del modules[name]
    if rule.before == "layer_norm":
        append(modules, stock.LayerNorm(width_of(model)).to(model.device))
    return model if modules == modules_of(model) else with_modules(model, modules)


def cut_model(model: SentenceTransformer, dim: int, rule: CutRule) -> SentenceTransformer:
    """A model that computes the first ``dim`` entries of the output of ``model``, with ``rule`` applied.

    The last matrix is cut where it is a Dense or a table of static vectors (a mean of rows commutes with
    the cut); elsewhere a Dense with the rows of the identity follows. A layer norm before it becomes part
    of its matrix where that is exact, because inference servers know none. Modules that are not cut are
    shared.
    """
    modules, stock = modules_of(model), stock_modules()
    name, last = next(reversed(modules.items()))
    if dim < width_of(model):
        dense = last_dense(model)
        if dense is not None:
            modules[name] = _leading_rows(dense, dim)
        elif isinstance(last, stock.StaticEmbedding):
            table = cut(last.embedding.weight.detach(), dim, RAW).clone()
            modules[name] = stock.StaticEmbedding(last.tokenizer, embedding_weights=table)
        else:
            rows = torch.eye(dim, width_of(model), dtype=model.dtype, device=model.device)
            if rule.after == "l2" and isinstance(last, stock.LayerNorm) and not last.norm.bias.any():
                # It subtracts the mean, which a matrix does too, and divides by a length, as does the rule.
                rows = (rows - 1 / rows.shape[1]) * last.norm.weight.detach()[:dim, None]
                del modules[name]
            append(modules, linear_module(rows, None))
    if rule.after == "l2":
        append(modules, stock.Normalize())
    return with_modules(model, modules)


def width_of(model: SentenceTransformer) -> int:
    """Width of the output of the modules of ``model``, ignoring its ``truncate_dim``."""
    with model.truncate_embeddings(None):
        width = model.get_embedding_dimension()
    if width is None:
        raise ConfigError(
            "the model does not say how many dims its vectors have: its last module needs a "
            "get_embedding_dimension() method"
        )
    return int(width)


def last_dense(model: SentenceTransformer) -> Dense | None:
    """The Dense a model ends in, if its first output entries need only its first rows."""
    last: Any = next(reversed(modules_of(model).values()))
    cuttable = (
        isinstance(last, stock_modules().Dense)
        and _on_embedding(last)
        and isinstance(last.activation_function, _ELEMENTWISE)
        and not last.use_residual
    )
    return last if cuttable else None


def _on_embedding(module: Any) -> bool:
    """Whether a module works on the embedding of the text and not on those of its tokens."""
    return bool(module.module_input_name == module.module_output_name == EMBEDDING)


def first_entries(dense: Dense, x: Tensor, dim: int) -> Tensor:
    """The first ``dim`` entries of ``dense(x)``, without computing the others."""
    linear = dense.linear
    bias = None if linear.bias is None else linear.bias[:dim]
    found: Tensor = dense.activation_function(nn.functional.linear(x, linear.weight[:dim], bias))
    return found


def linear_module(
    weight: Tensor, bias: Tensor | None, activation: Callable[[Tensor], Tensor] | None = None
) -> Dense:
    """A stock Dense with these weights: ``activation(x @ weight.T + bias)``."""
    # Built on the meta device: initial weights would use the global random state for nothing.
    with torch.device("meta"):
        dense = stock_modules().Dense(
            weight.shape[1],
            weight.shape[0],
            bias=bias is not None,
            activation_function=activation,
        )
    dense.linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        dense.linear.bias = nn.Parameter(bias.detach().clone())
    built: Dense = dense
    return built


def _leading_rows(dense: Dense, dim: int) -> Dense:
    linear = dense.linear
    bias = None if linear.bias is None else linear.bias[:dim]
    return linear_module(linear.weight[:dim], bias, dense.activation_function)


def check_stock(model: SentenceTransformer) -> None:
    """Refuse models that plain sentence-transformers cannot load, or would load differently.

    Raises:
        ConfigError: for a module of another package, or an activation that its class alone does not say.
    """
    dense = stock_modules().Dense
    for module in model.modules():
        if type(module).__module__.startswith("transformers_modules."):
            _refuse(type(module).__name__, "it is custom code, which needs trust_remote_code to load")
    for module in model.children():
        if not type(module).__module__.startswith("sentence_transformers."):
            _refuse(type(module).__name__, "it is not a module of sentence-transformers")
        if isinstance(module, dense):
            activation = module.activation_function
            if not _said_by_class(activation):
                _refuse(repr(activation), "sentence-transformers keeps only the class of an activation")


def _said_by_class(activation: Any) -> bool:
    kind = type(activation)
    try:
        return kind.__module__.startswith("torch.nn.") and repr(kind()) == repr(activation)
    except TypeError:  # it cannot be built without arguments
        return False


def _refuse(name: str, reason: str) -> None:
    raise ConfigError(
        f"{name} cannot be part of a saved text encoder: {reason}. Build the model of stock modules "
        "(Transformer, StaticEmbedding, Pooling, Dense, LayerNorm, Normalize)"
    )
