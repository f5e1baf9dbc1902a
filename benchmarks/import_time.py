"""Seconds that `import nestling` adds to the start of Python, each in a process of its own.

Run: python benchmarks/import_time.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from record import Results, arguments, in_turn, parsed, verdict

TARGET_SECONDS = 0.3


def start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    given = parsed(arguments(__doc__, rounds=15))
    methods = {"bare": lambda: start("pass"), "nestling": lambda: start("import nestling")}
    seconds = in_turn(methods, given.rounds)
    added = [b - a for a, b in zip(seconds["bare"], seconds["nestling"], strict=True)]
    row: dict[str, object] = {
        "what": "import nestling",
        "seconds": f"{statistics.median(added):.3f}",
        "low": f"{min(added):.3f}",
        "high": f"{max(added):.3f}",
        "target": f"< {TARGET_SECONDS}",
        "verdict": verdict(statistics.median(added), TARGET_SECONDS, at_most=True),
    }
    print("{what}: {seconds} s ({low} to {high}), target {target}: {verdict}".format(**row))
    Results("import_time", given.output).add(row)


if __name__ == "__main__":
    main()
