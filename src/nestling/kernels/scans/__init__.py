"""Scans of packed codes, exact scores of rows, and the search that joins both."""

from nestling.kernels.dispatch import backend
from nestling.kernels.scans import native, numpy

search = backend(numpy.search, native.search)
scan = backend(numpy.scan, native.scan)
score = backend(numpy.score, native.score)
