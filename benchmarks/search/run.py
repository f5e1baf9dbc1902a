"""Nestling's search against its peers on real text vectors, one thread, each over its own parameters.

Run: python benchmarks/search/run.py CACHE [--rows 200000] [--only faiss], after data.py CACHE
A quick run reads what data.py CACHE --quick made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import measure, truth_of
from methods import Floats, Method
from ours import ours
from peers import DISTRIBUTIONS, peer_versions, peers
from report import report

from data import QUICK_ROWS, VectorSet, load
from record import Results, Row, arguments, parsed

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


def all_methods(rows: int, dim: int) -> dict[str, Method]:
    return {method.name: method for method in [*ours(rows, dim), *peers(rows, dim)]}


def measure_here(given: argparse.Namespace) -> None:
    """One method in this process, a line of JSON for each point."""
    vectors = load(given.cache, given.encoder, given.rows[0])
    truth = _truth(given.cache, vectors)
    method = all_methods(*vectors.base.shape)[given.method]
    for point in measure(method, vectors, truth, given.seconds):
        print("POINT " + json.dumps(point.row()), flush=True)


def measure_apart(given: argparse.Namespace, rows: int, name: str) -> list[dict[str, object]]:
    """Run one method in its own process, so that its memory is measured alone and a crash stops no other."""
    command = [sys.executable, __file__, str(given.cache), "--encoder", given.encoder, "--rows", str(rows)]
    command += ["--seconds", str(given.seconds), "--method", name]
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
        print("{method:40} {point:12} recall {recall:.4f}  single {qps_single:8.0f}  batch {qps_batch:8.0f}  "
              "{bytes_per_vector:6.0f} B  build {build_s:6.1f} s".format(**line), flush=True)  # fmt: skip
    return lines


def _truth(cache: Path, vectors: VectorSet) -> Floats:
    path = cache / f"truth-{vectors.name}.npy"
    if not path.is_file():
        np.save(path, truth_of(vectors))
    return np.load(path, allow_pickle=False)


def place_of(row: Row) -> tuple[str, bool, str]:
    """Rows are sorted by their data; our methods come first."""
    return str(row["data"]), row["ours"] in {False, "False"}, str(row["method"])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("cache", type=Path, help="the folder given to data.py")
    parser.add_argument("--encoder", default="wordllama")
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--only", nargs="+", default=[""], help="methods whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each timing")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds for one method")
    parser.add_argument("--name", default="search", help="of the table under benchmarks/results")
    parser.add_argument("--method", help="measure this method in this process")
    given = parsed(parser)
    if given.quick:
        given.cache, given.rows, given.seconds = given.cache / "quick", [QUICK_ROWS], 0.01
    if given.method:
        measure_here(given)
        return
    installed = peer_versions()
    for name in (name for name in DISTRIBUTIONS if name not in installed):
        print(f"{name}: not measured: it is not installed")
    versions = ", ".join(f"{name} {number}" for name, number in installed.items())
    remark = f"{versions}, load {os.getloadavg()[0]:.1f}"
    results = Results(given.name, given.output, keys=("data", "method"), order=place_of, remark=remark)
    for rows in given.rows:
        vectors = load(given.cache, given.encoder, rows)
        _truth(given.cache, vectors)
        names = [
            name for name in all_methods(*vectors.base.shape) if any(part in name for part in given.only)
        ]
        del vectors
        for name in names:
            found = measure_apart(given, rows, name)
            if found:
                results.add(*found)
    report(results.path)


if __name__ == "__main__":
    main()
