"""MaxSim: as plain loops give it, for items of any lengths; single vectors; sizes; ties; refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut
from nestling.errors import DataError
from nestling.search import max_sim as module
from nestling.search.exact.neighbours import nearest_each
from nestling.search.max_sim import max_sim, nearest_by_max_sim
from nestling.vectors.token_vectors import TokenVectors


def draw(lengths: list[int], seed: int, dim: int = 6) -> TokenVectors:
    rng = np.random.default_rng(seed)
    return TokenVectors.of([rng.normal(size=(n, dim)).astype(np.float32) for n in lengths])


def by_loops(queries: TokenVectors, documents: TokenVectors) -> np.ndarray:
    def score(query: np.ndarray, document: np.ndarray) -> float:
        return sum(max(float(q @ d) for d in document) for q in query.astype(np.float64))

    return np.array([[score(query, document) for document in documents.items()] for query in queries.items()])


LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=9)


@settings(max_examples=60)
@given(asked=LENGTHS, known=LENGTHS, seed=st.integers(0, 99), at_a_time=st.integers(1, 12))
def test_is_what_plain_loops_give(asked: list[int], known: list[int], seed: int, at_a_time: int) -> None:
    queries, documents = draw(asked, seed), draw(known, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_QUERY_VECTORS_AT_A_TIME", at_a_time)
        patch.setattr(module, "_DOCUMENT_VECTORS_AT_A_TIME", at_a_time)
        found = max_sim(queries, documents)
    # Sums of some 40 products of about 1 in float32.
    np.testing.assert_allclose(found, by_loops(queries, documents), atol=1e-5)


def test_one_vector_an_item_is_plain_search() -> None:
    queries, documents = draw([1] * 20, 0), draw([1] * 300, 1)
    plain = nearest_each(queries.values, documents.values, [2, 6], 10)
    for dim, found in nearest_by_max_sim(queries, documents, [2, 6], 10).items():
        assert (found.indices == plain[dim].indices).all()
        np.testing.assert_allclose(found.scores, plain[dim].scores, atol=1e-6)


@pytest.mark.parametrize("rule", [CutRule(), RAW])
def test_vectors_are_cut_by_the_rule(rule: CutRule) -> None:
    queries, documents = draw([3, 2], 0), draw([4, 1, 5, 2], 1)
    halves = [TokenVectors(cut(x.values, 3, rule), x.starts) for x in (queries, documents)]
    found = nearest_by_max_sim(queries, documents, [3], 4, rule=rule)[3]
    np.testing.assert_allclose(
        found.scores, np.take_along_axis(by_loops(*halves), found.indices, axis=1), atol=1e-5
    )
    assert (np.diff(found.scores) <= 0).all()


def test_the_first_of_equal_documents_wins() -> None:
    documents = TokenVectors.of([np.eye(2)[:1], np.eye(2), np.eye(2)[::-1]])
    found = nearest_by_max_sim(TokenVectors.of([np.eye(2)]), documents, [2], 3)[2]
    assert found.indices.tolist() == [[1, 2, 0]]
    assert found.scores.tolist() == [[2, 2, 1]]


def test_what_cannot_be_searched_is_refused() -> None:
    x = draw([2, 3], 0)
    with pytest.raises(DataError, match=r"queries of 6 entries a vector .* documents of 4"):
        max_sim(x, draw([2], 0, dim=4))
    with pytest.raises(DataError, match="among 2 documents"):
        nearest_by_max_sim(x, x, [6], 3)
    with pytest.raises(DataError, match="7"):
        nearest_by_max_sim(x, x, [7], 1)
