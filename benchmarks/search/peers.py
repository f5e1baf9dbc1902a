"""The peers, one small adapter each: unit vectors, inner product, one thread in building and searching."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from methods import Built, Floats, Ints, Method, folder_bytes

EF = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
NPROBE = (2, 4, 8, 16, 32, 64, 128, 256, 512)
SHORTLISTS = (20, 40, 80, 160, 320, 640, 1280)
DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "scann": "scann",
    "usearch": "usearch",
    "hnswlib": "hnswlib",
    "svs": "scalable-vs",
    "zvec": "zvec",
    "qdrant": "qdrant-edge-py",
}
MODULES = {"qdrant": "qdrant_edge"}


def peers(rows: int, dim: int) -> list[Method]:
    """All methods of the libraries that are installed here."""
    families = (
        _faiss_methods,
        _scann_methods,
        _usearch_methods,
        _hnswlib_methods,
        _svs_methods,
        _zvec_methods,
        _qdrant_methods,
    )
    return [method for family in families for method in family(rows, dim) if _is_there(method.library)]


def peer_versions() -> dict[str, str]:
    """The libraries that can be imported, and their versions."""
    return {name: version(package) for name, package in DISTRIBUTIONS.items() if _is_there(name)}


def _is_there(library: str) -> bool:
    try:
        importlib.import_module(MODULES.get(library, library))
    except ImportError:
        return False
    return True


def lists(rows: int) -> int:
    """About four times the square root of the rows, as faiss advises, in a power of two."""
    return int(2 ** np.round(np.log2(4 * np.sqrt(rows))))


# faiss ------------------------------------------------------------------------------------------------


def _faiss_methods(rows: int, dim: int) -> Iterator[Method]:
    yield Method("faiss Flat", _faiss("Flat"))
    probes = [(nprobe, k) for nprobe in NPROBE for k in (20, 80, 320)]
    shorts = [(None, k) for k in SHORTLISTS]
    ivf = lists(rows)
    yield Method(f"faiss IVF{ivf},SQ8", _faiss(f"IVF{ivf},SQ8"), [(nprobe, None) for nprobe in NPROBE])
    for refine in ("RFlat", "Refine(SQfp16)", "Refine(SQ8)"):
        for parts in (dim // 4, dim // 2):
            yield Method(*_named(f"PQ{parts}x4fs,{refine}"), shorts)
        for parts in (dim // 4, dim // 2):
            yield Method(*_named(f"IVF{ivf},PQ{parts}x4fs,{refine}"), probes)
        yield Method(*_named(f"IVF{ivf},RaBitQfs,{refine}"), probes)
        yield Method(*_named(f"RaBitQfs,{refine}"), shorts)
    for links in (16, 32):
        for code in ("Flat", "SQfp16", "SQ8"):
            yield Method(*_named(f"HNSW{links},{code}"), [(ef, None) for ef in EF])


def _named(factory: str) -> tuple[str, Callable[[Floats, Path], Built]]:
    return f"faiss {factory}", _faiss(factory)


def _faiss(factory: str) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.index_factory(base.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if "HNSW" in factory:
            index.hnsw.efConstruction = 100
        index.train(base)
        index.add(base)

        def search(queries: Floats, k: int, point: Any) -> Ints:
            return index.search(queries, k, params=_faiss_parameters(faiss, index, k, point))[1]

        return Built(search, faiss.serialize_index(index).nbytes)

    return build


def _faiss_parameters(faiss: Any, index: Any, k: int, point: Any) -> Any:
    if point is None:
        return None
    breadth, shortlist = point
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=breadth)
    inner = None if breadth is None else faiss.SearchParametersIVF(nprobe=breadth)
    if shortlist is None:
        return inner
    return faiss.IndexRefineSearchParameters(k_factor=shortlist / k, base_index_params=inner)


# ScaNN ------------------------------------------------------------------------------------------------


def _scann_methods(rows: int, dim: int) -> Iterator[Method]:
    leaves = lists(rows) // 2
    tree = [(searched, shortlist) for searched in NPROBE for shortlist in (30, 100, 300)]
    for reorder in ("FLOAT32", "BFLOAT16", "INT8"):
        yield Method(f"scann AH2,{reorder}", _scann(None, reorder), [(None, k) for k in SHORTLISTS])
        yield Method(f"scann tree{leaves},AH2,{reorder}", _scann(leaves, reorder), tree)
        yield Method(f"scann tree{leaves},SOAR,AH2,{reorder}", _scann(leaves, reorder, soar=True), tree)


def _scann(leaves: int | None, reorder: str, *, soar: bool = False) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        import scann

        builder = scann.scann_ops_pybind.builder(base, 10, "dot_product").set_n_training_threads(1)
        if leaves:
            spill = {"soar_lambda": 1.5, "overretrieve_factor": 2.0} if soar else {}
            builder = builder.tree(leaves, 10, training_sample_size=min(len(base), 256 * leaves), **spill)
        builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
        searcher = builder.reorder(100, quantize=getattr(scann.ReorderType, reorder)).build()
        searcher.serialize(str(folder))

        def call(one: Callable[..., Any], queries: Floats, k: int, point: Any) -> Any:
            searched, shortlist = point
            return one(
                queries,
                final_num_neighbors=k,
                pre_reorder_num_neighbors=shortlist,
                **({"leaves_to_search": searched} if searched else {}),
            )[0]

        return Built(
            lambda queries, k, point: call(searcher.search_batched, queries, k, point),
            folder_bytes(folder),
            lambda query, k, point: call(searcher.search, query, k, point),
        )

    return build


# usearch and hnswlib ----------------------------------------------------------------------------------


def _usearch_methods(rows: int, dim: int) -> Iterator[Method]:
    for links in (16, 32):
        for kind in ("f32", "bf16", "i8"):
            yield Method(f"usearch {kind},M{links}", _usearch(kind, links), EF)


def _usearch(kind: str, links: int) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        from usearch.index import Index

        index = Index(ndim=base.shape[1], metric="cos", dtype=kind, connectivity=links, expansion_add=100)
        index.add(np.arange(len(base)), base, threads=1)
        index.save(folder / "usearch")

        def search(queries: Floats, k: int, point: int) -> Ints:
            index.expansion_search = point
            return index.search(queries, k, threads=1).keys

        return Built(search, folder_bytes(folder))

    return build


def _hnswlib_methods(rows: int, dim: int) -> Iterator[Method]:
    for links in (8, 16):
        yield Method(f"hnswlib M{links}", _hnswlib(links), EF)


def _hnswlib(links: int) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        import hnswlib

        index = hnswlib.Index(space="ip", dim=base.shape[1])
        index.init_index(max_elements=len(base), ef_construction=100, M=links, random_seed=0)
        index.add_items(base, num_threads=1)

        def search(queries: Floats, k: int, point: int) -> Ints:
            index.set_ef(max(point, k))
            return index.knn_query(queries, k, num_threads=1)[0]

        return Built(search, index.index_file_size())

    return build


# SVS --------------------------------------------------------------------------------------------------


def _svs_methods(rows: int, dim: int) -> Iterator[Method]:
    for degree in (32, 64):
        # LVQ and LeanVec refuse to run on processors that are not Intel's.
        for code in ("float32", "float16", "LVQ8", "LVQ4x4", "LVQ4x8", f"LeanVec{dim // 2}x8"):
            yield Method(f"svs Vamana{degree},{code}", _svs(degree, code), EF)


def _svs(degree: int, code: str) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        import svs

        stored, saved = folder / "base.fvecs", folder / "saved"
        saved.mkdir()
        svs.write_vecs(base, str(stored))
        plain = svs.VectorDataLoader(str(stored), svs.DataType.float32)
        parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=degree, window_size=2 * degree)
        given = base.astype(code) if code.startswith("float") else _svs_loader(svs, plain, code)
        index = svs.Vamana.build(parameters, given, svs.DistanceType.MIP, num_threads=1)
        stored.unlink()
        parts = [saved / part for part in ("config", "graph", "data")]
        index.save(*map(str, parts))

        def search(queries: Floats, k: int, point: int) -> Ints:
            index.search_window_size = point
            return index.search(queries, k)[0]

        return Built(search, sum(map(folder_bytes, parts)))

    return build


def _svs_loader(svs: Any, plain: Any, code: str) -> Any:
    if code.startswith("LeanVec"):
        dims, bits = map(int, re.findall(r"\d+", code))
        kind = svs.LeanVecKind.lvq4 if bits == 4 else svs.LeanVecKind.lvq8
        return svs.LeanVecLoader(plain, dims, kind, svs.LeanVecKind.lvq8)
    bits, _, residual = code.removeprefix("LVQ").partition("x")
    return svs.LVQLoader(plain, primary=int(bits), residual=int(residual or 0))


# zvec and Qdrant Edge ---------------------------------------------------------------------------------


def _zvec_methods(rows: int, dim: int) -> Iterator[Method]:
    for kind in ("HNSW", "HNSW,INT8", "Vamana,INT8", "HNSW,RaBitQ"):
        yield Method(f"zvec {kind}", _zvec(kind), EF)


def _zvec_index(zvec: Any, kind: str) -> tuple[Any, Callable[[int], Any]]:
    shared = {"metric_type": zvec.MetricType.IP}
    if kind == "HNSW,RaBitQ":
        return zvec.HnswRabitqIndexParam(
            m=32, ef_construction=100, **shared
        ), lambda ef: zvec.HnswRabitqQueryParam(ef=ef, is_using_refiner=True)
    int8 = kind.endswith("INT8")
    code = {"quantize_type": zvec.QuantizeType.INT8} if int8 else {}
    if kind.startswith("Vamana"):
        index = zvec.VamanaIndexParam(
            max_degree=64, search_list_size=100, use_contiguous_memory=True, **code, **shared
        )
        return index, lambda ef: zvec.VamanaQueryParam(ef_search=ef, is_using_refiner=int8)
    index = zvec.HnswIndexParam(m=32, ef_construction=100, use_contiguous_memory=True, **code, **shared)
    return index, lambda ef: zvec.HnswQueryParam(ef=ef, is_using_refiner=int8)


def _zvec(kind: str) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        import zvec

        zvec.init(query_threads=1, optimize_threads=1, log_dir=str(folder / "log"))
        index, parameters = _zvec_index(zvec, kind)
        vector = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, base.shape[1], index)
        store = zvec.create_and_open(str(folder / "zvec"), zvec.CollectionSchema("base", vectors=[vector]))
        for start in range(0, len(base), 1000):
            rows = enumerate(base[start : start + 1000], start)
            store.insert([zvec.Doc(id=str(row), vectors={"v": values.tolist()}) for row, values in rows])
        store.optimize()
        store.flush()

        def search_one(query: Floats, k: int, point: int) -> list[int]:
            asked = zvec.Query(field_name="v", vector=query, param=parameters(max(point, k)))
            return [int(doc.id) for doc in store.query(asked, topk=k)]

        return Built(_each(search_one), folder_bytes(folder / "zvec"), search_one)

    return build


def _qdrant_methods(rows: int, dim: int) -> Iterator[Method]:
    for code in ("float32", "int8"):
        yield Method(f"qdrant HNSW16,{code}", _qdrant(code), EF)


def _qdrant(code: str) -> Callable[[Floats, Path], Built]:
    def build(base: Floats, folder: Path) -> Built:
        import qdrant_edge as q

        scalar = q.ScalarQuantizationConfig(q.ScalarType.Int8, quantile=0.99, always_ram=True)
        graph = q.HnswIndexConfig(16, 100, 1000, max_indexing_threads=1)
        vectors = q.EdgeVectorParams(base.shape[1], q.Distance.Dot)
        config = q.EdgeConfig(
            {"v": vectors},
            hnsw_config=graph,
            quantization_config=scalar if code == "int8" else None,
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1000),
            max_search_threads=1,
        )
        (folder / "qdrant").mkdir()
        shard = q.EdgeShard.create(str(folder / "qdrant"), config)
        for start in range(0, len(base), 1000):
            points = [
                q.Point(row, {"v": base[row].tolist()}) for row in range(start, min(start + 1000, len(base)))
            ]
            shard.update(q.UpdateOperation.upsert_points(points))
        while shard.optimize():
            pass
        shard.flush()

        def search_one(query: Floats, k: int, point: int) -> list[int]:
            nearest = q.Query.Nearest(query.tolist(), using="v")
            found = shard.search(q.SearchRequest(nearest, k, params=q.SearchParams(hnsw_ef=point)))
            return [hit.id for hit in found]

        return Built(_each(search_one), folder_bytes(folder / "qdrant" / "segments"), search_one)

    return build


def _each(search_one: Callable[[Floats, int, Any], list[int]]) -> Callable[[Floats, int, Any], Ints]:
    """A batch for libraries whose calls take one query."""

    def search(queries: Floats, k: int, point: Any) -> Ints:
        found = np.full((len(queries), k), -1, np.int64)
        for row, query in enumerate(queries):
            hits = search_one(query, k, point)
            found[row, : len(hits)] = hits
        return found

    return search
