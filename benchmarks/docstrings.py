"""Files a second from which docstrings are read, and the scan against compiling each file.

Run: python benchmarks/docstrings.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median

from nestling.data.python_source import scan
from nestling.data.python_source.definitions import UnreadableSourceError, definitions_by_ast, read_source
from nestling.data.python_source.pool import read_in_parallel
from nestling.data.sets.docstrings import default_roots, find_files
from record import Results, arguments, in_turn, parsed, ratio, verdict

TARGET_FILES_PER_SECOND = 2000


def sources(paths: list[str]) -> list[bytes]:
    """The files that compile, in memory, so that neither method waits for the disk."""
    found = []
    for path in paths:
        try:
            source = read_source(path)
            definitions_by_ast(source)
        except UnreadableSourceError:
            continue
        found.append(source)
    return found


def count_unsure(texts: list[bytes]) -> int:
    """Files that the scan leaves to the compiler."""
    asked: list[bytes] = []
    plain = scan.definitions_by_ast
    scan.definitions_by_ast = lambda source: asked.append(source) or plain(source)
    try:
        for text in texts:
            scan.definitions_by_scan(text)
    finally:
        scan.definitions_by_ast = plain
    return len(asked)


def counting_cpu(method: Callable[[], object], spent: list[float]) -> Callable[[], None]:
    """``method``, which also notes the processor time of this process and its children.

    On a machine that is busy with other work, that is the figure to look at.
    """

    def run() -> None:
        before = os.times()
        method()
        after = os.times()
        spent.append(sum(after[:4]) - sum(before[:4]))

    return run


def main() -> None:
    given = parsed(arguments(__doc__, rounds=3))
    rounds = given.rounds
    paths = [file.path for file in find_files(default_roots())]
    if given.quick:
        paths = paths[:1000]
    sample = sources(paths[::16])
    methods: dict[str, Callable[[], object]] = {
        "all files, two processes": lambda: list(read_in_parallel(paths, 2)),
        "all files, one process": lambda: list(read_in_parallel(paths, 1)),
        "scan of the sample": lambda: [scan.definitions_by_scan(text) for text in sample],
        "ast of the sample": lambda: [definitions_by_ast(text) for text in sample],
    }
    cpu: dict[str, list[float]] = {name: [] for name in methods}
    seconds = in_turn({name: counting_cpu(method, cpu[name]) for name, method in methods.items()}, rounds)
    rows: list[dict[str, object]] = []
    for name, count in zip(seconds, (len(paths), len(paths), len(sample), len(sample)), strict=True):
        rate = count / median(seconds[name])
        cpu_rate = count / median(cpu[name][-rounds:])
        rows.append(
            {"what": name, "files": count, "files_per_s": round(rate), "files_per_cpu_s": round(cpu_rate)}
        )
        print(
            f"{name:26} {count:6} files  {rate:6.0f} files/s  {cpu_rate:6.0f} files per second of processor"
        )
    value, low, high = ratio(seconds, "ast of the sample", "scan of the sample")
    unsure = count_unsure(sample)
    print(
        f"ast over scan: {value:.1f} ({low:.1f} to {high:.1f}); left to ast: {unsure} of {len(sample)} files"
    )
    reached = verdict(float(str(rows[0]["files_per_s"])), TARGET_FILES_PER_SECOND, at_most=False)
    print(f"at least {TARGET_FILES_PER_SECOND} files/s with two processes: {reached}")
    rows.append({"what": f"ast over scan: {value:.1f}", "files": len(sample)})
    Results("docstrings", given.output, remark=f"load {os.getloadavg()[0]:.1f}").add(*rows)


if __name__ == "__main__":
    main()
