"""Adaptive retrieval: a shortlist at a small size, put in order at larger ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, check_vectors
from nestling.errors import ConfigError, DataError
from nestling.search.exact.neighbours import Metric, Neighbours, check_k, nearest
from nestling.search.exact.scores import Comparison, read_prefixes
from nestling.vectors.prefix import unrounded


@dataclass(frozen=True)
class Funnel:
    """A search at ``shortlist_dim`` over all documents, then stages that re-rank fewer at larger sizes.

    Stage ``i`` re-ranks the first ``shortlists[i]`` of what the stage before it left, by their first
    ``rerank_dims[i]`` entries; the rest falls out. With one stage this is MRL's adaptive retrieval.

    Args:
        shortlist_dim: size at which all documents are compared, at least 1.
        rerank_dims: sizes of the stages, at least ``shortlist_dim``, not falling.
        shortlists: as many lengths, not rising; the first is the shortlist that the search keeps.

    Raises:
        ConfigError: for lists of different or no length, falling sizes or rising lengths.

    Source: MRL, arXiv 2205.13147, section 4.3.1 (adaptive retrieval) and appendix (funnel retrieval).

    >>> Funnel.geometric(8, 2048, shortlist=200, k=10)
    Funnel(shortlist_dim=8, rerank_dims=(16, 32, 64, 128, 2048), shortlists=(200, 100, 50, 25, 10))
    """

    shortlist_dim: int
    rerank_dims: tuple[int, ...]
    shortlists: tuple[int, ...]

    def __post_init__(self) -> None:
        dims, lengths = tuple(self.rerank_dims), tuple(self.shortlists)
        object.__setattr__(self, "rerank_dims", dims)
        object.__setattr__(self, "shortlists", lengths)
        if not dims or len(dims) != len(lengths):
            raise ConfigError(
                f"a funnel needs one shortlist length a rerank dim and at least one, not {len(lengths)} "
                f"for {len(dims)}"
            )
        if min(self.shortlist_dim, *lengths) < 1:
            raise ConfigError("shortlist_dim and the shortlists of a funnel must be at least 1")
        if any(small > large for small, large in pairwise((self.shortlist_dim, *dims))):
            raise ConfigError(
                f"the sizes of a funnel must not fall, but shortlist_dim={self.shortlist_dim} is followed "
                f"by rerank_dims={list(dims)}"
            )
        if any(long < longer for long, longer in pairwise(lengths)):
            raise ConfigError(f"the shortlists of a funnel must not grow, as {list(lengths)} do")

    @classmethod
    def adaptive(cls, shortlist_dim: int, rerank_dim: int, *, shortlist: int = 200) -> Self:
        """MRL's adaptive retrieval: one stage, which puts the whole shortlist in order.

        Raises:
            ConfigError: if ``rerank_dim`` is smaller than ``shortlist_dim``.
        """
        return cls(shortlist_dim, (rerank_dim,), (shortlist,))

    @classmethod
    def geometric(cls, shortlist_dim: int, rerank_dim: int, *, shortlist: int = 200, k: int = 10) -> Self:
        """Funnel retrieval: sizes double and lengths halve, down to ``k`` at ``rerank_dim``.

        Raises:
            ConfigError: if ``shortlist`` is smaller than ``k``, or ``rerank_dim`` than ``shortlist_dim``.
        """
        if not 1 <= k <= shortlist:
            raise ConfigError(f"a shortlist of {shortlist} cannot hold k={k} results; make it longer")
        if not 1 <= shortlist_dim <= rerank_dim:
            raise ConfigError(
                f"rerank_dim={rerank_dim} must be at least shortlist_dim={shortlist_dim}, and that at least 1"
            )
        halvings = round(math.log2(shortlist / k))
        stages = [(shortlist_dim << (i + 1), shortlist >> i) for i in range(halvings)]
        stages = [(dim, length) for dim, length in stages if dim < rerank_dim]
        # Without a halving left the last stage takes what the one before it left, not fewer than k.
        last = k if stages and len(stages) == halvings else shortlist >> len(stages)
        dims, lengths = zip(*stages, (rerank_dim, max(last, k)), strict=True)
        return cls(shortlist_dim, dims, lengths)

    def mflops(self, documents: int) -> float:
        """Millions of multiply-adds for one query over so many documents: ``N * D_s + sum_i K_i * D_i``.

        >>> Funnel.adaptive(16, 2048, shortlist=200).mflops(1_281_167)
        20.908272
        """
        stages = zip(self.rerank_dims, self.shortlists, strict=True)
        return (documents * self.shortlist_dim + sum(dim * length for dim, length in stages)) / 1e6

    def search(
        self,
        queries: Any,
        documents: Any,
        k: int = 10,
        *,
        rule: CutRule = CutRule(),
        metric: Metric = "dot",
        workers: int | None = None,
    ) -> Neighbours:
        """The ``k`` documents that come out first, with their scores at the last size.

        The arguments are those of :func:`~nestling.search.exact.neighbours.nearest_each`; none of them is
        changed.

        Raises:
            DataError: if the first shortlist is longer than the documents are many, the last shorter than
                ``k``, a size larger than the vectors, or the vectors cannot be used.
        """
        queries = check_vectors(queries, "queries")
        documents = check_vectors(documents, "documents", dim=queries.shape[1])
        self._check(len(documents), documents.shape[1], k)
        found = nearest(
            queries,
            documents,
            self.shortlists[0],
            dim=self.shortlist_dim,
            rule=rule,
            metric=metric,
            workers=workers,
        )
        for dim, length in zip(self.rerank_dims, self.shortlists, strict=True):
            found = _rerank(queries, documents, _first(found.indices, length), dim, rule, metric)
        return Neighbours(_first(found.indices, k), _first(found.scores, k))

    def _check(self, documents: int, full: int, k: int) -> None:
        check_k(k, self.shortlists[-1], "rows of the last shortlist")
        if self.shortlists[0] > documents:
            raise DataError(
                f"a shortlist of {self.shortlists[0]} cannot be taken from {documents} documents; "
                "make it shorter"
            )
        if self.rerank_dims[-1] > full:
            raise DataError(
                f"rerank_dim={self.rerank_dims[-1]} is larger than the vectors; choose 1 to {full}"
            )


def _first(table: NDArray[Any], length: int) -> NDArray[Any]:
    return table[:, slice(length)]


def _rerank(
    queries: NDArray[Any],
    documents: NDArray[Any],
    candidates: NDArray[np.int64],
    dim: int,
    rule: CutRule,
    metric: Metric,
) -> Neighbours:
    """``candidates``, ``Int[queries, length]``, in the order of their scores at ``dim``."""
    comparison = Comparison(rule.after == "l2", metric == "euclidean")
    asked, rows = unrounded(queries, dim, rule), read_prefixes(documents, dim, rule)
    found, scores = comparison.best_of(asked, rows, candidates, candidates.shape[1])
    return Neighbours(found, scores.astype(np.float32))
