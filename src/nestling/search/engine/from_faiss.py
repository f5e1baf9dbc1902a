"""Converts existing faiss indexes to adaptive ones, without encoding again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, check_vectors
from nestling.errors import ConfigError, DataError
from nestling.search.engine.engine import Engine
from nestling.search.exact.faiss_arrays import Codes, faiss
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.space import Floats, Ints, Space, read_rows
from nestling.search.plan.plan import Plan
from nestling.search.stages.coded_scan import CodedScan
from nestling.search.stages.faiss_codes import Code
from nestling.search.stages.kinds.flat import Flat
from nestling.search.stages.kinds.ivf import IVF
from nestling.search.stages.kinds.scalar import Fp16, Int4, Int8
from nestling.storage.resumable import Arrays

_UNIT_TOLERANCE = 0.2  # four bits an entry change lengths by a tenth
_ROWS_CHECKED = 10_000
_OF_FLOATS = (faiss.IndexFlat, faiss.IndexFlatL2, faiss.IndexFlatIP, faiss.IndexFlat1D, faiss.IndexIVFFlat)
_OF_SCALARS = (faiss.IndexScalarQuantizer, faiss.IndexIVFScalarQuantizer)
_CLASSES = "IndexFlat, IndexIVFFlat, IndexScalarQuantizer or IndexIVFScalarQuantizer"


def from_faiss(index: Any, *, rule: CutRule = CutRule(), vectors: NDArray[Any] | None = None) -> Engine:
    """An engine over the lists and codes of a faiss index that was built without thinking of prefixes.

    It can be searched at every ``dim`` by the first entries of centroids and codes (AdANNS-IVF-D). The codes
    are copied, so the faiss index may change or be deleted.

    Args:
        index: ``IndexIVFFlat``, ``IndexIVFScalarQuantizer`` (8 or 4 bits or fp16, without residuals),
            ``IndexFlat`` or ``IndexScalarQuantizer``, compared by inner product or L2, with the rows
            numbered from 0.
        rule: with ``l2`` after the cut (the default) the vectors in it must be of length one, and are
            compared by cosine at every size; else by the metric of the index.
        vectors: ``Float[rows, dim]``, those that were indexed; by default what the codes say of them,
            which takes four bytes an entry.

    Raises:
        ConfigError: for what is no faiss index of these classes (a subclass may store its codes in another
            order), another metric, or codes of residuals.
        DataError: for an index without rows, other numbers of rows, vectors that hold NaN or infinity, or
            vectors that are not of length one.

    Source: AdANNS, arXiv 2305.19435, section 4.2 (AdANNS-IVF-D).
    """
    # The result of a faiss downcast only borrows; the argument, which may be a temporary, owns the memory.
    read = _downcast(index)
    scan = _scan_of(read)(read.d)
    if read.ntotal == 0:
        raise DataError("the faiss index holds no rows; add some first")
    is_inverted = isinstance(read, faiss.IndexIVF)
    coarse = IVF(read.d, lists=read.nlist) if is_inverted else None
    metric: Metric = "euclidean" if read.metric_type == faiss.METRIC_L2 and rule.after == "none" else "dot"
    space = Space.of(rule, metric)
    code = _adopt(read, scan, space)
    arrays: Arrays = {}
    if is_inverted:
        codes, rows, starts = _read_lists(read)
        centroids = read.quantizer.reconstruct_n(0, read.nlist)
        arrays.update({"rows": rows, "starts": starts, "coarse.centroids": centroids})
    else:
        codes = faiss.vector_to_array(read.codes).reshape(read.ntotal, -1)
        rows = np.arange(read.ntotal)
    arrays["codes"] = codes
    vectors = _vectors_of(code, codes, rows) if vectors is None else _check_given(vectors, codes, read.d)
    if rule.after == "l2":
        code = _with_energy(code, vectors)
    arrays.update({f"scan.{key}": part for key, part in code.to_parts().items()})
    return Engine(Plan(scan, coarse), arrays, vectors, rule, metric)


def _downcast(index: Any) -> Any:
    if isinstance(index, faiss.Index):
        return faiss.downcast_index(index)
    holds = "bits, not floats" if isinstance(index, faiss.IndexBinary) else "no vectors"
    raise ConfigError(
        f"an object of type {type(index).__name__} holds {holds}; give a faiss index of floats: {_CLASSES}"
    )


def _scan_of(index: Any) -> type[CodedScan]:
    # The class itself: subclasses such as those of Panorama store their codes in another order.
    if type(index) not in (*_OF_FLOATS, *_OF_SCALARS):
        raise ConfigError(
            f"an index of type {type(index).__name__} holds codes that mix all entries or have an order "
            f"of their own, or is no index of one stage; prefixes of it cannot be read, but those of "
            f"{_CLASSES} can. Re-order its results by longer prefixes, or build an engine over the vectors"
        )
    if index.metric_type not in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
        raise ConfigError(
            f"the faiss index compares by {_metric_name(index.metric_type)}; its rows can be compared by "
            "METRIC_INNER_PRODUCT or METRIC_L2 only"
        )
    if type(index) in _OF_FLOATS:
        return Flat
    if getattr(index, "by_residual", False):
        raise ConfigError(
            "the codes of the faiss index are of residuals to full-size centroids, whose prefixes mean "
            "nothing; make it with by_residual=False, or build an engine over the vectors"
        )
    kinds: dict[int, type[CodedScan]] = {
        faiss.ScalarQuantizer.QT_8bit: Int8,
        faiss.ScalarQuantizer.QT_4bit: Int4,
        faiss.ScalarQuantizer.QT_fp16: Fp16,
    }
    if index.sq.qtype not in kinds:
        raise ConfigError("the scalar quantiser of the faiss index is none of QT_8bit, QT_4bit and QT_fp16")
    return kinds[index.sq.qtype]


def _metric_name(number: int) -> str:
    names = (name for name in dir(faiss) if name.startswith("METRIC_") and getattr(faiss, name) == number)
    return next(names, f"metric {number}")


def _vectors_of(code: Code, codes: Codes, rows: Ints) -> Floats:
    """The vectors decoded from the codes, in the order of the rows."""
    vectors = np.empty((len(codes), code.dim), np.float32)
    vectors[rows] = code.decode(codes)
    return read_rows(vectors, "the vectors of the faiss index")


def _check_given(vectors: Any, codes: Codes, dim: int) -> NDArray[Any]:
    given = check_vectors(vectors, dim=dim)
    if len(given) != len(codes):
        raise DataError(
            f"{len(given)} vectors are not those of a faiss index of {len(codes)} rows; give the vectors "
            "that were indexed, or none"
        )
    return given


def _adopt(index: Any, scan: CodedScan, space: Space) -> Code:
    trained = scan.empty(space.faiss_metric())
    if scan.is_scalar:
        trained.sq, trained.is_trained = index.sq, True
    return scan.code_type(scan, space, trained)


def _read_lists(index: Any) -> tuple[Codes, Ints, Ints]:
    """Codes and row numbers list by list, and where each list begins."""
    lists, size = index.invlists, index.code_size
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    codes, rows = np.empty((starts[-1], size), np.uint8), np.empty(starts[-1], np.int64)
    for number, count in enumerate(sizes):
        if count:
            span = slice(starts[number], starts[number + 1])
            codes[span] = faiss.rev_swig_ptr(lists.get_codes(number), count * size).reshape(count, size)
            rows[span] = faiss.rev_swig_ptr(lists.get_ids(number), count)
    if not np.array_equal(np.sort(rows), np.arange(len(rows))):
        raise DataError(
            f"the rows of the faiss index are not numbered 0 to {len(rows) - 1}; add them without ids of "
            "your own, and keep a table of those"
        )
    return codes, rows, starts


def _with_energy(code: Code, vectors: NDArray[Any]) -> Code:
    sample: Floats = np.asarray(vectors[:_ROWS_CHECKED], np.float32)
    off = np.abs(np.linalg.norm(sample, axis=1) - 1)
    if np.quantile(off, 0.9) > _UNIT_TOLERANCE:
        raise DataError(
            "the vectors of the faiss index are not of length one, so they were not made for cosines; "
            "normalise before adding, or give rule=CutRule(after='none')"
        )
    if not code.scan.is_scalar:
        return code
    return replace(code, energy=np.mean(sample * sample, axis=0))
