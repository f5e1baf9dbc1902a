"""Summary of the measured points: Pareto fronts, QPS at a recall, and ours against the best peer.

Run: python benchmarks/search/report.py benchmarks/results/search.csv
"""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

RECALLS = (0.95, 0.99, 0.999)
Row = dict[str, str]


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """(recall, qps) that no other point beats in both, recall rising.

    >>> front([(0.9, 100.0), (0.8, 90.0), (0.95, 50.0)])
    [(0.9, 100.0), (0.95, 50.0)]
    """
    kept: list[tuple[float, float]] = []
    for recall, qps in sorted(points, reverse=True):
        if not kept or qps > kept[-1][1]:
            kept.append((recall, qps))
    return kept[::-1]


def qps_at(points: Iterable[tuple[float, float]], recall: float) -> float | None:
    """QPS at ``recall``, on the line in log(1 - recall) and log(qps) between the two points around it.

    ``None`` if no point reaches it; where all do, that of the cheapest, as nothing cheaper was measured.
    """
    line = front(points)
    if not line or line[-1][0] < recall:
        return None
    if line[0][0] >= recall:
        return line[0][1]
    for (low, fast), (high, slow) in pairwise(line):
        if low < recall <= high:
            share = _missing(low, recall) / _missing(low, high)
            return math.exp(math.log(fast) + share * (math.log(slow) - math.log(fast)))
    return None


def _missing(start: float, end: float) -> float:
    return math.log(max(1 - start, 1e-5) / max(1 - end, 1e-5))


def report(path: Path) -> None:
    """Print, for each data set, the methods at each recall and the ratios of ours over the peers."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in dict.fromkeys(row["data"] for row in rows):
        methods: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            if row["data"] == name:
                methods[row["method"]].append(row)
        for column in ("qps_single", "qps_batch"):
            print(f"\n{name}, {column}")
            print("\n".join(_table(list(methods.values()), column)))


def _table(methods: Sequence[Sequence[Row]], column: str) -> list[str]:
    lines = [
        f"{'method':44} {'B/vector':>8} {'build s':>8} " + " ".join(f"{recall:>9}" for recall in RECALLS)
    ]
    at = {
        method[0]["method"]: [qps_at(_points(method, column), recall) for recall in RECALLS]
        for method in methods
    }
    for method in sorted(methods, key=lambda method: -(at[method[0]["method"]][0] or 0)):
        first = method[0]
        figures = " ".join(f"{'-' if qps is None else format(qps, '9.0f'):>9}" for qps in at[first["method"]])
        facts = f"{float(first['bytes_per_vector']):8.0f} {float(first['build_s']):8.1f}"
        lines.append(f"{first['method']:44} {facts} {figures}")
    for number, recall in enumerate(RECALLS):
        lines += _ratios(methods, {name: qps[number] for name, qps in at.items()}, recall)
    return lines


def _ratios(methods: Sequence[Sequence[Row]], at: dict[str, float | None], recall: float) -> list[str]:
    size = {method[0]["method"]: float(method[0]["bytes_per_vector"]) for method in methods}
    peers = {
        name: qps
        for method in methods
        if method[0]["ours"] == "False"
        for name in [method[0]["method"]]
        if (qps := at[name])
    }
    lines = []
    for name in size.keys() - {method[0]["method"] for method in methods if method[0]["ours"] == "False"}:
        qps = at[name]
        if qps is None or not peers:
            continue
        small = {peer: rate for peer, rate in peers.items() if size[peer] <= size[name] * 1.005}
        for label, group in (("no more bytes", small), ("any memory", peers)):
            if group:
                best = max(group, key=group.__getitem__)
                lines.append(f"at {recall}: {name} is {qps / group[best]:.2f} x {best} ({label})")
    return lines


def _points(method: Sequence[Row], column: str) -> list[tuple[float, float]]:
    return [(float(row["recall"]), float(row[column])) for row in method]


if __name__ == "__main__":
    report(Path(sys.argv[1]))
