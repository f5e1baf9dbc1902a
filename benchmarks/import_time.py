"""Seconds that `import nestling` adds to the start of Python, each in a process of its own.

Run: python benchmarks/import_time.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from record import in_turn, stamp, verdict, write_csv

REACH_SECONDS = 0.3


def start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    ways = {"bare": lambda: start("pass"), "nestling": lambda: start("import nestling")}
    seconds = in_turn(ways, parser.parse_args().rounds)
    added = [b - a for a, b in zip(seconds["bare"], seconds["nestling"], strict=True)]
    row: dict[str, object] = {
        "what": "import nestling",
        "seconds": f"{statistics.median(added):.3f}",
        "low": f"{min(added):.3f}",
        "high": f"{max(added):.3f}",
        "reach": f"< {REACH_SECONDS}",
        "verdict": verdict(statistics.median(added), REACH_SECONDS, at_most=True),
    }
    print("{what}: {seconds} s ({low} to {high}), reach {reach}: {verdict}".format(**row))
    write_csv("import_time", [row], stamp())


if __name__ == "__main__":
    main()
