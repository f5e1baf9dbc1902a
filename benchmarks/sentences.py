"""Distinct sentences of the docstrings and comments of the installed Python packages."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import warnings
from pathlib import Path

END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])|\n\s*\n")
COMMENT = re.compile(r"(?:^[ \t]*#[^\n]*\n)+", re.MULTILINE)
MARK = re.compile(r"^[ \t]*#+ ?", re.MULTILINE)
LARGEST_BYTES = 1_000_000


def sentences(count: int, seed: int = 0) -> list[str]:
    """That many sentences of 4 to 60 words, in random order, from files read in random order."""
    chance = random.Random(seed)
    roots = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    files = sorted({path for root in roots for path in Path(root).rglob("*.py")})
    chance.shuffle(files)
    found: set[str] = set()
    for path in files:
        if len(found) > 2 * count:
            break
        if path.stat().st_size < LARGEST_BYTES:
            found.update(_sentences_of(path))
    ordered = sorted(found)
    chance.shuffle(ordered)
    if len(ordered) < count:
        raise SystemExit(f"only {len(ordered)} sentences are installed here; ask for fewer with --rows")
    return ordered[:count]


def _sentences_of(path: Path) -> set[str]:
    try:
        source = path.read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the sources read, not of ours
            tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError):
        return set()
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    texts += [MARK.sub("", match.group()) for match in COMMENT.finditer(source)]
    parts = (" ".join(part.split()) for text in texts for part in END.split(text))
    return {part for part in parts if 4 <= len(part.split()) <= 60}
