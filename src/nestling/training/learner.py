"""One optimiser step: forward, backward, checks and update; and the state to checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from inspect import isgeneratorfunction
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from nestling.errors import ArtifactError, ConfigError, NonFiniteError, require
from nestling.training.config import TrainConfig
from nestling.training.processes import average_gradients, check_same_names, copy_from_first, is_sharded
from nestling.training.seeding import STEP, seed_from
from nestling.training.sharded import collect_shards, spread_shards

Objective = Callable[[Any, Any], Any]
"""``objective(model, batch)`` -> a scalar loss, or an object with ``total`` and ``losses``, such as
:class:`nestling.losses.nested.Parts`. A generator function yields several of them."""

TOTAL = ""
_END = object()
_SMALLEST_LOSS_SCALE = 2.0**-14
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepReport:
    """Losses and gradient norm of one step.

    Args:
        losses: means over its rows and all processes; the total under ``""``, the others by granularity.
        gradient_norm: before clipping.
    """

    losses: dict[str, float]
    gradient_norm: float


class Learner:
    """A model, its objective and their optimiser, on the devices of an ``Accelerator``.

    Args:
        model: the model to train; moved to the device.
        objective: if it is a module, its parameters are trained too.
        config: of the optimiser, precision and clipping.
        accelerator: of the run.

    Raises:
        ConfigError: if no parameter of the two requires a gradient.
    """

    wrapped: Any

    def __init__(self, model: nn.Module, objective: Objective, config: TrainConfig, accelerator: Any) -> None:
        self.model, self.objective, self.config, self.accelerator = model, objective, config, accelerator
        self.modules = [m for m in (model, objective) if isinstance(m, nn.Module)]
        self._modes = {part: part.training for module in self.modules for part in module.modules()}
        self._names = _trained_parameters(self.modules)
        self.sharded = is_sharded(accelerator)
        self._yields = _is_generator_function(objective)
        # DDP expects every weight in one backward pass; here each loss has its own, of some of the weights.
        in_model = set() if self._yields else set(model.parameters())
        self._own = [parameter for parameter in self._names if parameter not in in_model]
        if self.sharded and (self._own or config.mixed_precision == "fp16"):
            raise ConfigError(
                "FSDP supports neither fp16 nor an objective that yields its losses or has parameters; use "
                "DDP, or bf16 without them"
            )
        for module in self.modules[1:]:
            module.to(accelerator.device)
        self.optimizer = torch.optim.AdamW(_decay_groups(self._names, config.weight_decay))
        is_bare = len(self._own) == len(self._names)
        self.wrapped = (
            model.to(accelerator.device) if is_bare else accelerator.prepare(model, self.optimizer)[0]
        )
        if accelerator.num_processes > 1:
            alone = self.modules if is_bare else self.modules[1:]
            copy_from_first(tensor for part in alone for tensor in chain(part.parameters(), part.buffers()))
        device = accelerator.device.type
        self.scaler = torch.amp.GradScaler(device, enabled=config.mixed_precision == "fp16")

    def step(self, number: int, batches: Iterable[tuple[Any, float]], rate: float) -> StepReport:
        """Optimiser step ``number`` (from 1) over pairs (batch, its share of the rows of the step).

        Raises:
            NonFiniteError: if a loss or a gradient is NaN or infinite; the weights are not changed.
            ConfigError: if the objective returns no scalar, or other losses in another process.
        """
        seed_from(
            self.config.seed, STEP, number, self.accelerator.process_index, device=self.accelerator.device
        )
        losses = self._mean_over_processes(self._accumulate(list(batches)))
        self._check_losses(losses, number)
        norm = self._clip(number, losses)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._yields and self.accelerator.num_processes > 1:
            copy_from_first(self.model.buffers())  # running statistics, which DDP copies too
        return StepReport(losses, norm)

    def _accumulate(self, batches: list[tuple[Any, float]]) -> dict[str, Tensor]:
        """Accumulates gradients of the mean over the batches; returns the mean losses by name."""
        sums: dict[str, Tensor] = {}
        shares: dict[str, float] = {}
        for place, (batch, share) in enumerate(batches, start=1):
            with self._unsynchronised(place < len(batches)):
                losses = self._backward(batch, share)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss * share
                shares[name] = shares.get(name, 0.0) + share
        return {name: total / shares[name] for name, total in sums.items()}

    def _unsynchronised(self, wanted: bool) -> AbstractContextManager[Any]:
        return self.accelerator.no_sync(self.wrapped) if wanted else nullcontext()

    def _backward(self, batch: Any, share: float) -> dict[str, Tensor]:
        """Back-propagates each loss of a batch before the next is computed; returns them, detached."""
        batch = require("accelerate.utils", "train").send_to_device(batch, self.accelerator.device)
        losses: dict[str, Tensor] = {}
        with closing(self._objective_losses(batch)) as found:
            while self._backward_next(found, share, losses):
                pass
        if not losses:
            raise ConfigError("the objective yielded no loss; it must yield at least one for each batch")
        return losses

    def _objective_losses(self, batch: Any) -> Generator[Any, None, None]:
        if self._yields:
            yield from self.objective(self.wrapped, batch)
        else:
            yield self.objective(self.wrapped, batch)

    def _backward_next(self, found: Iterator[Any], share: float, losses: dict[str, Tensor]) -> bool:
        """Back-propagates one loss and adds its values; False at the end.

        On return no name holds its graph any more: memory is that of one loss.
        """
        with self._precision():
            loss = next(found, _END)
        if loss is _END:
            return False
        total, values = _read_loss(loss)
        self.scaler.scale(total * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {TOTAL: total, **values}.items():
            losses[name] = losses.get(name, 0.0) + value.detach()
        return True

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.mixed_precision == "no":
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=_DTYPES[self.config.mixed_precision])

    def _mean_over_processes(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses as numbers, averaged over all processes so that all stop together at a NaN."""
        wide = torch.promote_types(losses[TOTAL].dtype, torch.float32)
        values = torch.stack([loss.to(wide) for loss in losses.values()])
        if self.accelerator.num_processes > 1:
            check_same_names(self.accelerator, losses)
            values = self.accelerator.reduce(values, "mean")
            average_gradients(self.accelerator, self._own)
        return dict(zip(losses, values.tolist(), strict=True))

    def _check_losses(self, losses: Mapping[str, float], number: int) -> None:
        bad = {name or "the total": value for name, value in losses.items() if not math.isfinite(value)}
        if bad:
            values = ", ".join(f"{value} at {name}" for name, value in bad.items())
            raise NonFiniteError(
                f"the loss of step {number} is not finite: {values}. The weights are those of step "
                f"{number - 1}. Look for NaN or zero rows in the data, lower lr={self.config.lr}, or use "
                "mixed_precision='no'"
            )

    def _clip(self, number: int, losses: Mapping[str, float]) -> float:
        """Clip the gradients; returns their norm before."""
        self.scaler.unscale_(self.optimizer)
        limit = self.config.max_grad_norm or math.inf
        if self.sharded:
            norm, bad = float(self.accelerator.clip_grad_norm_(self.wrapped.parameters(), limit)), ["a shard"]
        else:
            norm, bad = self._clip_whole(limit)
        if not math.isfinite(norm):
            self._check_overflow(number, losses[TOTAL], bad)
        return norm

    def _clip_whole(self, limit: float) -> tuple[float, list[str]]:
        """Clip the gradients of unsharded weights; returns their norm, and parameters with bad gradients."""
        gradients = {name: p.grad for p, name in self._names.items() if p.grad is not None}
        if not gradients:
            raise ConfigError(
                "the loss depends on no parameter of model or objective, so nothing can be trained"
            )
        norms = torch.stack([gradient.norm() for gradient in gradients.values()])
        norm = float(norms.norm())
        if not math.isfinite(norm):
            return norm, [name for name, one in zip(gradients, norms, strict=True) if not one.isfinite()]
        if norm > limit:
            for gradient in gradients.values():
                gradient.mul_(limit / norm)
        return norm, []

    def _check_overflow(self, number: int, loss: float, bad: list[str]) -> None:
        # Under fp16 the scaler skips steps whose gradients overflow and lowers its scale, down to a limit.
        if self.scaler.is_enabled() and self.scaler.get_scale() > _SMALLEST_LOSS_SCALE:
            return
        raise NonFiniteError(
            f"the gradient of step {number} is not finite in {', '.join(bad[:3])}, although the loss is "
            f"{loss:.4g}. The weights are those of step {number - 1}. Look for square roots, logarithms or "
            "norms of zero, or use mixed_precision='no'"
        )

    def train(self, mode: bool = True) -> None:
        """Put model and objective in training or evaluation mode."""
        for module in self.modules:
            module.train(mode)
        self.wrapped.train(mode)

    def state(self) -> dict[str, Any]:
        """Everything that a step changes."""
        weights, optimizer = self._model_state()
        return {
            "model": weights,
            "objective": [module.state_dict() for module in self.modules[1:]],
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load the result of :meth:`state`.

        Raises:
            ArtifactError: if the shapes or names are those of another model.
        """
        try:
            self._load_model_state(state["model"], state["optimizer"])
            for module, saved in zip(self.modules[1:], state["objective"], strict=True):
                module.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ArtifactError(f"the checkpoint belongs to another model or objective: {error}") from error
        self.scaler.load_state_dict(state["scaler"])

    def _model_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if not self.sharded:
            return self.model.state_dict(), self.optimizer.state_dict()
        return collect_shards(self.wrapped, self.optimizer)

    def _load_model_state(self, weights: dict[str, Any], optimizer: dict[str, Any]) -> None:
        if self.sharded:
            spread_shards(self.wrapped, self.optimizer, weights, optimizer)
        else:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(optimizer)

    def release(self) -> None:
        """Restore everything about the modules but the trained weights."""
        self.optimizer.zero_grad(set_to_none=True)
        for part, mode in self._modes.items():
            part.training = mode
        vars(self.model).pop("_is_accelerate_prepared", None)  # or the next run would not move it


def _is_generator_function(objective: Objective) -> bool:
    call = objective.forward if isinstance(objective, nn.Module) else objective
    return isgeneratorfunction(call) or isgeneratorfunction(type(call).__call__)


def _read_loss(found: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The total and the losses and terms by name of what an objective returned or yielded."""
    total = getattr(found, "total", found)
    if not isinstance(total, Tensor) or total.ndim or not total.requires_grad:
        given = f"a tensor of shape {tuple(total.shape)}" if isinstance(total, Tensor) else repr(type(total))
        hint = (
            "; an objective that yields is itself a generator function" if isinstance(total, Iterator) else ""
        )
        raise ConfigError(
            f"the objective must return or yield a scalar loss that depends on the weights, or Parts(total, "
            f"losses); it gave {given}{hint}"
        )
    losses = {str(at): loss for at, loss in getattr(found, "losses", {}).items()}
    return total, losses | dict(getattr(found, "terms", {}))


def _trained_parameters(modules: list[nn.Module]) -> dict[nn.Parameter, str]:
    """The trainable parameters of model and objective, each once, with their names."""
    names: dict[nn.Parameter, str] = {}
    for prefix, module in zip(("", "objective."), modules, strict=False):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                names.setdefault(parameter, prefix + name)
    if not names:
        raise ConfigError("nothing can be trained: no parameter of model or objective requires a gradient")
    return names


def _decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and scalars do not."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
