"""Codes and links of a graph, as arrays that an index stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.errors import ArtifactError
from nestling.kernels.graph import LINE_BYTES, CodedGraph, Residuals, WholeRows, aligned
from nestling.search.exact.centring import Centring
from nestling.search.exact.faiss_arrays import faiss
from nestling.search.exact.neighbours import Metric
from nestling.search.exact.space import Space
from nestling.search.graph.codec import Codec, whole_rows, write_whole
from nestling.search.graph.equal_rows import Equal
from nestling.search.graph.growth import begun_graph, linking_order, usual_view
from nestling.search.graph.scan import GraphScan
from nestling.storage.resumable import Arrays

_WHOLE = ("whole_values", "whole_scales", "whole_norms")
_RESIDUALS = ("residuals", "residual_steps")
_MOVED = 1.0  # a fifth number: queries are taken relative to the mean

Links = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Coding:
    """The coding of the rows of a graph.

    Attributes:
        centring: makes scores inner products; its norms are those of the rows that are coded.
        codec: rotates rows onto their principal axes and codes them.
        metric: ``"dot"`` or ``"euclidean"``, as results show it.
        with_residuals: whether what the codes leave out is kept in 8 bits.
    """

    centring: Centring
    codec: Codec
    metric: Metric
    with_residuals: bool = False

    @classmethod
    def fit(cls, prefixes: NDArray[Any], space: Space, seed: int) -> Self:
        """Learn it from rows, which are read block by block.

        Raises:
            DataError: for rows with NaN or infinity, or of length zero under ``l2``; they are named.
        """
        centring = Centring.fit(prefixes, space.similarity)
        return cls(centring, Codec.fit(prefixes, centring, seed), space.metric)

    def to_parts(self) -> Arrays:
        """The arrays to store, by name; the norms are needed only while building."""
        codec = self.codec
        numbers = np.array([self.centring.scale, codec.longest, codec.coded, codec.lines], np.float64)
        if codec.mean is not None:
            numbers = np.append(numbers, _MOVED)
        return {"basis": codec.basis, "mean": self.centring.mean, "numbers": numbers}

    @classmethod
    def from_parts(
        cls, parts: Mapping[str, NDArray[Any]], space: Space, prefixes: NDArray[Any] | None = None
    ) -> Self:
        """Read what :meth:`to_parts` gave; the rows themselves are needed for more coding and linking."""
        scale, longest, coded, lines, *moved = parts["numbers"].tolist()
        similarity = space.similarity
        norms = None
        if space.is_normalised and prefixes is not None:
            norms = Centring.fit(prefixes, similarity).inverse_norms
        centring = Centring(similarity, scale, np.array(parts["mean"]), norms)
        mean = centring.mean if moved else None
        codec = Codec(np.array(parts["basis"]), int(coded), int(lines), similarity, longest, mean)
        return cls(centring, codec, space.metric)

    @property
    def kinds(self) -> dict[str, tuple[Any, int]]:
        """Type and width of the arrays that :meth:`encode` makes."""
        width = whole_rows(0, len(self.codec.basis)).values.shape[1]
        kinds = dict(zip(_WHOLE, ((np.int8, width), (np.float32, 0), (np.float32, 0)), strict=True))
        if self.with_residuals:
            kinds |= dict(zip(_RESIDUALS, ((np.int8, self.codec.columns), (np.float32, 0)), strict=True))
        return {"codes": (np.uint8, self.codec.stride), **kinds}

    def encode(self, prefixes: NDArray[Any], rows: slice) -> Arrays:
        """Codes of some rows to search by, of 8 bits to choose links by, and residuals to rank by."""
        rotated = self.codec.rotate(self.centring.centre(prefixes, np.arange(rows.start, rows.stop)))
        codes, whole = np.empty((len(rotated), self.codec.stride), np.uint8), whole_rows(*rotated.shape)
        self.codec.code(rotated, codes)
        write_whole(whole, slice(None), rotated)
        made: Arrays = {
            "codes": codes,
            **dict(zip(_WHOLE, (whole.values, whole.scales, whole.norms), strict=True)),
        }
        if self.with_residuals:
            rest = self.codec.residuals(rotated, codes)
            made |= dict(zip(_RESIDUALS, (rest.values, rest.steps), strict=True))
        return made


def grow_links(
    coding: Coding,
    prefixes: NDArray[Any],
    arrays: Callable[[str], NDArray[Any]],
    links: int,
    seed: int,
    equal: Equal,
    begun: tuple[int, Links] | None,
    note: Callable[[int, Links], None],
) -> CodedGraph:
    """Link coded rows.

    Args:
        coding: of the rows.
        prefixes: ``Float[rows, dim]``.
        arrays: those that :meth:`Coding.encode` made, by name.
        links: of a row.
        seed: of the order.
        equal: of which groups one row each is linked.
        begun: number of rows that an interrupted build had linked, and its links.
        note: called with the same after each step.
    """
    order = linking_order(equal, seed)
    graph = begun_graph(in_lines(arrays("codes")), links, coding.codec, order)
    linked = 0
    if begun is not None:
        linked, graph.links[:] = begun
    scan = GraphScan(prefixes, coding.centring, coding.codec, graph, coding.metric)
    whole = WholeRows(*map(arrays, _WHOLE))
    ef, workers = usual_view(len(prefixes)), faiss.omp_get_max_threads()
    for done in scan.grow(whole, ef, order, workers=workers, linked=linked):
        note(done, graph.links)
    return graph


BUILDING = _WHOLE
"""Arrays that are needed while a graph grows and not after."""


def residuals_of(arrays: Arrays, rows: int, columns: int) -> Residuals | None:
    """The residuals among some arrays, if there are any.

    Raises:
        ArtifactError: for residuals that are not those of the codes.
    """
    if _RESIDUALS[0] not in arrays:
        return None
    residuals = Residuals(*(arrays[name] for name in _RESIDUALS))
    shapes = (residuals.values.shape, residuals.steps.shape)
    kinds = residuals.values.dtype.str + residuals.steps.dtype.str
    if shapes != ((rows, columns), (rows,)) or kinds != "|i1<f4":
        raise ArtifactError("the residuals of the graph are not those of its codes; build it again")
    return residuals


def check_graph(arrays: Arrays, rows: int, dim: int, links: int, plan: str, where: str) -> None:
    """Refuse arrays that a search could not read without leaving them.

    Args:
        arrays: of the graph, by name.
        rows: number of vectors.
        dim: the prefix that was linked.
        links: of a row.
        plan: as errors name it.
        where: the folder, as errors name it.

    Raises:
        ArtifactError: for shapes that do not fit each other, or links that lead to no row.
    """
    lists, hubs, numbers = (arrays[name] for name in ("links.rows", "links.hubs", "graph.numbers"))
    entries = len(arrays["graph.basis"])
    is_moved = numbers.shape == (5,) and numbers[4] == _MOVED
    code_bytes = int(numbers[3]) * LINE_BYTES if is_moved or numbers.shape == (4,) else 0
    shapes = {
        "codes": (rows, code_bytes),
        "links.rows": (rows, links),
        "links.hubs": (min(rows, len(hubs)),),
        "graph.basis": (entries, entries),
        "graph.mean": (dim,),
        "graph.numbers": (4 + is_moved,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ArtifactError(
                f"{where} holds {name} of shape {arrays[name].shape}, and {plan} over {rows} vectors needs "
                f"{shape}; load it with the plan and vectors it was built over, or build it again"
            )
    kinds = {"codes": "u1", "links.rows": "i4", "links.hubs": "i4", "graph.basis": "f8", "graph.mean": "f8"}
    wrong = [name for name, kind in kinds.items() if arrays[name].dtype != np.dtype(kind)]
    room = 4 * (code_bytes - 4)  # a code ends with at least one number
    if wrong or entries not in (dim, dim + 1) or not 1 <= numbers[2] <= min(entries, room):
        raise ArtifactError(f"the codes of the graph in {where} are malformed; build it again")
    for each, least in ((lists, -1), (hubs, 0)):
        if not (each.size and each.min() >= least and each.max() < rows):
            raise ArtifactError(f"the graph in {where} links rows that are not there; build it again")


def in_lines(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes in memory, each in as few lines of the cache as it can."""
    if not isinstance(codes, np.memmap) and codes.ctypes.data % LINE_BYTES == 0:
        return codes
    placed = aligned(*codes.shape)
    placed[:] = codes
    return placed


def in_memory(array: NDArray[Any]) -> NDArray[Any]:
    """A copy of what is read from a file."""
    return np.array(array) if isinstance(array, np.memmap) else array
