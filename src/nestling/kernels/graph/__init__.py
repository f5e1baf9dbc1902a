"""A graph of rows with 2-bit codes: building, search, and ranking of candidates."""

from nestling.kernels.dispatch import backend
from nestling.kernels.graph import native, numpy
from nestling.kernels.graph.layout import (
    LINE_BYTES,
    Answer,
    CodedGraph,
    EncodedQueries,
    QueryEncoder,
    Residuals,
    SearchedGraph,
    WholeRows,
    aligned,
)
from nestling.kernels.graph.numpy import rank_coded

__all__ = [
    "LINE_BYTES",
    "Answer",
    "CodedGraph",
    "EncodedQueries",
    "QueryEncoder",
    "Residuals",
    "SearchedGraph",
    "WholeRows",
    "aligned",
    "beam_search",
    "encode",
    "grow",
    "link",
    "rank",
    "rank_coded",
    "search",
]

encode = backend(numpy.encode, native.encode)
search = backend(numpy.search, native.search)
beam_search = backend(numpy.beam_search, native.beam_search)
grow = backend(numpy.grow, native.grow)
link = backend(numpy.link, native.link)
rank = backend(numpy.rank, native.rank)
