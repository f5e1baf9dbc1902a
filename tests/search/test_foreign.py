"""Indexes of faiss are read rightly, whoever holds them, or refused; none is read wrongly."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule
from nestling.errors import ConfigError, DataError
from nestling.search.engine.from_faiss import from_faiss
from nestling.search.exact.neighbours import nearest
from nestling.search.plan.plan import Point

FAISS_INDEXES: dict[str, Callable[[], Any]] = {
    "IVFFlat": lambda: faiss.IndexIVFFlat(faiss.IndexFlatL2(32), 32, 8),
    "IVF SQ8": lambda: _scalar(faiss.ScalarQuantizer.QT_8bit),
    "IVF fp16": lambda: _scalar(faiss.ScalarQuantizer.QT_fp16),
    "Flat": lambda: faiss.IndexFlatL2(32),
    "SQ8": lambda: faiss.IndexScalarQuantizer(32, faiss.ScalarQuantizer.QT_8bit),
}


def _scalar(kind: int) -> Any:
    quantiser = faiss.IndexFlatL2(32)
    index = faiss.IndexIVFScalarQuantizer(quantiser, 32, 8, kind, faiss.METRIC_L2, False)
    index.own_fields = quantiser.this.disown() or True
    return index


@pytest.mark.parametrize("kind", FAISS_INDEXES)
@pytest.mark.parametrize("rule", [CutRule(), RAW], ids=["unit", "raw"])
def test_a_faiss_index_answers_at_every_size(nested: Any, kind: str, rule: CutRule) -> None:
    """AdANNS-IVF-D on an index that was built without knowing."""
    vectors, queries = nested.vectors(1000, 32), nested.vectors(20, 32, seed=1)
    if rule.after == "l2":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    index = FAISS_INDEXES[kind]()
    index.train(vectors)
    index.add(vectors)
    engine = from_faiss(index, rule=rule)
    is_inverted = engine.plan.coarse is not None
    wanted = index.search(queries, 5, params=faiss.SearchParametersIVF(nprobe=3) if is_inverted else None)[1]
    found = engine.search(queries, 5, Point(nprobe=3) if is_inverted else None)
    assert np.mean(found.indices == wanted) >= (0.99 if rule == RAW or "Flat" in kind else 0.9)
    del index
    for dim in (24, 16, 8):
        truth = nearest(queries, vectors, 5, dim=dim, rule=rule, metric=engine.metric)
        cut = engine.search(queries, 5, Point(nprobe=8) if is_inverted else None, dim=dim)
        assert nested.recall(cut, truth) >= (1.0 if "Flat" in kind else 0.9)


def test_faiss_indexes_that_cannot_be_cut_say_why(nested: Any) -> None:
    vectors = nested.vectors(600, 32)
    residual = faiss.index_factory(32, "IVF4,SQ8")
    residual.train(vectors)
    residual.add(vectors)
    with pytest.raises(ConfigError, match="by_residual=False"):
        from_faiss(residual)
    mixed = faiss.index_factory(32, "PQ4x4")
    mixed.train(vectors)
    mixed.add(vectors)
    with pytest.raises(ConfigError, match="IndexPQ holds codes that mix all entries"):
        from_faiss(mixed)
    with pytest.raises(DataError, match="no rows"):
        from_faiss(faiss.IndexFlatL2(32))
    flat = faiss.IndexFlatL2(32)
    flat.add(vectors)
    with pytest.raises(DataError, match="not of length one"):
        from_faiss(flat)
    named = faiss.index_factory(32, "IVF4,Flat")
    named.train(vectors)
    named.add_with_ids(vectors, np.arange(600) + 7)
    with pytest.raises(DataError, match="not numbered 0 to 599"):
        from_faiss(named, rule=RAW)


# Recipes of faiss for indexes of 16 entries, and whether their prefixes can be read.
RECIPES = {
    "Flat": True,
    "SQ8": True,
    "SQ4": True,
    "SQfp16": True,
    "SQ6": False,
    "SQbf16": False,
    "IVF8,Flat": True,
    "IVF8_HNSW8,Flat": True,
    "IVF8,FlatDedup": False,
    "IVF8,SQ8": False,  # of residuals
    "IVF8,PQ4x4": False,
    "IVF8,PQ4x4fs": False,
    "IVF8,RaBitQ": False,
    "PQ4x4": False,
    "PQ4x4fs": False,
    "RaBitQ": False,
    "LSH": False,
    "HNSW8,Flat": False,
    "HNSW8,SQ8": False,
    "NSG8,Flat": False,
    "IDMap,Flat": False,
    "IDMap2,Flat": False,
    "PCA8,Flat": False,
    "PQ4x4,RFlat": False,
    "RQ2x4": False,
}
PANORAMA: dict[str, Callable[[], Any]] = {
    "FlatL2": lambda: faiss.IndexFlatL2Panorama(16, 4),
    "FlatIP": lambda: faiss.IndexFlatIPPanorama(16, 4),
    "IVFFlat": lambda: faiss.IndexIVFFlatPanorama(faiss.IndexFlatL2(16), 16, 8, 4),
}


def filled(index: Any, vectors: NDArray[np.float32]) -> Any:
    index.train(vectors)
    index.add(vectors)
    return index


def assert_read_rightly(index: Any, vectors: NDArray[np.float32]) -> None:
    """Given away and held by nobody else, it answers as faiss does when that reads everything."""
    engine = from_faiss(faiss.clone_index(index), rule=RAW)
    inverted = engine.plan.coarse is not None
    queries = vectors[:50] + np.float32(0.1)
    everything = faiss.SearchParametersIVF(nprobe=8) if inverted else None
    wanted = index.search(queries, 10, params=everything)[1]
    found = engine.search(queries, 10, Point(nprobe=8) if inverted else None)
    assert np.mean(found.indices == wanted) >= 0.99
    assert (engine.search(vectors[:5], 3, dim=8).indices >= 0).all()


@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT], ids=["L2", "IP"])
@pytest.mark.parametrize("recipe", [recipe for recipe, readable in RECIPES.items() if readable])
def test_indexes_of_plain_codes_are_read_rightly(nested: Any, recipe: str, metric: int) -> None:
    vectors = nested.vectors(1200, 16)
    assert_read_rightly(filled(faiss.index_factory(16, recipe, metric), vectors), vectors)


@pytest.mark.parametrize("recipe", [recipe for recipe, readable in RECIPES.items() if not readable])
def test_other_indexes_are_refused(nested: Any, recipe: str) -> None:
    index, vectors = faiss.index_factory(16, recipe), nested.vectors(1200, 16)
    index.train(vectors)
    index.add_with_ids(vectors, np.arange(1200)) if "IDMap" in recipe else index.add(vectors)
    with pytest.raises(ConfigError, match=r"build an engine over the vectors|QT_8bit"):
        from_faiss(faiss.clone_index(index), rule=RAW)


@pytest.mark.parametrize("name", PANORAMA)
def test_rows_in_an_order_of_their_own_are_refused(nested: Any, name: str) -> None:
    index = filled(PANORAMA[name](), nested.vectors(600, 16))
    with pytest.raises(ConfigError, match=r"Panorama holds codes .* order of their own"):
        from_faiss(index, rule=RAW)


METRICS = sorted(
    name
    for name in dir(faiss)
    if name.startswith("METRIC_") and name not in ("METRIC_L2", "METRIC_INNER_PRODUCT")
)


@pytest.mark.parametrize("rule", [CutRule(), RAW], ids=["unit", "raw"])
@pytest.mark.parametrize("metric", METRICS)
def test_other_metrics_are_refused(nested: Any, metric: str, rule: CutRule) -> None:
    index = filled(faiss.IndexFlat(16, getattr(faiss, metric)), nested.vectors(50, 16))
    with pytest.raises(ConfigError, match=f"compares by {metric}; .* METRIC_L2"):
        from_faiss(index, rule=rule)


def test_no_class_of_faiss_is_read_but_those_known() -> None:
    """Whatever a newer faiss brings is refused until it is known to be read rightly."""
    read = set()
    for name, each in vars(faiss).items():
        if not (inspect.isclass(each) and issubclass(each, (faiss.Index, faiss.IndexBinary))):
            continue
        try:
            empty = each()
        except (TypeError, AttributeError, IndexError, KeyError):
            continue  # abstract, or not made without arguments
        try:
            from_faiss(empty)
        except DataError:
            read.add(name)  # its only fault is that it has no rows
        except ConfigError:
            continue
    assert read == {"IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexFlat1D", "IndexScalarQuantizer"}


@pytest.mark.parametrize("given", [None, "index.faiss", np.eye(3), faiss.IndexBinaryFlat(16), faiss.HNSW(4)])
def test_what_is_no_index_of_floats_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="give a faiss index of floats"):
        from_faiss(given)


@pytest.mark.parametrize("kind", FAISS_INDEXES)
def test_a_temporary_is_read(nested: Any, kind: str) -> None:
    """Nothing but the call holds the index while its codes and lists are copied."""
    vectors = nested.vectors(1000, 32)
    index = filled(FAISS_INDEXES[kind](), vectors)
    held = from_faiss(index, rule=RAW)
    point = None if held.plan.coarse is None else Point(nprobe=8)
    wanted = held.search(vectors[:20], 5, point)
    for _ in range(5):
        engine = from_faiss(faiss.deserialize_index(faiss.serialize_index(index)), rule=RAW)
        np.testing.assert_array_equal(engine.search(vectors[:20], 5, point).indices, wanted.indices)


def test_vectors_that_are_not_those_of_the_index_are_refused(nested: Any) -> None:
    index = filled(faiss.IndexFlatL2(16), nested.vectors(100, 16))
    with pytest.raises(DataError, match="99 vectors are not those"):
        from_faiss(index, rule=RAW, vectors=nested.vectors(99, 16))
    with pytest.raises(DataError, match="16 are expected"):
        from_faiss(index, rule=RAW, vectors=nested.vectors(100, 12))
    broken = nested.vectors(100, 16)
    broken[7, 3] = np.nan
    with pytest.raises(DataError, match=r"vectors of the faiss index hold NaN .* row 7"):
        from_faiss(filled(faiss.IndexFlatL2(16), broken), rule=RAW)
