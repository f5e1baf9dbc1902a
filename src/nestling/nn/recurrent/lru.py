"""Nested linear recurrent units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Real, checked
from nestling.errors import ConfigError
from nestling.granularity import At
from nestling.nn.recurrent.mixer import Mixer
from nestling.nn.recurrent.scan import Scan, linear_recurrence
from nestling.nn.width.linear import NestedLinear

_TINY = 1e-9


class NestedLRU(Mixer):
    """A diagonal linear recurrence in complex numbers between two nested linear maps.

    ``h_t = decay * h_(t-1) + exp(gamma) * B x_t`` and ``y_t = Re(C h_t)``, with ``decay = exp(-exp(nu) + i
    exp(theta))``. The state is computed in float32 or wider, and held as complex64. ``B`` maps to real and
    imaginary parts in turn, so that it is a nested map that scales up by 2, and ``C`` one that scales down.

    Args:
        sizes: widths, increasing.
        r_min: smallest size of ``decay`` at the start, 0 or more.
        r_max: largest, below 1; larger ones remember for longer.
        scan: see :func:`linear_recurrence`.

    Raises:
        GranularityError: for widths that do not increase.
        ConfigError: if ``r_min`` is not below ``r_max``.

    Source: Orvieto et al. 2023, arXiv 2303.06349; fMRLRec, arXiv 2409.16627, whose imaginary bias of ``C``
    changes no output and is left out.

    >>> mixer = NestedLRU([8, 16], r_min=0.0, r_max=0.9)
    >>> tokens, state = mixer.run(torch.zeros(2, 5, 16))
    >>> y, state = mixer.step(torch.zeros(2, 16), state, at=8)
    >>> y.shape, state.shape, mixer.state_bytes()
    (torch.Size([2, 8]), torch.Size([2, 8]), 128)
    """

    kind = "nested_lru"

    @checked(r_min=Real(least=0, below=1), r_max=Real(above=0, below=1), scan=OneOf(get_args(Scan)))
    def __init__(
        self, sizes: Sequence[int], r_min: float = 0.0, r_max: float = 0.1, *, scan: Scan = "auto"
    ) -> None:
        super().__init__(sizes)
        if r_min >= r_max:
            raise ConfigError(f"r_min={r_min} must be below r_max={r_max}")
        self.r_min, self.r_max, self.scan = r_min, r_max, scan
        width, doubled = self.sizes[-1], [2 * size for size in self.sizes]
        self.inward = NestedLinear(self.sizes, doubled)
        self.outward = NestedLinear(doubled, self.sizes)
        square = (r_min**2 + torch.rand(width) * (r_max**2 - r_min**2)).clamp_min(_TINY)
        self.nu = nn.Parameter(torch.log(-0.5 * torch.log(square)))
        self.theta = nn.Parameter(torch.log(2 * math.pi * torch.rand(width).clamp_min(_TINY)))
        self.gamma = nn.Parameter(0.5 * torch.log1p(-square))

    def decay(self, at: At = None) -> Tensor:
        """The factors ``Complex[width]`` of the state in one step."""
        width = self.nesting.resolve(at)["width"]
        nu, theta = (each[:width].to(self._wide) for each in (self.nu, self.theta))
        return torch.polar(torch.exp(-torch.exp(nu)), torch.exp(theta))

    def state_width(self, width: int) -> int:
        """As many complex numbers as the width."""
        return width

    @property
    def state_dtype(self) -> torch.dtype:
        """complex64, or complex128 if the weights are float64."""
        return self._wide.to_complex()

    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """See :class:`Mixer`."""
        parts = self.inward(values, at=width).to(self._wide).view(*values.shape, 2)
        scale = torch.exp(self.gamma[:width].to(self._wide))[:, None]
        inputs = torch.view_as_complex(parts * scale)
        states = linear_recurrence(inputs, self.decay(width), state, scan=self.scan)
        by_time = torch.view_as_real(states.transpose(0, 1)).flatten(-2)
        return self.outward(by_time.to(self.nu.dtype), at=2 * width).transpose(0, 1), states

    def flops(self, at: At = None) -> float:
        """Multiply-adds of the two maps for one event."""
        width = self.nesting.resolve(at)["width"]
        return self.inward.flops(width) + self.outward.flops(2 * width)

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {**super().arguments(at), "r_min": self.r_min, "r_max": self.r_max, "scan": self.scan}

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        width = self.nesting.resolve(at)["width"]
        kept = {name: getattr(self, name)[:width] for name in ("nu", "theta", "gamma")}
        for name, part, size in (("inward", self.inward, width), ("outward", self.outward, 2 * width)):
            kept |= {f"{name}.{key}": weight for key, weight in part.weights(size).items()}
        return kept

    @property
    def _wide(self) -> torch.dtype:
        return torch.promote_types(self.nu.dtype, torch.float32)
