"""Graph kernels agree with numpy, at every level: search, growth and ranking."""

from __future__ import annotations

import numpy as np
import pytest

from nestling.kernels import StoredRows, pack_rows
from nestling.kernels.graph import (
    CodedGraph,
    EncodedQueries,
    QueryEncoder,
    Residuals,
    SearchedGraph,
    WholeRows,
    aligned,
    native,
)
from nestling.kernels.graph import numpy as twin
from nestling.kernels.library import levels

LEVELS = levels()
pytestmark = pytest.mark.skipif(
    not LEVELS, reason="the kernels were not compiled: there is nothing to compare with numpy"
)
SHAPES = [(1, 1, 4, False), (40, 1, 4, True), (500, 1, 16, False), (400, 2, 9, True), (300, 3, 32, False)]


def some_rows(rng: np.random.Generator, rows: int, lines: int, degree: int, biased: bool) -> CodedGraph:
    """Unlinked rows with random codes."""
    stride, numbers = 64 * lines, 8 if biased else 4
    levels = rng.integers(0, 4, (rows, 4 * stride)).astype(np.uint8)
    codes = aligned(rows, stride)
    codes[:] = pack_rows(levels)
    ends = rng.uniform(0.5, 1, (rows, 2)).astype(np.float32)
    codes[:, -numbers:] = ends.view(np.uint8)[:, -numbers:]
    hubs = rng.permutation(rows)[: max(1, rows // 20)].astype(np.int32)
    return CodedGraph(codes, np.full((rows, degree), -1, np.int32), hubs, codes[hubs], biased)


def some_queries(rng: np.random.Generator, graph: CodedGraph, count: int) -> EncodedQueries:
    stride = graph.codes.shape[1]
    codes = rng.integers(-127, 128, (count, 4, stride)).astype(np.int8)
    codes[:, :, -8:] = 0
    flat = codes.reshape(count, -1)
    scales = rng.uniform(1e-3, 2e-3, count).astype(np.float32)
    weights = rng.standard_normal(len(flat)).astype(np.float32)
    return EncodedQueries(flat, flat.sum(axis=1, dtype=np.int32), scales, weights)


def some_whole(rng: np.random.Generator, rows: int) -> WholeRows:
    values = rng.integers(-127, 128, (rows, 128)).astype(np.int8)
    scales = rng.uniform(0.01, 0.02, rows).astype(np.float32)
    norms = np.square(values.astype(np.float32)).sum(axis=1) * scales**2
    return WholeRows(values, scales, norms.astype(np.float32))


def linked(graph: CodedGraph, links: np.ndarray) -> CodedGraph:
    return CodedGraph(graph.codes, links.copy(), graph.hubs, graph.hub_codes, graph.biased)


def begun_at(graph: CodedGraph, hubs: np.ndarray) -> CodedGraph:
    """The same rows and links, with searches that begin at some of them."""
    return CodedGraph(graph.codes, graph.links, hubs, graph.codes[hubs], graph.biased)


def random_links(rng: np.random.Generator, graph: CodedGraph) -> CodedGraph:
    rows, degree = graph.links.shape
    links = np.full((rows, degree), -1, np.int32)
    for row in range(rows):
        count = min(int(rng.integers(0, degree + 1)), rows)
        links[row, :count] = rng.permutation(rows)[:count]
    return linked(graph, links)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ef", [1, 7, 60])
def test_a_beam_search_agrees_with_numpy(level: str, shape: tuple[int, int, int, bool], ef: int) -> None:
    rng = np.random.default_rng(ef)
    graph = random_links(rng, some_rows(rng, *shape))
    queries = some_queries(rng, graph, 11)
    for allowed in (None, rng.random(shape[0]) < 0.3):
        ours = native.beam_search(level, graph, queries, ef, 20, allowed)
        np.testing.assert_array_equal(ours, twin.beam_search(graph, queries, ef, 20, allowed))
        if allowed is not None:
            assert allowed[ours[ours >= 0]].all()


SPACES = ["cosine", "euclidean", "dot"]


def some_encoder(
    rng: np.random.Generator, graph: CodedGraph, dim: int, space: str, columns: int = 0
) -> QueryEncoder:
    width = 4 * graph.codes.shape[1]
    basis = rng.standard_normal((dim, width + columns)).astype(np.float32)
    mean, scale = rng.standard_normal(dim), 1 if space == "cosine" else 0.25
    biased = graph.biased or space == "euclidean"
    return QueryEncoder(
        dim, width, basis, mean, scale, space == "cosine", biased, biased and space != "euclidean"
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1, 1e20])
def test_codes_of_queries_are_those_of_numpy_to_the_last_bit(
    level: str, shape: tuple[int, int, int, bool], scale: float
) -> None:
    rng = np.random.default_rng(6)
    encoder = some_encoder(rng, some_rows(rng, *shape), 37, "euclidean")
    rows = rng.standard_normal((9, 37)) * scale
    rows[3] = 0
    rows[4, 1:] = 0
    weights = rng.standard_normal(9)
    ours, theirs = native.encode(level, encoder, rows, weights), twin.encode(encoder, rows, weights)
    for name in ("codes", "sums", "scales", "weights"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    shorter = native.encode(level, encoder, rows[:, :30], weights)
    np.testing.assert_array_equal(shorter.codes, twin.encode(encoder, rows[:, :30], weights).codes)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("space", SPACES)
def test_a_search_agrees_with_numpy(level: str, shape: tuple[int, int, int, bool], space: str) -> None:
    rng = np.random.default_rng(7)
    graph, dim = random_links(rng, some_rows(rng, *shape)), 37
    values = rng.standard_normal((shape[0], dim)).astype(np.float32)
    scale = rng.uniform(1, 2, shape[0]) if space == "cosine" else None
    searched = SearchedGraph(
        graph, some_encoder(rng, graph, dim, space), StoredRows(values, scale, space == "euclidean")
    )
    queries = rng.standard_normal((7, dim))
    queries[3] = -queries[2]
    queries[4] *= 1e-6
    for allowed in (None, rng.random(shape[0]) < 0.3):
        ours = native.search(level, searched, queries, 20, 15, 6, allowed)
        theirs = twin.search(searched, queries, 20, 15, 6, allowed)
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-12)
        assert (ours.few, ours.refused) == (theirs.few, theirs.refused)
        assert ours.few == (ours.indices[:, -1] < 0).sum()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("space", SPACES)
def test_ranking_by_residuals_agrees_with_numpy(
    level: str, shape: tuple[int, int, int, bool], space: str
) -> None:
    rng = np.random.default_rng(9)
    graph = random_links(rng, some_rows(rng, *shape))
    encoder = some_encoder(rng, graph, 37, space, 64)
    values = rng.integers(-127, 128, (shape[0], encoder.basis.shape[1])).astype(np.int8)
    searched = SearchedGraph(
        graph, encoder, Residuals(values, rng.uniform(0.1, 1, shape[0]).astype(np.float32))
    )
    queries = rng.standard_normal((7, 37))
    for allowed in (None, rng.random(shape[0]) < 0.3):
        ours = native.search(level, searched, queries, 20, 15, 6, allowed)
        theirs = twin.search(searched, queries, 20, 15, 6, allowed)
        np.testing.assert_array_equal(ours.indices, theirs.indices)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_queries_that_cannot_be_used_are_said(level: str) -> None:
    rng = np.random.default_rng(8)
    graph = random_links(rng, some_rows(rng, 40, 1, 4, False))
    stored = StoredRows(rng.standard_normal((40, 37)).astype(np.float32))
    for cosine, wrong in ((False, np.nan), (False, -np.inf), (True, np.nan), (True, 0.0)):
        queries = rng.standard_normal((7, 37))
        queries[5, 3] = queries[6] = wrong
        searched = SearchedGraph(graph, some_encoder(rng, graph, 37, "cosine" if cosine else "dot"), stored)
        for found in (
            native.search(level, searched, queries, 5, 5, 5, None),
            twin.search(searched, queries, 5, 5, 5, None),
        ):
            assert found.refused == (6 if wrong == 0 else 5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_growing_agrees_with_numpy(level: str, shape: tuple[int, int, int, bool]) -> None:
    rng = np.random.default_rng(3)
    ours = some_rows(rng, *shape)
    theirs = linked(ours, ours.links)
    whole, order = some_whole(rng, shape[0]), rng.permutation(shape[0]).astype(np.int32)
    for start in range(1, shape[0], 23):
        new, hubs = order[start : start + 23], order[:start][:40]
        queries = some_queries(rng, ours, len(new))
        native.grow(level, begun_at(ours, hubs), whole, queries, new, 30, 1.1)
        twin.grow(begun_at(theirs, hubs), whole, queries, new, 30, 1.1)
        np.testing.assert_array_equal(ours.links, theirs.links)
        native.link(level, ours, whole, new, 1.1)
        twin.link(theirs, whole, new, 1.1)
        np.testing.assert_array_equal(ours.links, theirs.links)
    assert (ours.links >= 0).any() == (shape[0] > 1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_row_with_no_room_chooses_again(level: str) -> None:
    rng = np.random.default_rng(4)
    ours = some_rows(rng, 60, 1, 8, biased=False)
    ours.links[0] = np.arange(1, 9)
    ours.links[9:, 0] = 0
    theirs, whole, new = linked(ours, ours.links), some_whole(rng, 60), np.arange(9, 60, dtype=np.int32)
    native.link(level, ours, whole, new, 1.5)
    twin.link(theirs, whole, new, 1.5)
    np.testing.assert_array_equal(ours.links, theirs.links)
    assert set(ours.links[0]) & set(new)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("distance", [False, True])
def test_ranking_agrees_with_numpy(level: str, distance: bool) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((300, 37)).astype(np.float32)
    vectors[200:] = vectors[:100]  # equal scores: the lower row wins
    stored = StoredRows(vectors, None if distance else rng.uniform(1, 2, 300), distance)
    queries = rng.standard_normal((5, 37))
    candidates = np.argsort(rng.random((5, 300)), axis=1)[:, :150].astype(np.int32)
    candidates[0, 6:] = -1
    ours = native.rank(level, stored, queries, candidates, 10)
    theirs = twin.rank(stored, queries, candidates, 10)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-12)
    assert (ours[0][0, 6:] == -1).all()
    assert np.isnan(ours[1][0, 6:]).all()
