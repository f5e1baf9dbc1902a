"""Terms that draw what small granularities give towards what the full one gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import OneOf, Real, Whole, checked
from nestling.cut import RAW, CutRule, cut
from nestling.errors import DataError
from nestling.granularity import Granularity
from nestling.schedules import Draw

Vectors = Callable[[Granularity], Sequence[Tensor]]
"""The columns (queries, documents, ...) of a batch at one granularity: ``Float[batch, dim]`` each."""

_FORMS = ("pca", "published")

_WEIGHT = Real(least=0)
_TEMPERATURE = Real(above=0, hint="it divides the scores")


@runtime_checkable
class Alignment(Protocol):
    """A term that a nested loss adds, from the vectors of one pass."""

    def __call__(self, vectors: Vectors, draw: Draw, full: Granularity) -> Tensor:
        """The term over the granularities of a step, each weighted as the step weights its loss."""
        ...


class AlignScores(nn.Module):
    """The ranking of the batch: each query's scores over the documents, as the full granularity has them.

    ``weight * sum_g c_g * KL(softmax(full scores / T) || softmax(scores at g / T))``, the mean over the
    queries, which are the first column; all others are documents.

    Args:
        weight: of the term, at least 0.
        temperature: T, above 0.
        rule: what is done to the vectors before their products: cosines by default, ``RAW`` for dot products.
        detach: do not let the full granularity learn from the small ones.

    Raises:
        ConfigError: for numbers outside their range.

    Source: Starbucks, arXiv 2410.13230, fine-tuning for retrieval.
    """

    @checked(weight=_WEIGHT, temperature=_TEMPERATURE)
    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.05,
        *,
        rule: CutRule = CutRule(),
        detach: bool = True,
    ) -> None:
        super().__init__()
        self.weight, self.temperature, self.rule, self.detach = weight, temperature, rule, detach

    def forward(self, vectors: Vectors, draw: Draw, full: Granularity) -> Tensor:
        """See :class:`Alignment`."""
        teacher = self._scores(vectors(full))
        if self.detach:
            teacher = teacher.detach()
        terms = [
            factor * _divergence(teacher, self._scores(vectors(g))) for g, factor in draw.items() if g != full
        ]
        return self.weight * _sum(terms, teacher)

    def _scores(self, columns: Sequence[Tensor]) -> Tensor:
        ready = [cut(column, column.shape[-1], self.rule) for column in columns]
        documents = torch.cat(ready[1:] or ready)
        return ready[0] @ documents.T / self.temperature


class AlignVectors(nn.Module):
    """The entries themselves: a softmax over the entries of each vector, as the full granularity has it.

    ``weight * T^2 * sum_g c_g * KL(softmax(x / T) || softmax(x_g / T))`` with x of the full layer, cut to
    the entries of g. Of vectors that the model itself normalises the softmax is nearly flat, and the term
    nearly nothing: its size stands in the log.

    Args:
        weight: of the term, at least 0.
        temperature: T, above 0.
        whole: align only granularities of the full dim (2DMSE); otherwise each at its own (Starbucks, STS).
        detach: do not let the full layer learn from the small ones; both papers' code does.

    Raises:
        ConfigError: for numbers outside their range.

    Source: 2DMSE, arXiv 2402.14776, and Starbucks, arXiv 2410.13230, their public code.
    """

    @checked(weight=_WEIGHT, temperature=_TEMPERATURE)
    def __init__(
        self, weight: float = 1.0, temperature: float = 1.0, *, whole: bool = False, detach: bool = True
    ) -> None:
        super().__init__()
        self.weight, self.temperature, self.whole, self.detach = weight, temperature, whole, detach

    def forward(self, vectors: Vectors, draw: Draw, full: Granularity) -> Tensor:
        """See :class:`Alignment`."""
        terms = []
        for g, factor in draw.items():
            at_full = full.replace(dim=g.get("dim"))
            if g == at_full or (self.whole and g.get("dim") != full.get("dim")):
                continue
            teacher, student = (torch.cat(list(vectors(each))) / self.temperature for each in (at_full, g))
            terms.append(factor * _divergence(teacher.detach() if self.detach else teacher, student))
        return self.weight * self.temperature**2 * _sum(terms, vectors(full)[0])


class Compress(nn.Module):
    """The first entries hold the main components of the whole vector (ESE's learning to compress).

    For every layer of a step, ``weight * (MSE(x[:k], P) + T * KL(softmax(P / T) || softmax(x[:k] / T)))``:
    P are the coordinates of the whole vectors x along their first k components.

    Args:
        k: entries.
        weight: of the term, at least 0.
        temperature: T, above 0.
        form: ``"pca"``: the true main components, turned and scaled as a whole to lie nearest to the first
            entries, so that no sign or order of theirs matters, with x in units of its root mean square;
            ``"published"``: the first singular vectors of a row-softmaxed Gram matrix, scaled by their
            singular values, which are dominated by the first.

    Raises:
        ConfigError: for numbers outside their range or an unknown form.
        DataError: for a batch with fewer vectors than components, or vectors with fewer entries.

    Source: ESE, arXiv 2402.14776 v2, its public code.
    """

    @checked(k=Whole(1), weight=_WEIGHT, temperature=_TEMPERATURE, form=OneOf(_FORMS))
    def __init__(self, k: int, weight: float = 1.0, temperature: float = 1.0, *, form: str = "pca") -> None:
        super().__init__()
        self.k, self.weight, self.temperature, self.form = k, weight, temperature, form

    def forward(self, vectors: Vectors, draw: Draw, full: Granularity) -> Tensor:
        """See :class:`Alignment`."""
        if self.k > full["dim"]:
            raise DataError(f"{self.k} components cannot be found in vectors of {full['dim']} entries")
        factors: dict[Granularity, float] = {}
        for g, factor in draw.items():
            if g["dim"] == self.k:
                factors[g.replace(dim=full["dim"])] = factor
        terms = []
        for g, factor in factors.items():
            whole = _wide(torch.cat(list(vectors(g))))
            if self.k > len(whole):
                raise DataError(
                    f"{self.k} components cannot be found in {len(whole)} vectors; use batches of at least "
                    f"{self.k} vectors"
                )
            if self.form == "pca":
                unit = whole.detach().square().mean().sqrt()
                whole = whole / unit.clamp_min(torch.finfo(unit.dtype).tiny)
            with torch.no_grad():
                target = _TARGETS[self.form](whole, self.k)
            prefix = cut(whole, self.k, RAW)
            softer = _divergence(target / self.temperature, prefix / self.temperature)
            terms.append(factor * (F.mse_loss(prefix, target) + self.temperature * softer))
        return self.weight * _sum(terms, vectors(full)[0])


def _main_components(x: Tensor, k: int) -> Tensor:
    """Coordinates along the main components, turned and scaled as a whole towards the first entries.

    Components have no signs, and no order where they are nearly as long, so that as they come they ask for
    other entries in each batch. Turned so (orthogonal Procrustes) they say the same about the angles
    between the vectors, and ask of the first entries only what these do not have yet.
    """
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    coordinates = left[:, :k] * values[:k]
    turned, overlaps, back = torch.linalg.svd(coordinates.T @ x[:, :k])
    scale = overlaps.sum() / values[:k].square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    nearest: Tensor = scale * coordinates @ (turned @ back)
    return nearest


def _published_components(x: Tensor, k: int) -> Tensor:
    """What ESE's code calls its principal components."""
    dependence = torch.softmax(x.T @ x / math.sqrt(x.shape[1]), dim=-1)
    directions, values, _ = torch.linalg.svd(dependence)
    main = directions[:, :k]
    largest = main.gather(0, main.abs().argmax(dim=0, keepdim=True))
    coordinates: Tensor = x @ (main * torch.where(largest < 0, -1.0, 1.0) * values[:k])
    return coordinates


_TARGETS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "pca": _main_components,
    "published": _published_components,
}


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL of the softmaxes of rows, the mean over the rows; in float32 or better."""
    return F.kl_div(
        F.log_softmax(_wide(student), dim=-1),
        F.log_softmax(_wide(teacher), dim=-1),
        log_target=True,
        reduction="batchmean",
    )


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum(terms: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(terms)).sum() if terms else like.new_zeros(())
