"""The JSON files in the folder of a model, as sentence-transformers and transformers write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_config(path: Path) -> Any:
    """The content of a file; an empty mapping where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_config(path: Path, value: Any) -> None:
    """Write a file, or replace it."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
