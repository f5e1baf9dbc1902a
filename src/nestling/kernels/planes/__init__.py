"""Nested codes: coding entries in 8 bits, their bit planes, exact search of some dims and bits of them."""

from nestling.kernels.dispatch import backend
from nestling.kernels.planes import native, numpy

encode = backend(numpy.encode, native.encode)
decode = backend(numpy.decode, native.decode)
packed = backend(numpy.packed, native.packed)
unpacked = backend(numpy.unpacked, native.unpacked)
hamming = backend(numpy.hamming, native.hamming)
search = backend(numpy.search, native.search)
score = backend(numpy.score, native.score)
measure = backend(numpy.measure, native.measure)
