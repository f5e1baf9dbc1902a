"""Nestling's search against its peers on real text vectors, one thread, each over its own parameters.

Run: python benchmarks/search/run.py CACHE [--rows 200000] [--only faiss], after data.py CACHE
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import Measured, measure, truth_of
from ours import ours
from peers import peer_versions, peers
from report import report
from ways import Floats, Way

from data import VectorSet, load
from record import RESULTS, stamp

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


def all_ways(rows: int, dim: int) -> dict[str, Way]:
    return {way.name: way for way in [*ours(rows, dim), *peers(rows, dim)]}


def measure_here(given: argparse.Namespace) -> None:
    """One way in this process, a line of JSON for each point."""
    vectors = load(given.cache, given.encoder, given.rows[0])
    truth = _truth(given.cache, vectors)
    way = all_ways(*vectors.base.shape)[given.way]
    for point in measure(way, vectors, truth, given.seconds):
        print("POINT " + json.dumps(point.row()), flush=True)


def measure_apart(given: argparse.Namespace, rows: int, name: str) -> list[dict[str, object]]:
    """One way in a process of its own: its memory is its own, and if it dies the others go on."""
    command = [sys.executable, __file__, str(given.cache), "--encoder", given.encoder, "--rows", str(rows)]
    command += ["--seconds", str(given.seconds), "--way", name]
    try:
        done = subprocess.run(
            command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, timeout=given.timeout
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: not measured: more than {given.timeout} s")
        return []
    lines = [
        json.loads(line.removeprefix("POINT "))
        for line in done.stdout.splitlines()
        if line.startswith("POINT ")
    ]
    if not lines:
        print(f"{name}: not measured: {' '.join(done.stderr.split()[-40:])}")
    for line in lines:
        print("{way:40} {point:12} recall {recall:.4f}  single {qps_single:8.0f}  batch {qps_batch:8.0f}  "
              "{bytes_per_vector:6.0f} B  build {build_s:6.1f} s".format(**line), flush=True)  # fmt: skip
    return lines


def _truth(cache: Path, vectors: VectorSet) -> Floats:
    path = cache / f"truth-{vectors.name}.npy"
    if not path.is_file():
        np.save(path, truth_of(vectors))
    return np.load(path, allow_pickle=False)


def _keep(new: list[dict[str, object]], measured_on: str, name: str) -> None:
    """Replace what was measured before of the same ways on the same data; keep the rest."""
    path, names = RESULTS / f"{name}.csv", list(Measured.__dataclass_fields__)
    seen = {(row["data"], row["way"]) for row in new}
    old: list[dict[str, object]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            old = [dict(row) for row in csv.DictReader(stream) if (row["data"], row["way"]) not in seen]
    rows = [*old, *({**row, "machine": measured_on} for row in new)]
    rows.sort(key=lambda row: (str(row["data"]), row["ours"] in {False, "False"}, str(row["way"])))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*names, "machine"])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="the folder given to data.py")
    parser.add_argument("--encoder", default="wordllama")
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--only", nargs="+", default=[""], help="ways whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each timing")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds for one way")
    parser.add_argument("--name", default="search", help="of the table under benchmarks/results")
    parser.add_argument("--way", help="measure this way in this process")
    given = parser.parse_args()
    if given.way:
        measure_here(given)
        return
    versions = ", ".join(f"{name} {number}" for name, number in peer_versions().items())
    for rows in given.rows:
        vectors = load(given.cache, given.encoder, rows)
        _truth(given.cache, vectors)
        names = [name for name in all_ways(*vectors.base.shape) if any(part in name for part in given.only)]
        del vectors
        for name in names:
            found = measure_apart(given, rows, name)
            if found:
                load_now = f"load {os.getloadavg()[0]:.1f}"
                _keep(found, f"{stamp()}, {versions}, {load_now}", given.name)
    report(RESULTS / f"{given.name}.csv")


if __name__ == "__main__":
    main()
