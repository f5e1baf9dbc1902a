"""Exact search that scans 2-bit codes first, and uses error bounds to prove that no neighbour was missed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.arguments.constraints import OneOf, check
from nestling.arguments.paths import home_path
from nestling.cut import CutRule, check_vectors
from nestling.elastic import Cost
from nestling.errors import ArtifactError, DataError
from nestling.process.blocks import shares
from nestling.search.certified.calibration import CONFIDENCE, Calibration
from nestling.search.certified.codes import PlaneCodes
from nestling.search.exact.centring import Centring, PreparedQueries, readable
from nestling.search.exact.filters import check_mask
from nestling.search.exact.neighbours import Metric, Neighbours, check_k
from nestling.search.exact.scores import in_single
from nestling.search.exact.space import Space, check_space
from nestling.search.exact.threads import count_workers
from nestling.storage.artifact import write_file
from nestling.storage.npy import read_arrays, write_array

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Code = Literal["int4"]
_CODE = OneOf(get_args(Code))

# Below this share of rows allowed, reading their vectors costs less than scanning the codes of all.
_FEW = 1 / 16
# Rows that take a thread many times as long as its start, and as raising a threshold of its own.
_ROWS_TO_SHARE = 1 << 17
_CALIBRATION_QUERIES, _CALIBRATION_NEIGHBOURS = 256, 32


@dataclass(frozen=True, eq=False)
class Certificate:
    """Proof that a result is exact: no row that was left out can be better than the last one found.

    Args:
        rows: rows whose codes were scanned for every query.
        refined: ``Int[queries]``: rows whose low bits were read too; all where many queries were asked.
        verified: ``Int[queries]``: rows whose exact score was computed.
        kth_scores: ``Float64[queries]``: score of the worst result, a similarity or a distance; nan
            where there is none.
        skipped_bounds: ``Float64[queries]``: no row that was not verified can score better than this;
            minus infinity (plus, for distances) where all were.
        confidence: 1, or with what probability each true neighbour is among the results.
    """

    rows: int
    refined: NDArray[np.int64]
    verified: NDArray[np.int64]
    kth_scores: Doubles
    skipped_bounds: Doubles
    confidence: float


@dataclass(frozen=True, eq=False)
class CertifiedNeighbours(Neighbours):
    """Neighbours with the certificate of the search that found them."""

    certificate: Certificate


class CertifiedScan:
    """Exact nearest neighbours from 4-bit codes, verified where the codes leave a doubt.

    For a few queries all rows are compared by two bits per dim, and what survives by its other two bits; for
    many, all four bits are unpacked once for all of them. A vector is read only if an upper bound on
    its score reaches the k-th best score so far; so the result is that of a full search in double
    precision, and the certificate says what the bounds left out. With a ``confidence`` below 1 the bounds
    are those that quantisation errors keep with that probability.

    Codes are of vectors that are centred and rotated at random; similarities are kept, and the
    bounds hold for any vectors. They are tight, and the search fast, from about 64 dims on.
    Searching shares no state that changes: any number of threads may search at once.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        centring: Centring,
        codes: PlaneCodes,
        calibration: Calibration,
        metric: Metric,
    ) -> None:
        self._vectors, self._centring, self._codes = vectors, centring, codes
        self._calibration, self._metric = calibration, metric
        self._stored = kernels.StoredRows(vectors, centring.inverse_norms, centring.metric == "euclidean")

    @classmethod
    def build(
        cls,
        vectors: Any,
        *,
        rule: CutRule = CutRule(),
        metric: Metric = "dot",
        code: Code = "int4",
        seed: int = 0,
    ) -> Self:
        """Code the vectors, block by block, and calibrate the bounds for confidences below 1.

        Args:
            vectors: ``Float[rows, dim]``, kept and read again when searching (float32 or float16, which
                may be a memory map; anything else is copied as float32).
            rule: with ``l2`` after the cut similarities are cosines. The step before a cut must have
                been done to vectors and queries.
            metric: ``"dot"`` or ``"euclidean"``.
            code: ``"int4"``.
            seed: of the rotation and of the sample for calibration.

        Raises:
            DataError: for vectors that cannot be used, or rows of length zero under ``l2`` (named).
            ConfigError: for an unknown metric or code, or a rule with something before the cut.
        """
        check_space("a certified scan", rule, metric)
        check("code", code, _CODE)
        vectors = _codable(check_vectors(vectors))
        centring = Centring.fit(vectors, Space.of(rule, metric).similarity)
        codes = PlaneCodes.build(vectors, centring, seed)
        made = cls(vectors, centring, codes, Calibration.theoretical(vectors.shape[1]), metric)
        return cls(vectors, centring, codes, made._calibrate(seed), metric)

    def search(
        self,
        queries: Any,
        k: int,
        *,
        confidence: float = 1.0,
        allowed: NDArray[np.bool_] | None = None,
        workers: int | None = None,
    ) -> CertifiedNeighbours:
        """The ``k`` nearest rows of every query, with a certificate.

        Args:
            queries: ``Float[queries, dim]``.
            k: 1 to the number of rows. Where fewer are allowed, -1 and nan fill the result.
            confidence: above 0.5 and at most 1. 1 is exact; below, each true neighbour is found with at least
                this probability, for queries that are to their neighbours as stored rows are to theirs.
            allowed: ``Bool[rows]``: the rows that may be found.
            workers: threads, each with some of the queries. Where these are fewer than the workers that are
                asked for, each has some of the rows instead. By default queries are shared by all cores.

        Raises:
            DataError: for queries or a mask that do not fit, ``k`` outside its range, or scores that float32
                does not hold.
            ConfigError: for a confidence outside its range, or less than one worker.
        """
        queries = check_vectors(queries, "queries", dim=self._vectors.shape[1])
        self._check_request(k, confidence, allowed)
        prepared, probes = self._prepared(queries, confidence)
        if allowed is not None and np.count_nonzero(allowed) < len(allowed) * _FEW:
            found = _look_through(self._stored, np.flatnonzero(allowed), probes, k)
        else:
            found = self._find(probes, k, allowed, workers)
        return self._answer(found, prepared, confidence)

    def _prepared(self, queries: NDArray[Any], confidence: float) -> tuple[PreparedQueries, kernels.Probes]:
        exact = self._centring.direct(queries)
        prepared = self._centring.prepare(exact)
        return prepared, self._codes.probes(exact, prepared, self._calibration, confidence)

    def cost(self) -> Cost:
        """The work of one query, and the bytes of the codes beside the vectors."""
        rows, dim = self._vectors.shape
        size = self._codes.size_bytes
        if self._centring.inverse_norms is not None:
            size += self._centring.inverse_norms.nbytes
        return Cost(flops=rows * dim, size_bytes=size, output_bytes=size // rows)

    def save(self, folder: str | Path) -> None:
        """Write the codes, not the vectors, as plain files into a folder that exists.

        Raises:
            StorageError: if writing fails.
        """
        centring = self._centring
        for name, array in {
            **self._codes.arrays(),
            "mean": centring.mean,
            "norms": centring.inverse_norms,
        }.items():
            if array is not None:
                write_array(home_path(folder) / f"{name}.npy", array)
        settings = {
            "metric": self._metric,
            "space": centring.metric,
            "scale": centring.scale,
            "step": self._codes.quantiser.step,
            "calibration": self._calibration.to_json(),
        }
        write_file(home_path(folder) / "certified.json", json.dumps(settings, indent=2))

    @classmethod
    def load(cls, folder: str | Path, vectors: Any) -> Self:
        """Read what ``save`` wrote; ``vectors`` are those that were coded, and some are compared.

        Raises:
            ArtifactError: if files are missing or malformed, or the codes are not those of the vectors.
        """
        root, vectors = home_path(folder), _codable(check_vectors(vectors))
        try:
            settings = json.loads((root / "certified.json").read_text(encoding="utf-8"))
            arrays = read_arrays(root)
            inverse = arrays.get("norms")
            centring = Centring(settings["space"], float(settings["scale"]), arrays["mean"], inverse)
            codes = PlaneCodes.of_arrays(len(vectors), arrays, float(settings["step"]))
            calibration = Calibration(*settings["calibration"])
            made = cls(vectors, centring, codes, calibration, settings["metric"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise ArtifactError(
                f"{folder} does not hold a certified scan that can be read: {error}"
            ) from error
        codes.check(vectors, centring, str(folder))
        return made

    def _check_request(self, k: int, confidence: float, allowed: NDArray[np.bool_] | None) -> None:
        rows = len(self._vectors)
        check_k(k, rows)
        check("confidence", confidence, CONFIDENCE)
        if allowed is not None:
            check_mask(allowed, rows)

    def _find(
        self, probes: kernels.Probes, k: int, allowed: NDArray[np.bool_] | None, workers: int | None
    ) -> kernels.Found:
        if allowed is not None:
            allowed = np.ascontiguousarray(allowed)

        def search(part: kernels.Probes, blocks: slice | None = None) -> kernels.Found:
            return kernels.search(self._stored, self._codes.planes, part, k, allowed=allowed, blocks=blocks)

        queries, rows = len(probes.codes), len(self._vectors)
        by_rows = min(workers or 1, rows // _ROWS_TO_SHARE)
        if queries < by_rows:
            spans = shares(kernels.padded(rows) // kernels.LANES, by_rows)
            with ThreadPoolExecutor(by_rows) as pool:
                return kernels.Found.merged(list(pool.map(lambda span: search(probes, span), spans)))
        workers = min(count_workers(workers), queries)
        if workers == 1:
            return search(probes)
        parts = [probes.part(some) for some in shares(queries, workers)]
        with ThreadPoolExecutor(workers) as pool:
            return kernels.Found.joined(list(pool.map(search, parts)))

    def _answer(
        self, found: kernels.Found, prepared: PreparedQueries, confidence: float
    ) -> CertifiedNeighbours:
        with np.errstate(invalid="ignore", over="ignore"):
            skipped = (found.skipped - prepared.bounds[:, 1]) / prepared.bounds[:, 0]
        there = (found.indices >= 0).sum(axis=1)
        last = np.take_along_axis(found.scores, np.maximum(there - 1, 0)[:, None], axis=1)[:, 0]
        scores, last, skipped = (self._shown(each) for each in (found.scores, last, skipped))
        certificate = Certificate(
            len(self._vectors), found.refined, found.verified, last, skipped, float(confidence)
        )
        return CertifiedNeighbours(found.indices, in_single(scores), certificate)

    def _shown(self, scores: Doubles) -> Doubles:
        """Similarities, or distances."""
        if self._metric == "dot":
            return scores
        squares = -scores if self._centring.metric == "euclidean" else 2 - 2 * scores
        return np.asarray(np.sqrt(np.maximum(squares, 0)))

    def _calibrate(self, seed: int) -> Calibration:
        """Measure errors between some stored rows, as queries, and the rows that are nearest to them."""
        rows = len(self._vectors)
        k = min(_CALIBRATION_NEIGHBOURS + 1, rows)
        chosen = np.random.default_rng(seed).choice(rows, min(_CALIBRATION_QUERIES, rows), replace=False)
        _, probes = self._prepared(check_vectors(self._vectors[np.sort(chosen)]), 1.0)
        found = self._find(probes, k, None, None).indices
        asked, answers = np.repeat(np.sort(chosen), k), found.ravel()
        others = asked != answers
        return self._codes.calibrate(self._vectors, self._centring, asked[others], answers[others])


def _look_through(vectors: kernels.StoredRows, rows: Ints, probes: kernels.Probes, k: int) -> kernels.Found:
    """The best of a few rows, all of them verified."""
    count = len(probes.codes)
    indices, scores = np.full((count, k), -1, np.int64), np.full((count, k), np.nan)
    for i, query in enumerate(probes.exact):
        every = kernels.score(vectors, query, rows)
        order = np.argsort(-every, kind="stable")[:k]
        indices[i, : len(order)], scores[i, : len(order)] = rows[order], every[order]
    none, all_rows = np.zeros(count, np.int64), np.full(count, len(rows))
    return kernels.Found(indices, scores, none, all_rows, np.full(count, -np.inf))


def _codable(vectors: NDArray[Any]) -> NDArray[Any]:
    """Vectors as the kernels read them, if they are not too long to be coded."""
    if vectors.shape[1] > kernels.MOST_DIMS:
        raise DataError(
            f"vectors of {vectors.shape[1]} dims cannot be coded; {kernels.MOST_DIMS} is the most"
        )
    return readable(vectors)
