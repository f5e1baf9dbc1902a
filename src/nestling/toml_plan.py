"""Plans as TOML files: known tables with known keys, described once, and errors that name table and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from nestling.arguments.paths import home_path
from nestling.errors import ConfigError, unknown

Plan = TypeVar("Plan", bound=BaseModel)

_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)
_QUOTED = re.compile(r"``\"?([^`]*?)\"?``")


class PlanTable(BaseModel):
    """A table of a plan: unknown keys are refused, and it does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Setting:
    """A key of a plan.

    Args:
        name: of the key.
        table: the table that it belongs to.
        kind: type of its value, other than None.
        options: names that it may have; empty where it is no choice.
        default: value where the plan does not give the key.
        description: entry in the docstring of the table's class, as one line of plain text.
    """

    name: str
    table: str
    kind: type
    options: tuple[str, ...]
    default: Any
    description: str


def settings_of(plan: type[BaseModel]) -> tuple[Setting, ...]:
    """All keys of a plan, in their order.

    Args:
        plan: class with one field per table: pydantic models, or dataclasses, with a default for every key
            and a Google docstring that describes each.
    """
    return tuple(
        setting
        for table, info in plan.model_fields.items()
        for setting in _settings(table, cast(type, info.annotation))
    )


def _settings(table: str, kind: type) -> Iterator[Setting]:
    hints, described, default = get_type_hints(kind), _descriptions(kind), kind()
    for name, value in dict(default if isinstance(default, BaseModel) else vars(default)).items():
        # An optional value is a union with None.
        hint = next(
            (each for each in get_args(hints[name]) if NoneType in get_args(hints[name])), hints[name]
        )
        options = get_args(hint) if get_origin(hint) is Literal else ()
        own = str if options else get_origin(hint) or hint
        yield Setting(name, table, own, options, value, described.get(name, ""))


def _descriptions(kind: type) -> dict[str, str]:
    """The entries below ``Args:`` in the docstring of a class."""
    entries = _ENTRY.findall(cleandoc(kind.__doc__ or "").partition("Args:\n")[2])
    return {name: _QUOTED.sub(r"\1", " ".join(text.split())) for name, text in entries}


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
    """Refuse unknown tables and keys; the error names the nearest, and the table that a key belongs to.

    Args:
        tables: as they were read.
        known: the keys of each table.

    Raises:
        ConfigError: for an unknown table or key, or a value in the place of a table.
    """
    homes = {key: name for name, keys in known.items() for key in keys}
    for name, table in tables.items():
        if name not in known:
            hint = f"; {name!r} is a key of [{homes[name]}]" if name in homes else ""
            raise ConfigError(unknown("table", name, known) + hint)
        if not isinstance(table, dict):
            raise ConfigError(
                f"{name} must be a table: write [{name}] above its keys {', '.join(known[name])}"
            )
        for key in table:
            if key not in known[name]:
                hint = f"; {key!r} is a key of [{homes[key]}]" if key in homes else ""
                raise ConfigError(unknown(f"key of [{name}]", key, known[name]) + hint)


def validated(plan: type[Plan], tables: Mapping[str, Any]) -> Plan:
    """The plan that tables describe.

    Raises:
        ConfigError: for values that are not allowed; each is named with its table and key.
    """
    try:
        return plan.model_validate(tables)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_message, error.errors()))) from error


def _message(error: Any) -> str:
    table, *rest = error["loc"] or ("plan",)
    place = " ".join([f"[{table}]", *map(str, rest)])
    raised = error.get("ctx", {}).get("error")
    if isinstance(raised, ConfigError):  # of a constraint, which names the key
        return f"[{table}] {raised}"
    given = "" if error["type"] == "value_error" else f"; got {error['input']!r}"
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{given}"
