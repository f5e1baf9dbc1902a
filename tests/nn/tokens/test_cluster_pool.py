"""Pooling of similar vectors: clusters are those of scikit-learn, and nested; masks, order, gradients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering

from nestling.errors import DataError
from nestling.nn.tokens import BudgetPool, Tokens
from nestling.nn.tokens.ward import ward_clusters


def draw(n: int, seed: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width))


@settings(max_examples=40)
@given(n=st.integers(2, 12), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_clusters_are_those_of_scikit_learn(n: int, size: int, seed: int) -> None:
    size, x = min(size, n), draw(n, seed)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    theirs = AgglomerativeClustering(size, linkage="ward").fit_predict(unit)
    ours = ward_clusters(x, [size])[size]
    assert ((ours[:, None] == ours) == (theirs[:, None] == theirs)).all()
    assert list(dict.fromkeys(ours.tolist())) == [*range(size)]  # in the order of their first vectors


def test_clusters_of_several_sizes_come_from_one_hierarchy() -> None:
    x = draw(20, 0)
    each = ward_clusters(x, range(1, 21))
    for small, large in pairwise(range(1, 21)):
        assert len(set(zip(each[large].tolist(), each[small].tolist(), strict=True))) == large
        assert (ward_clusters(x, [small])[small] == each[small]).all()


def test_equal_vectors_and_vectors_of_zeros_are_clustered() -> None:
    assert set(ward_clusters(np.zeros((4, 3)), [2])[2].tolist()) == {0, 1}
    assert ward_clusters(np.array([[1.0, 0], [2.0, 0], [0, 1]]), [2])[2].tolist() == [0, 0, 1]
    with pytest.raises(DataError, match="NaN"):
        ward_clusters(np.full((3, 2), np.nan), [2])


def test_items_are_pooled_without_their_padding_and_means_carry_gradients() -> None:
    x = torch.from_numpy(draw(18, 1)).reshape(2, 9, 5)
    mask = torch.tensor([[True] * 9, [False, True, True] * 3])
    values = torch.where(mask[..., None], x, torch.nan).requires_grad_()
    found = BudgetPool(5, [4, 8], mode="cluster").forward_each(Tokens(values, mask))
    for g, tokens in found.items():
        assert tokens.lengths().tolist() == [g["tokens"], min(g["tokens"], 6)]
        for item in (0, 1):
            own = x[item][mask[item]]
            count = min(g["tokens"], len(own))
            groups = ward_clusters(own.numpy(), [count])[count]
            means = torch.stack([own[groups == j].mean(dim=0) for j in range(count)])
            torch.testing.assert_close(tokens.values[item, :count], means)
    small = found[next(iter(found))]
    small.values.sum().backward()
    # Each of the 4 means of an item passes its gradient on in equal parts.
    assert torch.allclose(values.grad[mask].sum(), torch.tensor(2 * 4 * 5.0, dtype=torch.float64))
