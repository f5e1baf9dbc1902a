"""Nested embeddings: a table of vectors whose leading entries are read alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Whole, checked
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Nesting
from nestling.nn.width.width_part import WidthPart


class NestedEmbedding(WidthPart):
    """A vector for each of some rows, of which the leading entries are read alone.

    Args:
        rows: number of vectors.
        sizes: widths, increasing.
        sparse: give the gradient of the rows that were read alone, for ``SparseAdam`` and the like; at full
            width only.

    Raises:
        GranularityError: for widths that do not increase.
        ConfigError: for fewer rows than one.

    >>> table = NestedEmbedding(100, [8, 16])
    >>> table(torch.tensor([[3, 5, 3]]), at=8).shape
    torch.Size([1, 3, 8])
    """

    kind = "nested_embedding"

    @checked(rows=Whole(1))
    def __init__(self, rows: int, sizes: Sequence[int], *, sparse: bool = False) -> None:
        super().__init__()
        self.nesting, self.rows, self.sparse = Nesting.chain(width=sizes), rows, sparse
        self.out_sizes = self.nesting.sizes("width")
        self.weight = nn.Parameter(torch.randn(rows, self.out_sizes[-1]))

    @classmethod
    def from_dense(cls, embedding: nn.Embedding, sizes: Sequence[int]) -> Self:
        """The vectors of a trained table.

        Raises:
            ConfigError: if the full width is not that of the table.
        """
        with torch.device("meta"):
            made = cls(embedding.num_embeddings, sizes, sparse=embedding.sparse)
        if made.out_sizes[-1] != embedding.embedding_dim:
            raise ConfigError(
                f"the table has vectors of {embedding.embedding_dim} entries, but the full width is "
                f"{made.out_sizes[-1]}; end the sizes at {embedding.embedding_dim}"
            )
        made.load_state_dict({"weight": embedding.weight.detach().clone()}, assign=True)
        return made.train(embedding.training)

    def leading(self, x: Tensor, place: int) -> Tensor:
        """See :class:`WidthPart`."""
        if not isinstance(x, Tensor) or x.dtype not in (torch.int32, torch.int64):
            given = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise DataError(f"a nested embedding takes row numbers as a tensor of int64, not {given}")
        is_full = place == len(self.out_sizes) - 1
        table = self.weight if is_full else self.weight[:, : self.out_sizes[place]]
        try:
            return F.embedding(x, table, sparse=self.sparse and is_full)
        except IndexError as error:
            raise DataError(
                f"row numbers from {int(x.min())} to {int(x.max())} do not all lie in a table of {self.rows} "
                f"rows; give numbers from 0 to {self.rows - 1}"
            ) from error

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {"rows": self.rows, "sizes": list(self.out_sizes[: self.place(at) + 1]), "sparse": self.sparse}

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        return {"weight": self.weight[:, : self.out_width(at)]}
