"""The nested form of any loss on embeddings: its weighted sum over the sizes of a nesting."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Real, Whole, check, checked
from nestling.arguments.formatting import shown
from nestling.axes import CODE_BITS, FLOAT_BITS
from nestling.bits import BitCode
from nestling.cut import RAW, CutRule, cut, cut_each
from nestling.errors import ConfigError, GranularityError, UntrainedGranularityWarning
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.losses.alignment import Alignment
from nestling.losses.prefix import PrefixLosses
from nestling.losses.quantisation import Quantisation, Rounded, RunningCode
from nestling.schedules import Draw, Draws, Every, Reduction, Schedule

Views: TypeAlias = Mapping[Granularity, Tensor]
"""Embeddings ``Float[batch, dim]`` before any cut, one for each rest of a nesting's granularities (a layer,
a number of tokens, ...), as ``encoder.views(inputs, nesting.rests)`` gives them."""


class Parts(NamedTuple):
    """A nested loss and its parts.

    Args:
        total: the loss to minimise.
        losses: the base loss at each granularity, detached, for the log.
        terms: added terms by name, such as ``align``, detached.
    """

    total: Tensor
    losses: dict[Granularity, Tensor]
    terms: Mapping[str, Tensor] = MappingProxyType({})


@runtime_checkable
class PrefixLoss(Protocol):
    """A base loss that computes the losses of all prefixes faster than one call per prefix."""

    def prefix_losses(
        self, *embeddings: Tensor, dims: Sequence[int], weights: Sequence[float], **rest: Any
    ) -> PrefixLosses | None:
        """The weighted sum and each loss; None if there is no faster method for these arguments."""
        ...


class Nested(nn.Module):
    """The loss ``sum_m c_m * base(prefixes of size m)`` over the sizes of a nesting.

    Works on the tensors of ONE forward pass, with any base: a loss of nestling or of
    pytorch-metric-learning, or a function of tensors. Positional arguments are embeddings
    ``Float[batch, dim]`` and are cut; keyword arguments (labels, scores) are passed on unchanged. For a
    nesting with axes besides ``dim``, each positional argument is a mapping from ``nesting.rests`` to
    embeddings: the result of ``encoder.views(texts, nesting.rests)``.

    Args:
        base: the loss at one size; called with the cut embeddings.
        nesting: sizes on any axes; the full dim is the width of the embeddings. Granularities without
            ``dim`` use the embeddings uncut.
        weights: the importance c_m of each size, all 1 by default; a list in the order of the nesting
            or a mapping from granularities.
        schedule: the sizes of each training step; sampled sizes are weighted so that the expected loss
            does not depend on the schedule. In ``eval()`` every size is used.
        reduction: ``"sum"`` as in the paper (the gradient grows with the number of sizes, so the best
            learning rate differs from that without nesting), or ``"mean"``, which divides by the sum of
            the c_m.
        rule: applied to the embeddings around the cut. The default only slices: cosine losses normalise
            by themselves, and losses that depend on lengths stay correct.
        align: a self-distillation term that pulls small granularities towards the full one, such as
            :class:`~nestling.losses.alignment.AlignScores`; it is logged.
        deep_documents: take all embeddings but the first (the queries) from the full layer (or tokens,
            width, ...): documents are computed in full and queries at any granularity.
        quantisation: rounding of embeddings at granularities with ``bits``. By default all but the
            first (the queries) are, to the values of a code of unit vectors that follows the batches.
        seed: seed of the schedule.
        fast: compute all prefixes at once if the base can; the result is the same.

    Raises:
        GranularityError: if the nesting is wider than the embeddings, or a view is missing.
        ConfigError: for weights that are negative, not finite, all zero, or not one per size.

    Source: MRL, arXiv 2205.13147, equation 1; with layers 2DMSE, arXiv 2402.14776, over a grid or
    random draws, and Starbucks, arXiv 2410.13230, over pairs.

    >>> from nestling.losses import InfoNCE
    >>> loss = Nested(InfoNCE(), Nesting.parse("dim=2,4"))
    >>> loss(torch.eye(4), torch.eye(4)).shape
    torch.Size([])
    >>> len(Nested(InfoNCE(), "dim=2,4 x bits=1,32").parts(torch.eye(4), torch.eye(4)).losses)
    4
    """

    base: Any
    _codes: Any  # a ModuleDict of running codes by rest

    @checked(reduction=OneOf(get_args(Reduction)), seed=Whole(0))
    def __init__(
        self,
        base: Callable[..., Tensor],
        nesting: AnyNesting,
        *,
        weights: Sequence[float] | Mapping[At, float] | None = None,
        schedule: Schedule = Every(),
        reduction: Reduction = "sum",
        rule: CutRule = RAW,
        align: Alignment | None = None,
        deep_documents: bool = False,
        quantisation: Quantisation = Quantisation(),
        seed: int = 0,
        fast: bool = True,
    ) -> None:
        super().__init__()
        nesting = Nesting.of(nesting)
        if deep_documents and not nesting.full.rest:
            raise ConfigError(
                "deep_documents=True takes documents from the full layer; give a nesting with layers, or "
                "with another axis besides dim"
            )
        if not isinstance(quantisation, Quantisation):
            raise ConfigError(
                f"quantisation={shown(quantisation)} must be a Quantisation, such as Quantisation(start=100)"
            )
        self.base, self.nesting, self.schedule = base, nesting, schedule
        self.reduction, self.rule, self.seed, self.fast = reduction, rule, seed, fast
        self.align, self.deep_documents, self.quantisation = align, deep_documents, quantisation
        self._codes = nn.ModuleDict(_running_codes(nesting, quantisation))
        self._draws = Draws(nesting, read_weights(nesting, weights), schedule, reduction, seed)

    def forward(self, *embeddings: Tensor | Views, **rest: Any) -> Tensor:
        """The weighted loss over the sizes of this step."""
        return self.parts(*embeddings, **rest).total

    def parts(self, *embeddings: Tensor | Views, **rest: Any) -> Parts:
        """The weighted loss and, detached, the loss at each size of this step."""
        columns = [self._read(column) for column in embeddings]
        draw = self._draw()
        totals: list[Tensor] = []
        losses: dict[Granularity, Tensor] = {}
        views = self._rounded(columns)
        for (view, bits), drawn in _by_vectors(draw).items():
            total, found = self._at_one_precision(views[view].at(bits), drawn, rest)
            totals.append(total)
            losses |= found
        terms = {} if self.align is None else {"align": self._aligned(self.align, views, draw)}
        total = torch.stack([*totals, *terms.values()]).sum()
        in_order = {g: losses[g] for g in draw}
        return Parts(total, in_order, {name: term.detach() for name, term in terms.items()})

    def _at_one_precision(
        self, embeddings: Sequence[Tensor], draw: Draw, rest: dict[str, Any]
    ) -> tuple[Tensor, dict[Granularity, Tensor]]:
        """The weighted sum, and the losses (detached), over sizes of the same embeddings."""
        dims = [g.get("dim", embeddings[0].shape[-1]) for g in draw]
        if self.fast and self.rule.after == "none" and isinstance(self.base, PrefixLoss):
            found = self.base.prefix_losses(*embeddings, dims=dims, weights=list(draw.values()), **rest)
            if found is not None:
                return found.total, dict(zip(draw, found.each.unbind(), strict=True))
        after = CutRule("none", self.rule.after)
        prefixes = [cut_each(x, dims, after) for x in embeddings]
        losses = {
            g: self._base_loss([each[dim] for each in prefixes], rest)
            for g, dim in zip(draw, dims, strict=True)
        }
        total = torch.stack([draw[g] * loss for g, loss in losses.items()]).sum()
        return total, {g: loss.detach() for g, loss in losses.items()}

    def _base_loss(self, prefixes: list[Tensor], rest: dict[str, Any]) -> Tensor:
        try:
            loss: Tensor = self.base(*prefixes, **rest)
        except (RuntimeError, ValueError) as error:
            given = prefixes[0].shape[-1]
            full = self.nesting.full.get("dim", given)
            if given < full and _holds_tensors_of(self.base, full):
                raise ConfigError(
                    f"{type(self.base).__name__} has weights for vectors of {full} dims and cannot take the "
                    f"first {given} of them ({error}). Use a loss without weights, such as "
                    "SupConLoss, MultiSimilarityLoss or TripletMarginLoss; for classes, "
                    "nestling.losses.CrossEntropy over a NestedClassifier"
                ) from error
            raise
        return loss

    def _aligned(self, align: Alignment, views: Mapping[Granularity, _Batch], draw: Draw) -> Tensor:
        after = CutRule("none", self.rule.after)

        def vectors(g: Granularity) -> list[Tensor]:
            columns = views[g.rest].at(g.get("bits", 32))
            return [cut(x, g.get("dim", x.shape[-1]), after) for x in columns]

        return align(vectors, draw, self.nesting.full)

    def _rounded(self, columns: Sequence[Views]) -> dict[Granularity, _Batch]:
        """The embeddings of every column at each rest, at any precision."""
        documents: dict[Granularity, Rounded] = {}
        batches = {}
        for rest in self.nesting.rests:
            first = min(1, len(columns) - 1)  # a single column is one of documents
            others = self.nesting.full.rest if self.deep_documents and first else rest
            if others not in documents:
                code = self._codes[str(others)] if self._codes else None
                documents[others] = Rounded([column[others] for column in columns[first:]], code)
            queries = Rounded([column[rest] for column in columns[:first]], None, documents[others])
            batches[rest] = _Batch(queries, documents[others], self.quantisation.both_sides)
        return batches

    def code(self, rest: Granularity | None = None) -> BitCode:
        """The code that the embeddings are rounded by now; None is that of the full granularity.

        Raises:
            ConfigError: for a nesting without codes.
        """
        return self._running(rest).code()

    def calibrated(self, rule: CutRule, sample: ArrayLike, *, encoder: str = "") -> CutRule:
        """A rule with the code of the trained embeddings; ranges that were learned are kept.

        Args:
            rule: of the trained model.
            sample: ``Float[n, dim]``, its embeddings at the full granularity before the rule.
            encoder: name of the model.
        """
        found = rule.calibrated(sample, encoder=encoder)
        if not self._codes:
            return found
        return replace(found, code=self._running(None).ranged(found.needed_code))

    def _running(self, rest: Granularity | None) -> RunningCode:
        if not self._codes:
            raise ConfigError(f"the nesting {self.nesting} has no codes; add bits, as in x bits=1,2,4,8,32")
        running: RunningCode = self._codes[str(self.nesting.full.rest if rest is None else rest)]
        return running

    def _draw(self) -> Draw:
        """The granularities of this step with their weights in the total."""
        staged = self._codes and self.quantisation.start
        if not self.training or (isinstance(self.schedule, Every) and not staged):
            return self._draws.every()
        draw: Draw = self._draw_of_step()
        return draw

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _draw_of_step(self) -> Draw:
        begun = self._draws.steps >= self.quantisation.start
        return self._draws.next(self.nesting if begun or not self._codes else _floats_of(self.nesting))

    def _read(self, given: Tensor | Views) -> dict[Granularity, Tensor]:
        """The embeddings of one column by rest, prepared for the cut."""
        views = {Granularity(): given} if isinstance(given, Tensor) else given
        missing = [rest for rest in self.nesting.rests if rest not in views]
        if missing:
            raise GranularityError(
                f"the nesting {self.nesting} needs embeddings at {'; '.join(map(str, missing))}, but "
                f"got them at {'; '.join(map(str, views))} only; give encoder.views(inputs, nesting.rests)"
            )
        found = {rest: views[rest] for rest in self.nesting.rests}
        for x in found.values():
            self._check_width(x)
        before, full = CutRule(self.rule.before, "none"), self.nesting.full.get("dim")
        return {rest: cut(x, full or x.shape[-1], before) for rest, x in found.items()}

    def _check_width(self, x: Tensor) -> None:
        full = self.nesting.full.get("dim", x.shape[-1])
        if x.shape[-1] < full:
            raise GranularityError(
                f"the nesting {self.nesting} needs embeddings of {full} dims, but these have "
                f"{x.shape[-1]}; use a nesting whose last size is {x.shape[-1]}"
            )
        if x.shape[-1] > full:
            warnings.warn(
                f"the embeddings have {x.shape[-1]} dims and the nesting ends at {full}: "
                "the dims after it are not trained; end the nesting with the full size",
                UntrainedGranularityWarning,
                stacklevel=5,
            )

    def get_extra_state(self) -> Tensor:
        """The number of steps of a schedule, so that a resumed run continues the same sequence."""
        return torch.tensor(self._draws.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the sequence of samples."""
        self._draws.steps = int(state)


class _Batch(NamedTuple):
    """The embeddings of a batch at one rest."""

    queries: Rounded
    documents: Rounded
    both_sides: bool

    def at(self, bits: int) -> list[Tensor]:
        """All columns at one precision."""
        return [*self.queries.at(bits if self.both_sides else 32), *self.documents.at(bits)]


def _holds_tensors_of(base: object, size: int) -> bool:
    """Whether a loss holds weights or cached vectors of that size."""
    if not isinstance(base, nn.Module):
        return False
    held = [*base.parameters(), *base.buffers()]
    held += [each for part in base.modules() for each in vars(part).values() if isinstance(each, Tensor)]
    return any(size in each.shape for each in held)


def _by_vectors(draw: Draw) -> dict[tuple[Granularity, int], Draw]:
    """A draw by what is the same but for its dims: the rest, and the precision."""
    found: dict[tuple[Granularity, int], Draw] = {}
    for g, factor in draw.items():
        found.setdefault((g.rest, g.get("bits", 32)), {})[g] = factor
    return found


def _floats_of(nesting: Nesting) -> Nesting:
    return Nesting(tuple(g for g in nesting if g["bits"] == nesting.full["bits"]))


def _running_codes(nesting: Nesting, how: Quantisation) -> dict[str, RunningCode]:
    """A code for each rest of a nesting over ``bits``."""
    if "bits" not in nesting.axes or not set(nesting.sizes("bits")) & set(CODE_BITS):
        return {}
    if "dim" not in nesting.axes or nesting.full["bits"] != max(FLOAT_BITS):
        raise GranularityError(
            f"training for bits needs the width of the embeddings and the floats; the nesting {nesting} has "
            'to name dim and bits=32, as in "dim=64..256 x bits=1,2,4,8,32"'
        )
    return {str(rest): RunningCode(nesting.full["dim"], how) for rest in nesting.rests}


def read_weights(
    nesting: Nesting, weights: Sequence[float] | Mapping[At, float] | None
) -> dict[Granularity, float]:
    """The weight of each granularity, from a list in their order or a mapping; None is 1 for all.

    Raises:
        ConfigError: for weights that are negative, not finite, all zero, or not one per size.
    """
    if weights is None:
        return dict.fromkeys(nesting, 1.0)
    if isinstance(weights, Mapping):
        given = {nesting.resolve(at): weight for at, weight in weights.items()}
        weights = [given.get(g, 1.0) for g in nesting]
    values = [check("weights", float(weight), Real(least=0)) for weight in weights]
    if len(values) != len(nesting):
        raise ConfigError(
            f"{len(values)} weights are given for the {len(nesting)} sizes of {nesting}; give one for each"
        )
    if sum(values) == 0:
        raise ConfigError(f"weights={values} must not all be 0; give each size a share of the loss")
    return dict(zip(nesting, values, strict=True))
