"""A graph of rows with 2-bit codes: how it is built and searched, and its candidates ranked."""

from nestling.kernels.dispatch import backend
from nestling.kernels.graph import native, numpy
from nestling.kernels.graph.layout import (
    LINE_BYTES,
    Answer,
    CodedGraph,
    Lens,
    Residuals,
    SearchedGraph,
    Walks,
    WholeRows,
    aligned,
)
from nestling.kernels.graph.numpy import rank_coded

__all__ = [
    "LINE_BYTES",
    "Answer",
    "CodedGraph",
    "Lens",
    "Residuals",
    "SearchedGraph",
    "Walks",
    "WholeRows",
    "aim",
    "aligned",
    "grow",
    "link",
    "rank",
    "rank_coded",
    "search",
    "walk",
]

aim = backend(numpy.aim, native.aim)
search = backend(numpy.search, native.search)
walk = backend(numpy.walk, native.walk)
grow = backend(numpy.grow, native.grow)
link = backend(numpy.link, native.link)
rank = backend(numpy.rank, native.rank)
