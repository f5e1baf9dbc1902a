"""Self-distillation terms: pull truncated embeddings towards the full embedding."""

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
"""The columns of a batch (queries, documents, ...) at one granularity, ``Float[batch, dim]`` each."""

_FORMS = ("pca", "published")

_WEIGHT = Real(least=0)
_TEMPERATURE = Real(above=0, hint="it divides the scores")


@runtime_checkable
class Alignment(Protocol):
    """An extra term of a nested loss, computed from the embeddings of the same forward pass."""

    def __call__(self, vectors: Vectors, draw: Draw, full: Granularity) -> Tensor:
        """The term, summed over the granularities of a step with the weights of their losses."""
        ...


class AlignScores(nn.Module):
    """Distils the ranking of a batch: scores at small granularities match those of the full one.

    ``weight * sum_g c_g * KL(softmax(full scores / T) || softmax(scores at g / T))``, averaged over the
    queries. Queries are the first column; all other columns are documents.

    Args:
        weight: of the term, at least 0.
        temperature: T, above 0.
        rule: applied before the products: cosines by default, ``RAW`` for dot products.
        detach: treat the full granularity as a fixed teacher, without gradients.

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
    """Distils the embedding itself: a softmax over the entries of each vector matches that of the full layer.

    ``weight * T^2 * sum_g c_g * KL(softmax(x / T) || softmax(x_g / T))`` with x from the full layer,
    cut to the dims of g. For vectors that the model itself normalises the softmax is nearly flat and the
    term nearly 0; the log shows its size.

    Args:
        weight: of the term, at least 0.
        temperature: T, above 0.
        whole: align granularities of the full dim only (2DMSE); otherwise each at its own (Starbucks, STS).
        detach: treat the full layer as a fixed teacher, without gradients, as the code of both papers does.

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
    """Compresses the principal components of the full vector into its first entries (ESE).

    For every layer of a step the term is
    ``weight * (MSE(x[:k], P) + T * KL(softmax(P / T) || softmax(x[:k] / T)))``. P are the
    coordinates of the full vectors x along their first k principal components.

    Args:
        k: entries to compress into.
        weight: of the term, at least 0.
        temperature: T, above 0.
        form: ``"pca"``: true principal components, rotated and scaled together to lie nearest to the first
            entries, so that their signs and order do not matter; x is divided by its root mean square.
            ``"published"``: the first singular vectors of a row-softmaxed Gram matrix, scaled by their
            singular values, of which the first dominates.

    Raises:
        ConfigError: for numbers outside their range or an unknown form.
        DataError: if the batch has fewer than ``k`` vectors, or the vectors fewer than ``k`` entries.

    Source: ESE, arXiv 2402.14776 v2, its public code.
    """

    @checked(k=Whole(1), weight=_WEIGHT, temperature=_TEMPERATURE, form=OneOf(_FORMS))
    def __init__(self, k: int, weight: float = 1.0, temperature: float = 1.0, *, form: str = "pca") -> None:
        super().__init__()
        self.k, self.weight, self.temperature, self.form = k, weight, temperature, form

    def forward(self, vectors: Vectors, draw: Draw, full: Granularity) -> Tensor:
        """See :class:`Alignment`."""
        if self.k > full["dim"]:
            raise DataError(
                f"k={self.k} components do not fit in vectors of {full['dim']} entries; choose k from 1 to "
                f"{full['dim']}"
            )
        factors: dict[Granularity, float] = {}
        for g, factor in draw.items():
            if g["dim"] == self.k:
                factors[g.replace(dim=full["dim"])] = factor
        terms = []
        for g, factor in factors.items():
            whole = _wide(torch.cat(list(vectors(g))))
            if self.k > len(whole):
                raise DataError(
                    f"k={self.k} components cannot be computed from {len(whole)} vectors; use batches of at "
                    f"least {self.k} vectors"
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
    """Coordinates along the principal components, rotated and scaled together towards the first entries.

    The signs of principal components are arbitrary, and so is their order where variances are close: used
    as computed, each batch would have another target. A rotation towards the first entries (orthogonal
    Procrustes) keeps all angles between the vectors and removes this arbitrariness.
    """
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    coordinates = left[:, :k] * values[:k]
    turned, overlaps, back = torch.linalg.svd(coordinates.T @ x[:, :k])
    scale = overlaps.sum() / values[:k].square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    nearest: Tensor = scale * coordinates @ (turned @ back)
    return nearest


def _published_components(x: Tensor, k: int) -> Tensor:
    """The "principal components" of ESE's public code."""
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
    """KL divergence between the softmaxes of rows, averaged over the rows, in float32 or better."""
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
