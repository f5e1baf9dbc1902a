"""Early exit of transformers: run only the first layers, or read the hidden states of several."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nestling.errors import ConfigError, GranularityError

Features = dict[str, Any]
_STATES = "token_embeddings"


@dataclass(frozen=True)
class _Place:
    """The path of the layers in a family of models, and of the norm after the last one."""

    layers: str
    norm: str | None
    families: str


_PLACES = (
    _Place("encoder.layer", None, "BERT, RoBERTa, XLM-R, MPNet, ELECTRA"),
    _Place("transformer.layer", None, "DistilBERT"),
    _Place("encoder.block", "encoder.final_layer_norm", "T5"),
    _Place("layers", "final_norm", "ModernBERT"),
    _Place("layers", "norm", "Llama, Mistral, Qwen, Gemma"),
)


class LayerStack:
    """The layers of a Hugging Face transformer, for early exit.

    The model is not changed: a shallower model is a new shell around the same layers. The output of a
    layer is that of a model which ends there, including the final norm where the family has one. So
    training, use and extraction agree.

    Args:
        model: an encoder, or a decoder without its head.

    Raises:
        ConfigError: if the layers are not found; the message lists the supported families.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._prefix, self._place = _find(model)
        self.layers: nn.ModuleList = _at(model, self._prefix, self._place.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def first(self, depth: int) -> nn.Module:
        """A model of the first ``depth`` layers, sharing them; its config has the new depth.

        Raises:
            GranularityError: for a depth outside 1 to the number of layers.
        """
        return self.around(nn.ModuleList(list(self.layers)[: self._checked(depth)]))

    def recorded(self, depth: int) -> tuple[nn.Module, list[Tensor]]:
        """The model of the first ``depth`` layers, and a list that collects their hidden states.

        The hidden states are those before the final norm: see :meth:`normed`. The list is for one call.
        """
        given: list[Tensor] = []
        layers = [_Recorder(layer, given) for layer in list(self.layers)[: self._checked(depth)]]
        return self.around(nn.ModuleList(layers)), given

    def normed(self, states: Tensor) -> Tensor:
        """The hidden states of a layer after the final norm, if the model has one."""
        if self._place.norm is None:
            return states
        found: Tensor = _at(self.model, self._prefix, self._place.norm)(states)
        return found

    def _checked(self, depth: int) -> int:
        if not 1 <= depth <= len(self):
            raise GranularityError(f"the model has layers 1 to {len(self)}, not {depth}; choose among those")
        return depth

    def around(self, layers: nn.ModuleList) -> nn.Module:
        """The model with other layers; the modules that contain them are copied, all others shared."""
        owner = _at(self.model, self._prefix)
        shell = _replaced(owner, self._place.layers.split("."), layers)
        if hasattr(owner, "config"):
            shell.config = _shallower(owner.config, len(layers))
        return _replaced(self.model, self._prefix.split("."), shell) if self._prefix else shell


def states_each(transformer: Any, features: Mapping[str, Any], depths: Iterable[int]) -> dict[int, Features]:
    """The outputs of a Transformer module of sentence-transformers at several depths, from one pass.

    Args:
        transformer: the module; layers after the deepest one are not run.
        features: the tokenised inputs of the module; not changed.
        depths: numbers of layers, from 1.

    Raises:
        ConfigError: if the layers of its model are not found.
        GranularityError: for a depth that the model does not have.
    """
    wanted = sorted(set(depths))
    stack = LayerStack(transformer.auto_model)
    shell, given = stack.recorded(wanted[-1])
    deepest = with_transformer(transformer, shell)(dict(features))
    found = {depth: {**deepest, _STATES: stack.normed(given[depth - 1])} for depth in wanted[:-1]}
    return {**found, wanted[-1]: deepest}


def with_transformer(transformer: Any, model: nn.Module) -> Any:
    """A Transformer module of sentence-transformers with another model inside; all else is shared."""
    name = next(name for name, part in transformer.named_children() if part is transformer.auto_model)
    return _replaced(transformer, [name], model)


class _Recorder(nn.Module):
    """Wraps a layer and records its hidden states; all other attributes are those of the layer."""

    def __init__(self, layer: nn.Module, given: list[Tensor]) -> None:
        super().__init__()
        self.layer, self._given = layer, given

    def forward(self, *args: Any, **rest: Any) -> Any:
        answer = self.layer(*args, **rest)
        self._given.append(answer[0] if isinstance(answer, tuple) else answer)
        return answer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def _find(model: nn.Module) -> tuple[str, _Place]:
    """The outermost module with layers in one of the known places, and that place."""
    for prefix, owner in model.named_modules():
        for place in _PLACES:
            if isinstance(_at(owner, place.layers), nn.ModuleList) and (
                place.norm is None or _at(owner, place.norm) is not None
            ):
                return prefix, place
    raise ConfigError(
        f"the layers of {type(model).__name__} are not found, so it can only be used at its full depth; "
        "supported are " + "; ".join(place.families for place in _PLACES)
    )


def _at(module: nn.Module, *paths: str) -> Any:
    """The submodule at a dotted path, or None."""
    found: Any = module
    for name in ".".join(filter(None, paths)).split("."):
        found = getattr(found, name, None) if name else found
    return found


def _replaced(module: nn.Module, path: list[str], part: nn.Module) -> nn.Module:
    """A shallow copy of ``module`` with another submodule at ``path``; weights are shared."""
    shell = copy.copy(module)
    children = dict(module._modules)
    first, *rest = path
    below = children[first]
    children[first] = _replaced(below, rest, part) if rest and below is not None else part
    vars(shell)["_modules"] = children
    # Libraries that patch a model leave its original forward as an attribute, bound to the whole model.
    left: Any = vars(shell).get("forward")
    if getattr(left, "__self__", None) is module and left.__func__ is type(module).forward:
        del vars(shell)["forward"]
    return shell


def _shallower(config: Any, depth: int) -> Any:
    """A copy of a model's config with ``depth`` layers."""
    shallower = copy.copy(config)
    shallower.num_hidden_layers = depth
    if getattr(config, "layer_types", None) is not None:
        shallower.layer_types = list(config.layer_types)[:depth]
    return shallower
