"""Indexes that faiss users have already, made adaptive without encoding anything anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.errors import ConfigError, DataError
from nestling.search.codes import Code
from nestling.search.engine import Engine
from nestling.search.exact import Metric
from nestling.search.journal import Arrays
from nestling.search.plan import Plan
from nestling.search.space import Floats, Ints, Space
from nestling.search.stages import Coarse, Scan
from nestling.search.views import Codes, faiss

_UNIT_TOLERANCE = 0.2  # four bits an entry change lengths by a tenth
_ROWS_CHECKED = 10_000


def from_faiss(index: Any, *, rule: CutRule = CutRule(), vectors: NDArray[Any] | None = None) -> Engine:
    """An engine over the lists and codes of a faiss index that was built without thinking of prefixes.

    It answers at every ``dim`` by the first entries of centroids and codes (AdANNS-IVF-D). The codes are
    copied, so that the faiss index may go or change.

    Args:
        index: ``IndexIVFFlat``, ``IndexIVFScalarQuantizer`` (8 or 4 bits or fp16, without residuals),
            ``IndexFlat`` or ``IndexScalarQuantizer``, with the rows numbered from 0.
        rule: with ``l2`` after the cut (the default) the vectors in it must be of length one, and are
            compared by cosine at every size; else by the metric of the index.
        vectors: ``Float[rows, dim]``, those that were indexed; by default what the codes say of them,
            which takes four bytes an entry.

    Raises:
        ConfigError: for an index of another kind, or codes of residuals.
        DataError: for an index without rows, other numbers of rows, or vectors that are not of length one.

    Source: AdANNS, arXiv 2305.19435, section 4.2 (AdANNS-IVF-D).
    """
    index = faiss.downcast_index(index)
    if index.ntotal == 0:
        raise DataError("the faiss index holds no rows; add some first")
    is_inverted = isinstance(index, faiss.IndexIVF)
    scan = Scan(_code_of(index), index.d)
    coarse = Coarse("ivf", index.nlist, index.d) if is_inverted else None
    metric: Metric = "euclidean" if index.metric_type == faiss.METRIC_L2 and rule.after == "none" else "dot"
    space = Space.of(rule, metric)
    code = _adopt(index, scan, space)
    arrays: Arrays = {}
    if is_inverted:
        codes, rows, starts = _read_lists(index)
        centroids = index.quantizer.reconstruct_n(0, index.nlist)
        arrays.update({"rows": rows, "starts": starts, "coarse.centroids": centroids})
    else:
        codes = faiss.vector_to_array(index.codes).reshape(index.ntotal, -1)
        rows = np.arange(index.ntotal)
    arrays["codes"] = codes
    if vectors is None:
        vectors = np.empty((len(codes), index.d), np.float32)
        vectors[rows] = code.decode(codes)
    if rule.after == "l2":
        code = _with_energy(code, vectors)
    arrays.update({f"scan.{key}": part for key, part in code.to_parts().items()})
    return Engine(Plan(scan, coarse), arrays, vectors, rule, metric)


def _code_of(index: Any) -> Any:
    if isinstance(index, (faiss.IndexIVFFlat, faiss.IndexFlat)):
        return "flat"
    kinds = {
        faiss.ScalarQuantizer.QT_8bit: "int8",
        faiss.ScalarQuantizer.QT_4bit: "int4",
        faiss.ScalarQuantizer.QT_fp16: "fp16",
    }
    if not isinstance(index, (faiss.IndexIVFScalarQuantizer, faiss.IndexScalarQuantizer)):
        raise ConfigError(
            f"an index of type {type(index).__name__} holds codes that mix all entries, or is no index of "
            "one stage; prefixes of it cannot be read. Re-order its results by longer prefixes, or build an "
            "engine over the vectors"
        )
    if getattr(index, "by_residual", False):
        raise ConfigError(
            "the codes of the faiss index are of residuals to full-size centroids, whose prefixes mean "
            "nothing; make it with by_residual=False, or build an engine over the vectors"
        )
    if index.sq.qtype not in kinds:
        raise ConfigError("the scalar quantiser of the faiss index is none of QT_8bit, QT_4bit and QT_fp16")
    return kinds[index.sq.qtype]


def _adopt(index: Any, scan: Scan, space: Space) -> Code:
    if scan.code == "flat":
        return Code(scan, space, faiss.IndexFlat(index.d, space.faiss_metric()))
    trained = faiss.IndexScalarQuantizer(index.d, index.sq.qtype, space.faiss_metric())
    trained.sq, trained.is_trained = index.sq, True
    return Code(scan, space, trained)


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
    if code.scan.code == "flat":
        return code
    return Code(code.scan, code.space, code.trained, energy=np.mean(sample * sample, axis=0))
