"""Conformance suite for base losses: run it on your own with ``check_loss``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nestling.cut import RAW, cut
from nestling.errors import DataError
from nestling.granularity import AnyNesting, Nesting
from nestling.losses.nested import Nested, PrefixLoss
from nestling.testing.laws import LawError, as_laws, check_refused, random_state

_ADVICE = "check the shapes and raise a nestling.errors.DataError that says what is wrong"
_LEAST_ROWS = 4
_STEP = 1e-6  # of a finite difference in float64: its error is near 1e-9 of the loss
_HALF_PRECISION = 0.1  # bfloat16 keeps 8 bits, and a loss multiplies cosines by some 20


@dataclass(frozen=True)
class LossExample:
    """A loss under test, with a batch that it accepts.

    Args:
        loss: called as ``loss(*embeddings, **rest)``.
        embeddings: matrices ``Float[batch, dim]``, at least four rows; random ones are best.
        rest: other arguments, such as labels or scores. The first axis of each tensor is the batch;
            a square tensor ``[batch, batch]`` has the batch on both axes.
        nesting: dims to cut the embeddings to; a quarter, a half and the whole by default.
        any_order: the loss does not depend on the order of the batch.
        tolerance: largest relative and absolute difference that counts as equal in float64.
    """

    loss: Any
    embeddings: Sequence[Tensor]
    rest: Mapping[str, Any] = field(default_factory=dict)
    nesting: AnyNesting | None = None
    any_order: bool = True
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        given = (
            list(self.embeddings) if isinstance(self.embeddings, (Sequence, Tensor)) else [self.embeddings]
        )
        if not given or not all(map(_is_matrix, given)):
            shapes = ", ".join(_in_words(x) for x in given[:3]) or "none"
            raise DataError(
                f"embeddings must be torch matrices Float[batch, dim] of at least four rows, not {shapes}; "
                "pass a list with one for each argument of the loss, arrays as torch.from_numpy(x)"
            )

    @property
    def dims(self) -> tuple[int, ...]:
        """The prefixes that are tried, the whole last."""
        if self.nesting is not None:
            return Nesting.of(self.nesting).sizes("dim")
        full = self.embeddings[0].shape[-1]
        return tuple(sorted({max(full // 4, 1), max(full // 2, 1), full}))

    @property
    def name(self) -> str:
        """The name of the loss in messages."""
        return getattr(self.loss, "__name__", type(self.loss).__name__)

    def batch(self, dtype: torch.dtype = torch.float64) -> Batch:
        """A copy of everything in one precision, so that no law sees what another has done."""
        loss = copy.deepcopy(self.loss)
        if isinstance(loss, nn.Module):
            loss = loss.to(dtype)
        columns = [x.detach().clone().to(dtype).requires_grad_() for x in self.embeddings]
        return Batch(loss, columns, {name: _in(value, dtype) for name, value in self.rest.items()})


class Batch(NamedTuple):
    """A loss and what it is called with."""

    loss: Any
    columns: list[Tensor]
    rest: dict[str, Any]

    def at(self, dim: int) -> Tensor:
        """The loss of the first ``dim`` entries of each embedding, cut by hand."""
        value: Tensor = self.loss(*(cut(x, dim, RAW) for x in self.columns), **self.rest)
        return value

    @property
    def leaves(self) -> list[Tensor]:
        """The trained tensors: the embeddings, and the weights of the loss itself."""
        held = self.loss.parameters() if isinstance(self.loss, nn.Module) else ()
        return [*self.columns, *(each for each in held if each.requires_grad)]

    def gradients(self, value: Tensor) -> list[Tensor]:
        """The gradient of every leaf, zeros where the loss does not depend on it."""
        found = torch.autograd.grad(value, self.leaves, allow_unused=True)
        pairs = zip(found, self.leaves, strict=True)
        return [torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in pairs]


def finite(example: LossExample) -> None:
    """Law 1: one finite number that can be minimised, also for rows that are equal or zero."""
    for case, change in _HARD_ROWS.items():
        batch = example.batch()
        columns = change([x.detach() for x in batch.columns])
        batch = batch._replace(columns=[x.requires_grad_() for x in columns])
        for dim in example.dims:
            value = batch.at(dim)
            if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
                raise LawError(
                    f"finite: {example.name} gives {_in_words(value)}; a loss is one float: take the mean"
                )
            if not value.requires_grad:
                raise LawError(f"finite: no gradient reaches the embeddings of {example.name} at dim={dim}")
            if not torch.isfinite(value):
                raise LawError(f"finite: the loss is {value.item()} at dim={dim}, {case}")
            if not all(bool(torch.isfinite(each).all()) for each in batch.gradients(value)):
                raise LawError(f"finite: a gradient is NaN or infinite at dim={dim}, {case}")


def gradients(example: LossExample) -> None:
    """Law 2: gradients of embeddings and of the loss's own weights are those of finite differences."""
    for number, dim in enumerate(example.dims):
        batch = example.batch()
        found = batch.gradients(batch.at(dim))
        if not any(bool(each.any()) for each in found[: len(batch.columns)]):
            raise LawError(
                f"gradients: the gradient of every embedding is zero at dim={dim}: nothing is learned"
            )
        generator = torch.Generator().manual_seed(number)
        for leaf, gradient in zip(batch.leaves, found, strict=True):
            direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
            expected = _slope(batch, dim, leaf, direction)
            slope = float((gradient * direction).sum())
            if abs(slope - expected) > example.tolerance * max(1.0, abs(expected)):
                raise LawError(
                    f"gradients: at dim={dim} autograd gives a slope of {slope:.6g} in a random direction, "
                    f"finite differences in float64 give {expected:.6g}"
                )


def nesting(example: LossExample) -> None:
    """Law 3: the nested loss is the weighted sum of the losses of embeddings that are cut by hand."""
    _agree("nesting", "Nested(loss, nesting)", example, fast=False)


def fast_path(example: LossExample) -> None:
    """Law 4: ``prefix_losses``, where the loss has it, gives the losses and gradients of the plain form."""
    if isinstance(example.loss, PrefixLoss):
        _agree("fast path", "prefix_losses", example, fast=True)


def batch_order(example: LossExample) -> None:
    """Law 5: the order of the batch does not matter."""
    if not example.any_order:
        return
    batch = example.batch()
    rows = len(batch.columns[0])
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    shuffled = Batch(
        batch.loss,
        [x[order] for x in batch.columns],
        {name: _ordered(value, order) for name, value in batch.rest.items()},
    )
    for dim in example.dims:
        what, than = (
            f"batch order: the loss of a shuffled batch at dim={dim}",
            "that of the batch in its order",
        )
        _same(what, shuffled.at(dim), batch.at(dim), example, than)


def precision(example: LossExample) -> None:
    """Law 6: bfloat16 embeddings under autocast work, with a loss near that in float32."""
    plain, half = (example.batch(torch.float32) for _ in range(2))
    rounded = [x.detach().bfloat16() for x in half.columns]
    plain = plain._replace(columns=[x.float().requires_grad_() for x in rounded])
    half = half._replace(columns=[x.requires_grad_() for x in rounded])
    for fast in (False, True):
        ways = [Nested(each.loss, _chain(example), fast=fast) for each in (plain, half)]
        expected = ways[0](*plain.columns, **plain.rest)
        try:
            with torch.autocast("cpu", torch.bfloat16):
                found = ways[1](*half.columns, **half.rest)
            reached = half.gradients(found)
        except (RuntimeError, TypeError) as error:
            raise LawError(f"precision: {example.name} fails under autocast: {error}") from error
        if not torch.isclose(found.float(), expected.float(), rtol=_HALF_PRECISION, atol=_HALF_PRECISION):
            raise LawError(
                f"precision: the loss is {found.item():.4g} under autocast, not {expected.item():.4g}; "
                "compute sums and logarithms in float32"
            )
        if not all(bool(torch.isfinite(each).all()) for each in reached):
            raise LawError("precision: a gradient is NaN or infinite under autocast")


def refusal(example: LossExample) -> None:
    """Law 7: a batch that does not fit together is a ``ValueError``, and NaN is never hidden."""
    batch = example.batch()
    first, *others = batch.columns
    ways = {"": batch.loss, ", by prefix_losses,": Nested(batch.loss, _chain(example))}
    for case, columns, rest in _misfits(batch):
        for way, loss in ways.items():
            check_refused(f"refusal: {case}{way}", partial(loss, *columns, **rest), ValueError, _ADVICE)
    spoilt = first.detach().clone()
    spoilt[0, 0] = torch.nan
    try:
        value = batch.loss(spoilt, *others, **batch.rest)
    except ValueError:
        return
    if not value.isnan():
        raise LawError(f"refusal: an embedding holds NaN and the loss is {value.item()}, so nobody notices")


def innocence(example: LossExample) -> None:
    """Law 8: the same batch gives the same loss; inputs, weights and global random state do not change."""
    batch = example.batch()
    columns, rest = [x.detach().clone() for x in batch.columns], copy.deepcopy(batch.rest)
    weights, state = _weights(batch.loss), random_state()
    first, second = (torch.stack([batch.at(dim) for dim in example.dims]) for _ in range(2))
    if random_state() != state:
        raise LawError("innocence: the global random state was changed; take a seed instead")
    if not all(map(torch.equal, columns, batch.columns)) or not _equal(rest, batch.rest):
        raise LawError("innocence: the batch was changed")
    if not _equal(weights, _weights(batch.loss)):
        raise LawError("innocence: weights or buffers of the loss were changed by a call")
    if not torch.equal(first, second):
        raise LawError("innocence: a second call on the same batch gives another loss")


LOSS_LAWS: tuple[Callable[[LossExample], None], ...] = as_laws(
    finite,
    gradients,
    nesting,
    fast_path,
    batch_order,
    precision,
    refusal,
    innocence,
)
"""The laws one by one, for a parametrised test; :func:`check_loss` runs them all."""


def check_loss(
    loss: Callable[..., Tensor],
    embeddings: Sequence[Tensor],
    rest: Mapping[str, Any] | None = None,
    *,
    nesting: AnyNesting | None = None,
    any_order: bool = True,
    tolerance: float = 1e-5,
) -> None:
    """Check a base loss that is to be used as ``Nested(loss, nesting)``.

    Args:
        loss: a function of tensors, or a module.
        embeddings: a batch that it accepts: matrices ``Float[batch, dim]``, at least four rows. Random ones
            are best: rows that are special can hide a wrong gradient.
        rest: keyword arguments of the loss, such as labels or scores.
        nesting: dims to cut the embeddings to; a quarter, a half and the whole by default.
        any_order: the loss does not depend on the order of the batch.
        tolerance: largest relative and absolute difference that counts as equal in float64.

    Raises:
        LawError: for the first law that is broken.
        DataError: for embeddings that are no such matrices.

    >>> from nestling.losses import InfoNCE
    >>> check_loss(InfoNCE(), torch.randn(2, 8, 16).unbind())
    """
    example = LossExample(loss, embeddings, rest or {}, nesting, any_order, tolerance)
    for law in LOSS_LAWS:
        law(example)


_HARD_ROWS: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
    "for the batch given": lambda columns: columns,
    "for rows that are all equal": lambda columns: [columns[0][:1].repeat(len(x), 1) for x in columns],
    "for a row of zeros": lambda columns: [x * (torch.arange(len(x)) > 0)[:, None] for x in columns],
}


def _in(value: Any, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.detach().clone().to(dtype if value.is_floating_point() else value.dtype)


def _is_matrix(x: object) -> bool:
    return isinstance(x, Tensor) and x.ndim == 2 and x.is_floating_point() and len(x) >= _LEAST_ROWS


def _in_words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return f"a {type(value).__name__}"


def _slope(batch: Batch, dim: int, leaf: Tensor, direction: Tensor) -> float:
    """The central difference of the loss along a direction of one leaf."""
    values = []
    with torch.no_grad():
        kept = leaf.clone()
        for sign in (1, -1):
            leaf.copy_(kept + sign * _STEP * direction)
            values.append(batch.at(dim).item())
        leaf.copy_(kept)
    return (values[0] - values[1]) / (2 * _STEP)


def _chain(example: LossExample) -> Nesting:
    return Nesting.chain(dim=example.dims)


def _agree(law: str, what: str, example: LossExample, *, fast: bool) -> None:
    """Hold the nested loss, its parts and its gradients to sums by hand, with a weight for each size."""
    weights = [1.0 + number for number in range(len(example.dims))]
    batch = example.batch()
    nested = Nested(batch.loss, _chain(example), weights=weights, fast=fast)
    parts = nested.parts(*batch.columns, **batch.rest)
    each = [batch.at(dim) for dim in example.dims]
    for dim, found, expected in zip(example.dims, parts.losses.values(), each, strict=True):
        _same(f"{law}: the loss at dim={dim} by {what}", found, expected, example)
    total = torch.stack([weight * value for weight, value in zip(weights, each, strict=True)]).sum()
    _same(f"{law}: the weighted sum by {what}", parts.total, total, example)
    pairs = zip(batch.gradients(parts.total), batch.gradients(total), strict=True)
    for number, (found, expected) in enumerate(pairs):
        place = number - len(batch.columns)
        leaf = f"embedding {number}" if place < 0 else f"weight {place} of the loss"
        _same(f"{law}: the gradient of {leaf} by {what}", found, expected, example)


def _same(
    what: str,
    found: Tensor,
    expected: Tensor,
    example: LossExample,
    than: str = "the plain sum of losses on embeddings cut by hand",
) -> None:
    wide = found.detach().double(), expected.detach().double()
    if not torch.allclose(*wide, rtol=example.tolerance, atol=example.tolerance):
        apart = float((wide[0] - wide[1]).abs().max())
        raise LawError(f"{what} differs by {apart:.3g} from {than}")


def _ordered(value: Any, order: Tensor) -> Any:
    if not isinstance(value, Tensor) or value.shape[:1] != order.shape:
        return value
    both = value.ndim > 1 and value.shape[1] == len(order)
    return value[order][:, order] if both else value[order]


def _misfits(batch: Batch) -> list[tuple[str, list[Tensor], dict[str, Any]]]:
    """Batches that no loss may accept, by what is wrong with them."""
    columns, rest, rows = batch.columns, batch.rest, len(batch.columns[0])

    def shortened(count: int) -> dict[str, Any]:
        return {name: _first_rows(value, rows, count) for name, value in rest.items()}

    found = [("batches without rows", [x[:0] for x in columns], shortened(0))]
    if len(columns) > 1:
        found += [
            (
                f"{count} rows in the last column and {rows} in the first",
                [*columns[:-1], columns[-1][:count]],
                rest,
            )
            for count in (rows - 1, 1)
        ]
        found.append(("columns of different dims", [*columns[:-1], columns[-1][:, :1]], rest))
    for name, value in rest.items():
        if isinstance(value, Tensor) and value.shape[:1] == (rows,):
            found.append((f"{rows - 1} {name} for {rows} rows", columns, {**rest, name: value[:-1]}))
    return found


def _first_rows(value: Any, rows: int, count: int) -> Any:
    if not isinstance(value, Tensor) or value.shape[:1] != (rows,):
        return value
    return value[:count, :count] if value.ndim > 1 and value.shape[1] == rows else value[:count]


def _weights(loss: object) -> dict[str, Tensor]:
    if not isinstance(loss, nn.Module):
        return {}
    return {name: each.detach().clone() for name, each in loss.state_dict().items()}


def _equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        torch.equal(value, right[name]) if isinstance(value, Tensor) else value == right[name]
        for name, value in left.items()
    )
