"""Writes the oldest versions that pyproject.toml allows, as constraints for pip: ``name==version`` a line.

Only requirements with a lower bound are named; pip picks the versions of all others.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

BOUNDED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*])?>=(?P<version>[0-9][0-9a-z.]*)")


def oldest(pyproject: Path) -> dict[str, str]:
    """The lower bound of each requirement, of the core and of all extras."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
        for bound in filter(None, map(BOUNDED.match, requirements)):
            if found.setdefault(bound["name"], bound["version"]) != bound["version"]:
                raise SystemExit(f"{bound['name']} has two lower bounds in {pyproject}; give it one")
    return found


if __name__ == "__main__":
    bounds = oldest(Path(__file__).parents[1] / "pyproject.toml")
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(bounds.items()))
