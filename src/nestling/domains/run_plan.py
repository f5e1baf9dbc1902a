"""Plans of training runs: TOML files, of which the key ``task`` names the field."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar, cast, get_args

from nestling.arguments.constraints import OneOf, Whole
from nestling.errors import ConfigError, unknown
from nestling.schedules import Every, RandomPrefix, RandomSome, Sandwich, Schedule
from nestling.storage.artifact import write_result
from nestling.toml_plan import PlanTable, check_names, read_tables, settings_of, validated

TASKS = {"text": "text", "vision-language": "vision_language", "speech": "speech"}
"""The room of each task."""
_DEFAULT = "text"
DrawName = Literal["every", "random_some", "sandwich", "random_prefix"]


class OutputPlan(PlanTable):
    """Folder of the results.

    Args:
        folder: the folder for the model, the resolved plan, the log and the checkpoints.
    """

    folder: str = "runs/train"


class SizesPlan(PlanTable):
    """The sizes that one step trains.

    Args:
        draw: ``every``, ``random_some``, ``sandwich`` or ``random_prefix``.
        draw_count: number of sizes that ``random_some`` and ``sandwich`` draw.
    """

    draw: Annotated[DrawName, OneOf(get_args(DrawName))] = "every"
    draw_count: Annotated[int, Whole(0)] = 2

    def schedule(self) -> Schedule:
        """The schedule that the plan names."""
        schedules: dict[str, Schedule] = {
            "every": Every(),
            "random_some": RandomSome(self.draw_count),
            "sandwich": Sandwich(self.draw_count),
            "random_prefix": RandomPrefix(),
        }
        return schedules[self.draw]


class RunPlan(PlanTable):
    """A plan of a training run. Its fields are tables, and each key is in one of them only."""

    TASK: ClassVar[str] = _DEFAULT

    @classmethod
    def keys(cls) -> dict[str, tuple[str, ...]]:
        """The keys of each table."""
        groups = groupby(settings_of(cls), lambda each: each.table)
        return {table: tuple(each.name for each in group) for table, group in groups}

    @classmethod
    def read(cls, path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a plan from a TOML file, and override some of its keys.

        Args:
            path: the file; None starts from the defaults.
            overrides: values by key, as from the command line; None leaves a key as it is.

        Raises:
            ConfigError: for a file that cannot be read, another task, an unknown table or key (the nearest is
                named), or a value that is not allowed.
        """
        tables = {} if path is None else read_tables(path)
        task = tables.pop("task", cls.TASK if path is None else _DEFAULT)
        if task != cls.TASK:
            raise ConfigError(f"the plan has the task {task!r}, and a plan of task {cls.TASK!r} is needed")
        known = cls.keys()
        check_names(tables, known)
        homes = {key: name for name, keys in known.items() for key in keys}
        for key, value in (overrides or {}).items():
            if value is None:
                continue
            if key not in homes:
                hint = "" if cls.TASK == _DEFAULT else f" of task {cls.TASK!r}"
                raise ConfigError(f"{unknown('setting', key, homes)}{hint}")
            tables.setdefault(homes[key], {})[key] = value
        for name, info in cls.model_fields.items():
            if is_dataclass(info.default):  # whose own defaults need not be those of the plan
                tables[name] = asdict(info.default) | tables.get(name, {})  # type: ignore[arg-type]
        return validated(cls, tables)

    def to_toml(self) -> str:
        """The plan as TOML, every setting written out; those that are None are left out."""
        tables = "\n".join(
            f"[{name}]\n{_to_lines(_as_dict(getattr(self, name)))}" for name in type(self).model_fields
        )
        return tables if self.TASK == _DEFAULT else f'task = "{self.TASK}"\n\n{tables}'

    def write(self, path: str | Path) -> None:
        """Write the plan with every setting as it was resolved.

        Raises:
            ArtifactError: if a file is there that nestling did not write.
            StorageError: if writing fails.
        """
        write_result(path, f"# nestling: every setting of a training run, as resolved\n{self.to_toml()}")


Plan = TypeVar("Plan", bound=RunPlan, contravariant=True)


class Training(Protocol[Plan]):
    """The module ``training`` of a field.

    Attributes:
        KIND: of the folder of a trained model.
        TrainPlan: the class of its plans.
    """

    KIND: str
    TrainPlan: type[RunPlan]

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan whose data, models or output folder cannot be used, before torch is imported."""
        ...

    def train(self, plan: Plan) -> Any:
        """The trained model, which has ``nesting`` and ``save``."""
        ...


def training_of(path: str | Path | None) -> Training[Any]:
    """The training of the field that a plan names; that of texts if it names none.

    Raises:
        ConfigError: for a file that cannot be read, or an unknown task.
    """
    task = _DEFAULT if path is None else read_tables(path).get("task", _DEFAULT)
    if task not in TASKS:
        raise ConfigError(f'{unknown("task", task, TASKS)}; write such as task = "speech" above all tables')
    return cast("Training[Any]", import_module(f"nestling.domains.{TASKS[task]}.training"))


def _as_dict(table: Any) -> dict[str, Any]:
    if isinstance(table, PlanTable):
        return dict(table)
    # TOML has no None, and leaving the key out would bring its default back: no limit is an infinite one.
    limits = {each.name for each in fields(table) if each.default is not None}
    return {
        key: math.inf if value is None and key in limits else value for key, value in asdict(table).items()
    }


def _to_lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_to_value(value)}\n" for key, value in table.items() if value is not None)


def _to_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_to_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's escapes are TOML's too, but TOML wants the delete character escaped as well.
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else repr(value)
    )
