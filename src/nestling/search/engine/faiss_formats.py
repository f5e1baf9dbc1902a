"""Vectors in number formats, and codes of stored vectors, as indexes of faiss; and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import OneOf, checked
from nestling.bits import BitCode, cell_values
from nestling.errors import DataError
from nestling.kernels.planes import packed
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.tiles import METRIC
from nestling.vectors.formats import FORMATS, Format, Ranges, check_values, ends_of, unsigned
from nestling.vectors.planes import BitPlanes

_NIBBLE = 15
_OF_CODES = (1, 4)


class Coded(NamedTuple):
    """Values in a number format; see :mod:`~nestling.vectors.formats`.

    Args:
        values: ``[n, dim]``, or ``[n, ceil(dim / 8)]`` for bits.
        form: the format.
        ranges: ``Float32[2, dim]`` of whole numbers; None for others.
    """

    values: NDArray[Any]
    form: Format
    ranges: NDArray[np.float32] | None = None


@checked(form=OneOf(FORMATS), metric=METRIC)
def to_faiss(values: Any, form: Format, *, ranges: Ranges | None = None, metric: Metric = "dot") -> Any:
    """An index of faiss over values in a number format; it decodes to the same vectors.

    Args:
        values: as :func:`~nestling.vectors.formats.to_format` gives them.
        form: ``float32`` becomes ``IndexFlat``; ``float16``, ``uint8`` and ``int8`` an
            ``IndexScalarQuantizer``; ``ubinary`` and ``binary`` an ``IndexBinaryFlat``, which compares by
            Hamming distance.
        ranges: those of ``uint8`` and ``int8``.
        metric: of all but bits.

    Raises:
        DataError: for values of another type or shape than the format, or ranges that do not fit.
    """
    x = check_values(values, form)
    if form in ("binary", "ubinary"):
        return _binary(x if form == "ubinary" else unsigned(x))
    kind = _metric(metric)
    if form == "float32":
        index = faiss.IndexFlat(x.shape[1], kind)
        index.add(np.ascontiguousarray(x))
        return index
    if form == "float16":
        return _scalar(np.ascontiguousarray(x).view(np.uint8), x.shape[1], "QT_fp16", kind)
    low, step = ends_of(ranges, x.shape[1], form)
    codes = x if form == "uint8" else unsigned(x)
    return _scalar(codes, x.shape[1], "QT_8bit", kind, low, 255 * step)


def from_faiss(index: Any) -> Coded:
    """The values of an index of faiss, in the format that holds them exactly.

    Args:
        index: ``IndexFlat``, ``IndexBinaryFlat``, or ``IndexScalarQuantizer`` of ``QT_8bit`` or ``QT_fp16``.

    Raises:
        DataError: for another index.
    """
    read = index if isinstance(index, faiss.IndexBinary) else faiss.downcast_index(index)
    if isinstance(read, faiss.IndexBinaryFlat):
        return Coded(faiss.vector_to_array(read.xb).reshape(read.ntotal, read.d // 8), "ubinary")
    if isinstance(read, faiss.IndexFlat):
        return Coded(read.reconstruct_n(0, read.ntotal), "float32")
    if isinstance(read, faiss.IndexScalarQuantizer):
        codes = faiss.vector_to_array(read.codes).reshape(read.ntotal, read.code_size)
        if read.sq.qtype == faiss.ScalarQuantizer.QT_fp16:
            return Coded(codes.view(np.float16), "float16")
        if read.sq.qtype == faiss.ScalarQuantizer.QT_8bit:
            low, width = faiss.vector_to_array(read.sq.trained).reshape(2, read.d)
            return Coded(codes, "uint8", np.stack([low, low + width]))
    raise DataError(
        f"{type(read).__name__} holds no number format; give an IndexFlat, an IndexBinaryFlat, or an "
        "IndexScalarQuantizer of QT_8bit or QT_fp16"
    )


@checked(metric=METRIC)
def planes_to_faiss(planes: BitPlanes, *, metric: Metric = "dot") -> Any:
    """An index of faiss over the codes of stored vectors: ``StoredVectors.extract("bits=4").values``.

    One bit becomes ``IndexBinaryFlat``: queries need the code too. Four bits become an
    ``IndexScalarQuantizer`` of ``QT_4bit``, which decodes to the values of the code (before a cut rule
    normalises them).

    Raises:
        DataError: for other precisions, whose values faiss cannot hold in as few bits.
    """
    if planes.bits == 1:
        return _binary(planes.planes[0])
    if planes.bits != 4:
        raise DataError(
            f"faiss holds codes of {planes.bits} bits in no index exactly; extract one of "
            f"{', '.join(map(str, _OF_CODES))} bits, or give the values in float16: "
            "to_faiss(to_format(planes, 'float16'), 'float16')"
        )
    low, width = _ends(planes.code)
    codes = planes.codes(slice(None)) >> np.uint8(4)
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    both = even[:, ::2] | even[:, 1::2] << np.uint8(4)
    return _scalar(both, planes.code.dim, "QT_4bit", _metric(metric), low, width)


def planes_from_faiss(index: Any, code: BitCode) -> BitPlanes:
    """The codes that :func:`planes_to_faiss` wrote.

    Args:
        index: its result, or faiss read from a file.
        code: that of the vectors.

    Raises:
        DataError: for another index, or one that was made with another code.
    """
    if isinstance(index, faiss.IndexBinary):
        bits = from_faiss(index).values
        if bits.shape[1] != -(-code.dim // 8):
            raise DataError(f"an index of {index.d} bits does not hold codes of {code.dim} entries")
        return BitPlanes((bits,), code)
    read = faiss.downcast_index(index)
    if not isinstance(read, faiss.IndexScalarQuantizer) or read.sq.qtype != faiss.ScalarQuantizer.QT_4bit:
        raise DataError(
            f"{type(read).__name__} holds no codes of stored vectors; give what planes_to_faiss made"
        )
    if read.d != code.dim or not np.array_equal(
        faiss.vector_to_array(read.sq.trained), np.concatenate(_ends(code))
    ):
        raise DataError("the index was made with another code; give the one of its vectors' cut rule")
    both = faiss.vector_to_array(read.codes).reshape(read.ntotal, read.code_size)
    codes = np.stack([both & np.uint8(_NIBBLE), both >> np.uint8(4)], axis=2).reshape(read.ntotal, -1)
    return BitPlanes(tuple(packed(codes[:, : code.dim] << np.uint8(4), 4)), code)


def _ends(code: BitCode) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lower end and the width of the 16 equal steps of four bits, as faiss has them.

    The value of a step is its middle for faiss, ``low + (step + 0.5) / 15 * width``.
    """
    values = cell_values(4)
    step = (values[-1] - values[0]) / _NIBBLE * code.spread
    low = code.centre + values[0] * code.spread - step / 2
    return np.asarray(low, np.float32), np.asarray(_NIBBLE * step, np.float32)


def _binary(bits: NDArray[np.uint8]) -> Any:
    index = faiss.IndexBinaryFlat(8 * bits.shape[1])
    index.add(np.ascontiguousarray(bits))
    return index


def _scalar(codes: NDArray[Any], dim: int, kind: str, metric: Any, *trained: NDArray[np.float32]) -> Any:
    """An index that gets its codes and what it would have learned."""
    index = faiss.IndexScalarQuantizer(dim, getattr(faiss.ScalarQuantizer, kind), metric)
    if trained:
        faiss.copy_array_to_vector(np.concatenate(trained).astype(np.float32), index.sq.trained)
    index.is_trained = True
    index.add_sa_codes(np.ascontiguousarray(codes))
    return index


def _metric(metric: Metric) -> Any:
    return faiss.METRIC_INNER_PRODUCT if metric == "dot" else faiss.METRIC_L2
