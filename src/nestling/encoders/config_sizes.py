"""The sizes that a model's ``config.json`` declares, where vLLM, SGLang and others look for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nestling.encoders.config_files import read_config, write_config
from nestling.errors import DataError


def declared_dims(config: Any, full: int | None) -> tuple[int, ...] | None:
    """The sizes a model's config declares, increasing, up to and with ``full``; None if it declares none.

    Args:
        config: ``config.json`` as a mapping, a transformers config, or None.
        full: the width of the model.

    Raises:
        DataError: if the declared value is not a list of sizes.
    """
    name = "matryoshka_dimensions"
    declared = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    if not declared:
        return None
    if not isinstance(declared, list) or not all(type(dim) is int and dim > 0 for dim in declared):
        raise DataError(f"the model's config declares {name} {declared!r}; a list of whole numbers is needed")
    full = max(declared) if full is None else full
    return tuple(sorted({dim for dim in declared if dim < full} | {full}))


def write_dims(folder: Path, dims: Iterable[int]) -> None:
    """Declare sizes in the ``config.json`` of a folder; other entries stay."""
    path = folder / "config.json"
    declared = {"is_matryoshka": True, "matryoshka_dimensions": list(dims)}
    write_config(path, read_config(path) | declared)
