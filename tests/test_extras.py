"""Optional packages: what src imports, which extra an error names, and what pyproject.toml declares agree."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from nestling.errors import MissingExtraError
from nestling.process import extras
from nestling.process.extras import EXTRAS, check_packages

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {"faiss": "faiss-cpu", "sklearn": "scikit-learn", "qdrant_edge": "qdrant-edge-py"}
INDIRECT = {
    "PIL": ("matplotlib",),
    "grpc": ("pymilvus", "qdrant-client"),
    "pydantic_core": ("pydantic",),
}
"""Packages that come only with others, and whose versions those choose."""


def distribution(package: str) -> str:
    return DISTRIBUTIONS.get(package, package.replace("_", "-"))


@cache
def project() -> dict[str, list[str]]:
    """The requirements of each extra, and of the core under the name ``""``."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": found["dependencies"], **found["optional-dependencies"]}


def declared(extra: str) -> set[str]:
    """Requirements of an extra itself, without those of the extras it includes."""
    names = {re.match(r"[\w.-]+", line).group() for line in project()[extra]}
    return (names - {"nestling"}) | {package for package, by in INDIRECT.items() if names & set(by)}


def included(extra: str) -> set[str]:
    """The extras that an extra includes directly."""
    lines = [re.match(r"nestling\[(.*)\]", line) for line in project()[extra]]
    return {each for line in lines if line for each in line.group(1).split(",")}


def brought(extra: str) -> set[str]:
    """All that installing an extra brings."""
    return declared("") | declared(extra) | {each for other in included(extra) for each in brought(other)}


def imports() -> Iterator[tuple[str, str, str | None]]:
    """Place, package, and extra named on the line, of every import in src."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from ((place, alias.name.partition(".")[0], None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield place, node.module.partition(".")[0], None
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
                values = [arg.value if isinstance(arg, ast.Constant) else None for arg in node.args]
                if values[0] is not None:
                    yield place, values[0].partition(".")[0], values[1]


FOREIGN = [each for each in imports() if each[1] not in {*sys.stdlib_module_names, "nestling"}]


def test_every_imported_package_is_declared() -> None:
    core = {distribution(package) for package in (*EXTRAS, *INDIRECT)} | declared("")
    assert [each for each in FOREIGN if distribution(each[1]) not in core] == []


def test_every_line_that_names_an_extra_names_one_that_declares_the_package() -> None:
    named = [each for each in FOREIGN if each[2] is not None]
    assert len(named) > 50
    assert [each for each in named if distribution(each[1]) not in declared(each[2])] == []


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_of_a_package_is_the_smallest_that_brings_it(package: str) -> None:
    extra = EXTRAS[package]
    assert distribution(package) in declared(extra)
    assert [
        other
        for other in project()
        if brought(other) < brought(extra) and distribution(package) in brought(other)
    ] == []


def test_a_picture_installs_no_torch() -> None:
    assert "torch" not in brought("plot") | brought("sklearn") | brought("compare")


def test_the_extras_that_come_with_others_are_those_of_the_project() -> None:
    by = {extra: {other for other in project() if extra in included(other)} for extra in EXTRAS.values()}
    found = {extra: others - {"test"} for extra, others in by.items() if others - {"test"}}
    assert {extra: set(others) for extra, others in extras._BROUGHT_BY.items()} == found


def test_all_that_is_missing_is_named_by_the_fewest_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "_is_installed", lambda package: package in ("numpy", "torch"))
    check_packages("numpy", "torch")
    with pytest.raises(MissingExtraError, match="package 'matplotlib', which is not installed"):
        check_packages("numpy", "matplotlib")
    with pytest.raises(MissingExtraError, match="'matplotlib', 'sentence_transformers', 'lancedb'") as raised:
        check_packages("matplotlib", "sentence_transformers", "lancedb")
    assert str(raised.value).endswith('them with: pip install "nestling[lancedb,text]"')
