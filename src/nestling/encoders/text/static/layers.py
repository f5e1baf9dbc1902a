"""The stock modules that may follow a table of static vectors, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut

Floats = NDArray[np.float32]

EMBEDDING = "sentence_embedding"
_SMALLEST_NORM = np.float32(1e-12)
_TORCH = "torch.nn.modules."


class Layer(Protocol):
    """One step from vectors to vectors, saved as ``config`` and ``weights``."""

    @property
    def config(self) -> dict[str, Any]:
        """The ``config.json`` of the module."""
        ...

    @property
    def weights(self) -> dict[str, Floats]:
        """Its arrays, by the names that sentence-transformers gives them."""
        ...

    def width_after(self, width: int) -> int:
        """Width of the output for inputs of ``width``."""
        ...

    def __call__(self, x: Floats, /) -> Floats:
        """``Float32[n, width]`` of ``Float32[n, width]``."""
        ...


@dataclass(frozen=True)
class Dense:
    """``activation(x @ weight.T + bias)``.

    Args:
        weight: ``Float32[outputs, inputs]``.
        bias: ``Float32[outputs]``, if there is one.
        activation: the class of torch that computes it.
    """

    weight: Floats
    bias: Floats | None
    activation: str

    @classmethod
    def read(cls, config: Mapping[str, Any], weights: Mapping[str, Floats]) -> Self | None:
        """The layer of a saved module; None for one that is not computed here."""
        activation = str(config.get("activation_function", ""))
        named = activation.removeprefix("torch.nn.").rpartition(".")[2]
        places = {config.get("module_input_name"), config.get("module_output_name")}
        if config.get("use_residual") or places - {None, EMBEDDING} or named not in ACTIVATIONS:
            return None
        return cls(weights["linear.weight"], weights.get("linear.bias"), activation)

    @classmethod
    def linear(cls, weight: Floats) -> Self:
        """``x @ weight.T``."""
        return cls(weight, None, f"{_TORCH}linear.Identity")

    @property
    def config(self) -> dict[str, Any]:
        """As sentence-transformers writes it."""
        outputs, inputs = self.weight.shape
        return {
            "in_features": inputs,
            "out_features": outputs,
            "bias": self.bias is not None,
            "activation_function": self.activation,
            "module_input_name": EMBEDDING,
            "module_output_name": EMBEDDING,
        }

    @property
    def weights(self) -> dict[str, Floats]:
        """As sentence-transformers names them."""
        return {"linear.weight": self.weight, **({} if self.bias is None else {"linear.bias": self.bias})}

    def width_after(self, width: int) -> int:
        """The rows of its matrix."""
        return len(self.weight)

    def leading(self, dim: int) -> Dense:
        """The layer that gives the first ``dim`` entries alone."""
        return Dense(self.weight[:dim], None if self.bias is None else self.bias[:dim], self.activation)

    def __call__(self, x: Floats, /) -> Floats:
        """``Float32[n, outputs]`` of ``Float32[n, inputs]``."""
        y = x @ self.weight.T
        return ACTIVATIONS[self.activation.rpartition(".")[2]](y if self.bias is None else y + self.bias)


@dataclass(frozen=True)
class LayerNorm:
    """A layer norm over all entries, then a scale and a shift for each of them."""

    scale: Floats
    shift: Floats

    @classmethod
    def plain(cls, width: int) -> Self:
        """Without scale and shift."""
        return cls(np.ones(width, np.float32), np.zeros(width, np.float32))

    @property
    def config(self) -> dict[str, Any]:
        """As sentence-transformers writes it."""
        return {"dimension": len(self.scale)}

    @property
    def weights(self) -> dict[str, Floats]:
        """As sentence-transformers names them."""
        return {"norm.weight": self.scale, "norm.bias": self.shift}

    def width_after(self, width: int) -> int:
        """The same."""
        return width

    def __call__(self, x: Floats, /) -> Floats:
        """``Float32[n, width]`` of ``Float32[n, width]``."""
        normed: Floats = cut(x, x.shape[1], CutRule("layer_norm", "none"))
        return normed * self.scale + self.shift


@dataclass(frozen=True)
class Normalize:
    """L2 normalisation of rows; a row of zeros stays zero."""

    config: dict[str, Any] = field(
        default_factory=lambda: {"module_input_name": EMBEDDING, "module_output_name": EMBEDDING}
    )
    weights: dict[str, Floats] = field(default_factory=dict)

    def width_after(self, width: int) -> int:
        """The same."""
        return width

    def __call__(self, x: Floats, /) -> Floats:
        """``Float32[n, width]`` of ``Float32[n, width]``."""
        unit: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _SMALLEST_NORM)
        return unit


Layers = tuple[Layer, ...]


def needed(layers: Layers, table: Floats, dim: int) -> tuple[Layers, Floats]:
    """The layers and the table reduced to the parts that the first ``dim`` entries need.

    The last matrix is cut where it is a Dense or the table itself: a mean of rows commutes with the cut.
    """
    if not layers:
        return layers, cut(table, dim, RAW)
    *before, last = layers
    return ((*before, last.leading(dim)) if isinstance(last, Dense) else layers), table


def cut_model(layers: Layers, table: Floats, dim: int) -> tuple[Layers, Floats]:
    """The layers and the table that give the first ``dim`` entries and no others."""
    layers, table = needed(layers, table, dim)
    width = width_of(layers, table)
    if width == dim:
        return layers, table
    return (*layers, Dense.linear(np.eye(dim, width, dtype=np.float32))), table


def width_of(layers: Layers, table: Floats) -> int:
    """Entries of the vectors that come out."""
    width = int(table.shape[1])
    for layer in layers:
        width = layer.width_after(width)
    return width


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), np.float32)


def _gelu(x: Floats) -> Floats:
    return x * (0.5 * _erfc(x * np.float32(-(0.5**0.5))))


def _erfc(x: Floats) -> Floats:
    """The complementary error function, to 1.2e-7 of its value.

    Source: Press et al., Numerical Recipes, section 6.2, erfcc.
    """
    z = np.abs(x.astype(np.float64))
    t = 1 / (1 + 0.5 * z)
    series = np.zeros_like(t)
    for factor in _ERFC:
        series = series * t + factor
    tail = t * np.exp(-z * z + series)
    return np.where(x >= 0, tail, 2 - tail).astype(np.float32)


_ERFC = (
    0.17087277,
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
    0.37409196,
    1.00002368,
    -1.26551223,
)

ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "Sigmoid": _sigmoid,
    "GELU": _gelu,
}
"""By the class of torch that computes it."""
