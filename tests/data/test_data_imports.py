"""Public names of data load lazily and without torch."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from nestling import data


def test_every_public_name_is_there_and_none_of_them_needs_torch() -> None:
    code = (
        "import sys, nestling.data as room\n"
        "missing = [name for name in room.__all__ if getattr(room, name, None) is None]\n"
        "heavy = {'torch', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "assert not missing and not heavy, (missing, heavy)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_name_stays_a_loader_when_its_file_is_imported() -> None:
    for file in ("sets.images", "sets.retrieval_sets", "sets.sts", "sets.docstrings", "pairs"):
        import_module(f"nestling.data.{file}")
    assert all(callable(getattr(data, name)) for name in data.__all__ if name != "DATA_SETS")
    assert dir(data) == data.__all__
    with pytest.raises(AttributeError, match="no attribute 'mnist'"):
        data.mnist  # noqa: B018
