"""Shortest paths against a plain Floyd-Warshall, and against the peer where that is right."""

import hashlib
import itertools
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rsatoolbox.rdm import RDMs as PeerRDMs
from rsatoolbox.rdm.transform import geodesic_transform
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from nestling.compare.rdms.rdms import RDMs
from nestling.compare.transforms.geodesic import Geodesic
from nestling.compare.transforms.topology import GeoTopological, geo_topological
from nestling.errors import ConfigError, DataError
from samples import examples


def slow_paths(edges: dict[tuple[int, int], float], n: int) -> list[float]:
    """Floyd-Warshall over a dictionary, in which an edge of length 0 cannot be mistaken for none."""
    lengths = {(i, j): math.inf for i in range(n) for j in range(n)}
    for (i, j), length in edges.items():
        lengths[i, j] = lengths[j, i] = length
    for i in range(n):
        lengths[i, i] = 0.0
    for over, i, j in itertools.product(range(n), repeat=3):
        lengths[i, j] = min(lengths[i, j], lengths[i, over] + lengths[over, j])
    return [lengths[pair] for pair in itertools.combinations(range(n), 2)]


def slow_edges(vector: np.ndarray, n: int, rule: str, amount: float, zero_edges: str) -> dict:
    pairs = list(itertools.combinations(range(n), 2))
    ranks = rankdata(vector)
    scaled = dict(zip(pairs, (ranks - ranks.min()) / np.ptp(ranks), strict=True))
    if rule == "twostep":
        values = dict(zip(pairs, geo_topological(vector[None], [(amount / 2, amount)])[0, 0], strict=True))
        edges = {pair: value for pair, value in values.items() if value != 1}
    elif rule == "p_shortest":
        longest = np.quantile(list(scaled.values()), amount)
        edges = {pair: value for pair, value in scaled.items() if value <= longest + 1e-12}
    else:
        both = scaled | {(j, i): value for (i, j), value in scaled.items()}
        near = set()
        for i in range(n):
            others = sorted(both[i, j] for j in range(n) if j != i)
            near |= {(i, j) for j in range(n) if j != i and both[i, j] <= others[int(amount) - 1]}
        edges = {(i, j): scaled[i, j] for i, j in pairs if (i, j) in near or (j, i) in near}
    return {pair: value for pair, value in edges.items() if value > 0 or zero_edges == "keep"}


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int, str, float]:
    n = draw(st.integers(4, 7))
    pairs = n * (n - 1) // 2
    row = st.lists(st.integers(0, 12), min_size=pairs, max_size=pairs).filter(lambda row: len(set(row)) > 1)
    vector = np.array(draw(row), np.float64)
    rule = draw(st.sampled_from(["twostep", "p_shortest", "k_nearest"]))
    amount = draw(st.integers(1, n - 1)) if rule == "k_nearest" else draw(st.sampled_from([0.2, 0.5, 0.8]))
    return vector, n, rule, amount


def made(rule: str, amount: float, **others: object) -> Geodesic:
    given = {
        "twostep": {"lower": amount / 2, "upper": amount},
        "p_shortest": {"p": amount},
        "p_nearest": {"p": amount},
        "k_nearest": {"k": amount},
    }
    return Geodesic(rule, **given[rule], **others)


@pytest.mark.filterwarnings("ignore:more than half")
@settings(max_examples=examples(150))
@given(cases(), st.sampled_from(["keep", "drop"]), st.sampled_from([0.0, 2.0]))
def test_paths_are_those_of_a_plain_search(case: tuple, zero_edges: str, few: float) -> None:
    """Whether the graph is taken for one of many edges or of few, which decides how paths are looked for."""
    with mock.patch("nestling.compare.transforms.geodesic._FEW_EDGES", few):
        check_paths(case, zero_edges)


def check_paths(case: tuple, zero_edges: str) -> None:
    vector, n, rule, amount = case
    geodesic = made(rule, amount, zero_edges=zero_edges, disconnected="inf")
    edges = slow_edges(vector, n, rule, amount, zero_edges)
    if not edges:
        with pytest.raises(DataError, match="no edge"):
            geodesic.transform(vector[None])
        return
    expected = np.array(slow_paths(edges, n))
    np.testing.assert_allclose(geodesic.transform(vector[None])[0], expected, rtol=1e-12)
    paths = geodesic.paths(vector[None])
    assert paths.disconnected[0] == pytest.approx(np.mean(np.isinf(expected)))
    assert paths.zeros[0] == pytest.approx(np.mean(expected[np.isfinite(expected)] == 0))


@pytest.mark.parametrize("rule", ["twostep", "p_shortest", "p_nearest", "k_nearest"])
@pytest.mark.filterwarnings("ignore:more than half")
def test_the_order_of_the_stimuli_does_not_matter(rule: str) -> None:
    """As it does in the reference, where only the lower-numbered end of an edge is asked."""
    points = np.random.default_rng(0).standard_normal((30, 4)).round(1)
    order = np.random.default_rng(1).permutation(30)
    geodesic = made(rule, 3 if rule == "k_nearest" else 0.1)
    straight = squareform(geodesic.transform(pdist(points)[None])[0])
    turned = squareform(geodesic.transform(pdist(points[order])[None])[0])
    np.testing.assert_allclose(turned, straight[np.ix_(order, order)], atol=1e-12)


def test_p_nearest_is_k_nearest_of_the_share() -> None:
    """As floats 0.29 * 100 is 28.999999999999996, and 0.28 * 25 is 7.000000000000001."""
    for n, p, k in [(100, 0.29, 29), (25, 0.28, 7), (25, 0.159, 3), (25, 1.0, 24)]:
        # Of many channels, so that all distances are alike and no detour is shorter than an edge.
        vectors = pdist(np.random.default_rng(2).standard_normal((n, 60)))[None]
        lengths = Geodesic("p_nearest", p=p, rank=False).transform(vectors)
        assert np.array_equal(lengths, Geodesic("k_nearest", k=k, rank=False).transform(vectors))
        assert not np.array_equal(lengths, Geodesic("k_nearest", k=k - 1, rank=False).transform(vectors))


def test_paths_around_a_ring_follow_it() -> None:
    angles = np.arange(40) * 2 * np.pi / 40
    ring = pdist(np.stack([np.cos(angles), np.sin(angles)], axis=1))[None]
    steps = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    side = 2 * np.sin(np.pi / 40)
    expected = squareform(np.minimum(steps, 40 - steps) * side)
    np.testing.assert_allclose(Geodesic("k_nearest", k=2, rank=False).transform(ring)[0], expected, rtol=1e-9)


def test_all_pairs_joined_by_true_distances_change_nothing() -> None:
    vectors = pdist(np.random.default_rng(3).standard_normal((20, 4)))[None]
    np.testing.assert_allclose(
        Geodesic("p_shortest", p=1, rank=False).transform(vectors), vectors, rtol=1e-12
    )


def test_pairs_without_a_path_get_what_was_chosen() -> None:
    points = np.random.default_rng(4).standard_normal((20, 2))
    points[10:] += 50
    vectors = np.stack([pdist(points), pdist(points[:, ::-1])]).astype(np.float32)
    chosen = {"rule": "k_nearest", "k": 3, "rank": False}
    apart = np.isinf(Geodesic(**chosen, disconnected="inf").transform(vectors))
    assert apart.sum(axis=1).tolist() == [100, 100]
    filled = Geodesic(**chosen).transform(vectors)
    assert filled.dtype == np.float32
    assert filled[0, apart[0]] == pytest.approx(filled[0, ~apart[0]].max())
    named = Geodesic(**chosen, disconnected="inf").transform(RDMs(vectors))
    assert named.metric == "geodesic"
    assert np.array_equal(np.isinf(named.vectors), apart)
    paths = Geodesic(**chosen).paths(vectors)
    assert paths.disconnected == pytest.approx(100 / 190)
    assert np.array_equal(np.isinf(paths.lengths), apart)
    with pytest.raises(DataError, match=r"2 of 2 matrices are disconnected, that of matrix 0 at 53%"):
        Geodesic(**chosen, disconnected="error").transform(vectors)
    connected = Geodesic("p_shortest", p=1, disconnected="error")
    assert np.isfinite(connected.transform(vectors)).all()


def test_a_missing_pair_is_reached_over_others() -> None:
    vectors = np.array([[1.0, np.nan, 9.0, 2.0, 9.0, 4.0]])  # 0-1 is 1, 1-2 is 2, 2-3 is 4, 0-2 is missing
    found = Geodesic("p_shortest", p=1, rank=False).transform(vectors)
    assert found.tolist() == [[1.0, 3.0, 7.0, 2.0, 6.0, 4.0]]
    found = Geodesic("k_nearest", k=1, rank=False).transform(vectors)
    assert found.tolist() == [[1.0, 3.0, 7.0, 2.0, 6.0, 4.0]]


def test_many_paths_of_length_zero_are_said() -> None:
    vectors = pdist(np.random.default_rng(5).standard_normal((40, 5)))[None]
    with pytest.warns(UserWarning, match=r"1 of 1 matrices \(in matrix 0 \d+%\).*lower=0"):
        Geodesic(lower=0.4, upper=0.6).fit_transform(vectors)
    assert Geodesic().paths(vectors).zeros[0] < 0.01


def test_the_input_is_never_changed() -> None:
    vectors = np.random.default_rng(6).random((3, 45))
    before = hashlib.sha256(vectors.tobytes()).hexdigest()
    for rule in ("twostep", "p_shortest", "p_nearest", "k_nearest"):
        for rank in (True, False):
            Geodesic(rule, p=0.4, upper=0.5, rank=rank, zero_edges="drop").fit_transform(vectors)
    assert hashlib.sha256(vectors.tobytes()).hexdigest() == before


def test_it_is_a_scikit_learn_transformer() -> None:
    geodesic = Geodesic("k_nearest", k=4, disconnected="inf")
    assert clone(geodesic).get_params() == geodesic.get_params()
    rdms = RDMs(np.random.default_rng(7).random((2, 45)), labels={"layer": ("a", "b")})
    ranked = make_pipeline(Geodesic("k_nearest", k=4), GeoTopological(0, 1)).fit_transform(rdms)
    assert isinstance(ranked, RDMs)
    assert ranked.labels["layer"] == ("a", "b")
    paths = rankdata(geodesic.set_params(disconnected="max").transform(rdms.vectors), axis=1)
    paths -= paths.min(axis=1, keepdims=True)
    np.testing.assert_allclose(ranked.vectors, paths / paths.max(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "k_neares"}, "did you mean 'k_nearest'"),
        ({"zero_edges": "keeps"}, "did you mean 'keep'"),
        ({"disconnected": "maximum"}, "must be one of max, inf, error"),
        ({"lower": 0.8, "upper": 0.2}, "swap"),
        ({"rule": "k_nearest", "k": 0}, "k=0"),
        ({"rule": "k_nearest", "k": 10}, "choose k below 10"),
        ({"rule": "p_nearest", "p": 0.05}, "less than 1 neighbour; choose p from 0.1"),
        ({"rule": "p_nearest", "p": 0}, "above 0"),
        ({"rule": "p_shortest", "p": 1.5}, "at most 1"),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(options: dict, says: str) -> None:
    vectors = np.random.default_rng(8).random((2, 45))
    with pytest.raises(ConfigError, match=says):
        Geodesic(**options).transform(vectors)


def test_matrices_that_cannot_be_used_are_refused() -> None:
    vectors = np.random.default_rng(9).random((2, 45)) - 0.1
    with pytest.raises(DataError, match="rank=True"):
        Geodesic("k_nearest", k=3, rank=False).transform(vectors)
    Geodesic("k_nearest", k=3).transform(vectors)
    with pytest.raises(DataError, match="keep the edges of length 0"):
        Geodesic(lower=0, upper=0, zero_edges="drop").transform(vectors)
    with pytest.raises(DataError, match="all distances"):
        Geodesic().transform(np.ones((1, 45)))


def peer(vectors: np.ndarray) -> np.ndarray:
    rdms = PeerRDMs(np.array(vectors))
    return geodesic_transform(rdms).get_vectors()


@pytest.mark.filterwarnings("ignore:more than half")  # as is right: chains of zeros are what is asked about
def test_the_peer_loses_edges_of_length_zero_and_we_keep_them() -> None:
    vectors = pdist(np.random.default_rng(10).standard_normal((30, 4)))[None]
    values = geo_topological(vectors, [(0.1, 0.3)])[0]
    pairs = list(itertools.combinations(range(30), 2))
    edges = {pair: value for pair, value in zip(pairs, values[0], strict=True) if value != 1}
    exact = slow_paths(edges, 30)
    chosen = {"lower": 0.1, "upper": 0.3, "disconnected": "inf"}
    np.testing.assert_allclose(Geodesic(**chosen).transform(vectors)[0], exact, rtol=1e-12)
    theirs = peer(values)[0]
    assert np.mean(~np.isclose(theirs, exact)) > 0.9
    np.testing.assert_allclose(
        Geodesic(**chosen, zero_edges="drop").transform(vectors)[0], theirs, rtol=1e-12
    )


def shapes(n: int) -> np.ndarray:
    """Figures of eight: flat and twisted, then both with a crossing that does not touch; [4, n, 3]."""
    turn = np.arange(n) * 2 * np.pi / n
    eight = np.stack([np.cos(turn), np.sin(2 * turn)], axis=1)
    heights = (
        (1, np.zeros(n)),
        (2, np.cos(2 * turn)),
        (1, np.sin(turn) / 3),
        (2, np.cos(2 * turn) * (np.sin(turn) / 3 + 1)),
    )
    return np.stack([np.column_stack([eight / scale, height]) for scale, height in heights])


def grouping(vectors: np.ndarray) -> float:
    """Below 1 where shapes of one topology are nearer to each other than shapes of one geometry."""
    flat, twisted, apart_flat, apart_twisted = vectors
    one_topology = np.linalg.norm(flat - twisted) + np.linalg.norm(apart_flat - apart_twisted)
    return float(one_topology / (np.linalg.norm(flat - apart_flat) + np.linalg.norm(twisted - apart_twisted)))


@pytest.mark.parametrize("n", [50, 100])
def test_paths_group_figures_of_eight_by_topology(n: int) -> None:
    """Distances group them by geometry; near pairs alone do so less; paths over near pairs turn it round."""
    vectors = np.stack([pdist(shape) for shape in shapes(n)])
    distances = grouping(vectors)
    near = grouping(GeoTopological(0, 0.075).transform(vectors))
    paths = grouping(Geodesic(lower=0, upper=0.075).transform(vectors))
    assert distances > 3
    assert paths < 0.8
    assert paths < near < distances
    if n == 50:
        ranks = grouping(GeoTopological(0, 1).transform(vectors))
        middle = grouping(GeoTopological(0.4, 0.6).transform(vectors))
        assert (ranks, near, middle, paths) == pytest.approx((5.35, 1.77, 4.31, 0.69), abs=0.01)
