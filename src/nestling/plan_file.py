"""Plans as TOML files: tables that hold known keys, and errors that say what is wrong in which."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from nestling.arguments.paths import home_path
from nestling.errors import ConfigError, unknown

Plan = TypeVar("Plan", bound=BaseModel)


def read_tables(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: for a file that cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(home_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the plan {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the plan {path} is not TOML: {error}") from error


def check_names(tables: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> None:
    """Refuse tables and keys that are not known; the nearest are named, and where a key stands.

    Args:
        tables: as they were read.
        known: the keys of each table.

    Raises:
        ConfigError: for an unknown table or key, or a table that is none.
    """
    homes = {key: name for name, keys in known.items() for key in keys}
    for name, table in tables.items():
        if name not in known:
            hint = f"; {name!r} stands in [{homes[name]}]" if name in homes else ""
            raise ConfigError(unknown("table", name, known) + hint)
        if not isinstance(table, dict):
            raise ConfigError(
                f"{name} must be a table: write [{name}] above its keys {', '.join(known[name])}"
            )
        for key in table:
            if key not in known[name]:
                hint = f"; {key!r} stands in [{homes[key]}]" if key in homes else ""
                raise ConfigError(unknown(f"key of [{name}]", key, known[name]) + hint)


def validated(plan: type[Plan], tables: Mapping[str, Any]) -> Plan:
    """The plan that tables describe.

    Raises:
        ConfigError: for values that are not allowed; each is named with its table and key.
    """
    try:
        return plan.model_validate(tables)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_told, error.errors()))) from error


def _told(error: Any) -> str:
    table, *rest = error["loc"] or ("plan",)
    place = " ".join([f"[{table}]", *map(str, rest)])
    given = "" if error["type"] == "value_error" else f"; got {error['input']!r}"
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{given}"
