"""Names that a module loads when first asked for: exports of a package, and old names of what was renamed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(
    package: str, homes: Mapping[str, str], renamed: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Args:
        package: its ``__name__``.
        homes: the names, each with the module below the package that defines it.
        renamed: see :func:`old_names`.
    """

    def load(name: str) -> Any:
        if name not in homes:
            return _renamed(package, name, renamed or {})
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    names = sorted(homes)
    return load, lambda: names, names


def old_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """``__getattr__`` of a module whose public names have changed: the old ones work, with a warning.

    Args:
        module: its ``__name__``.
        renamed: the new names by the old ones, which end with nestling 0.3. A name in another module is
            written with it: ``nestling.module.name``.
    """
    return lambda name: _renamed(module, name, renamed)


def _renamed(module: str, name: str, renamed: Mapping[str, str]) -> Any:
    if name not in renamed:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(
        f"{module}.{name} is {renamed[name]} now; the old name ends with nestling 0.3",
        DeprecationWarning,
        stacklevel=3,  # whoever asks the module for it
    )
    home, _, last = renamed[name].rpartition(".")
    return getattr(import_module(home or module), last)
