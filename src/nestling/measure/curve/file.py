"""Curves saved as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nestling.arguments.paths import home_path
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.gain import Gain
from nestling.granularity import Granularity
from nestling.measure.curve.choice import Row
from nestling.storage.artifact import malformed
from nestling.storage.schema import SavedFields, check_schema

if TYPE_CHECKING:
    from nestling.measure.curve.curve import Curve

SCHEMA_VERSION = 1

KIND = "curve"
_FIGURES = ("value", "low", "high", "kept", "kept_low", "kept_high")


def to_json(curve: Curve) -> str:
    """A curve as text."""
    record = {"schema_version": SCHEMA_VERSION, "kind": KIND, **_record(curve)}
    return json.dumps(record, indent=1, allow_nan=False, default=dict)


def load(path: str | Path, build: type[Curve]) -> Curve:
    """Read a curve.

    Args:
        path: of the file.
        build: makes a curve of what was read.

    Raises:
        ArtifactError: for a file that is missing, torn, no curve, or of a newer schema.
    """
    path = home_path(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as a curve: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise ArtifactError(f"{path} holds no curve; give a file that Curve.save wrote")
    check_schema(raw, "schema_version", SCHEMA_VERSION, f"{path} was written")
    try:
        return _FileRecord.model_validate(raw).curve(build)
    except ValidationError as error:
        raise malformed(path, error) from error
    except (DataError, ConfigError, ValueError) as error:
        raise ArtifactError(f"{path} is malformed: {error}") from error


def _record(curve: Curve) -> dict[str, Any]:
    rest = {field.name: getattr(curve, field.name) for field in fields(curve)}
    rest["truncation"] = None if curve.truncation is None else _record(curve.truncation)
    rest["gains"] = [_figures(gain) for gain in curve.gains]
    return {
        **{name: value for name, value in rest.items() if name != "rows"},
        "rows": [*map(_figures, curve.rows)],
    }


def _figures(row: Row | Gain) -> dict[str, Any]:
    return {field.name: _plain(getattr(row, field.name)) for field in fields(row)}


def _plain(value: object) -> object:
    """``value`` as JSON has it: granularities as text, and nothing for NaN, which JSON does not know."""
    if isinstance(value, Granularity):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


class _ValueRecord(SavedFields):
    """A figure of a granularity with its interval, as stored in a file."""

    granularity: str
    metric: str
    value: float | None
    low: float | None
    high: float | None

    def read(self) -> dict[str, Any]:
        """Its attributes, in which what JSON cannot hold is NaN again."""
        saved = self.model_dump()
        unknown = {name: math.nan for name in _FIGURES if name in saved and saved[name] is None}
        return saved | unknown | {"granularity": Granularity.parse(self.granularity)}


class _RowRecord(_ValueRecord):
    """A row as stored in a file."""

    kept: float | None
    kept_low: float | None
    kept_high: float | None
    vector_bytes: int
    flops: float | None
    latency_ms: float | None
    model_bytes: int | None = None
    seed: int


class _CurveRecord(SavedFields):
    """A curve as stored in a file; older files lack the attributes that have defaults."""

    name: str
    task: str
    examples: int
    confidence: float
    resamples: int
    versions: dict[str, str]
    machine: str
    date: str
    data: str = ""
    truncation: _CurveRecord | None = None
    gains: tuple[_ValueRecord, ...] = ()
    note: str = ""
    runs: int = 1
    source: str = ""
    rule: str = ""
    rows: list[_RowRecord]

    def curve(self, build: type[Curve]) -> Curve:
        """The curve that was saved."""
        rest = self.model_dump(exclude={"schema_version", "kind", "rows", "gains", "truncation"})
        return build(
            rows=tuple(Row(**record.read()) for record in self.rows),
            gains=tuple(Gain(**record.read()) for record in self.gains),
            truncation=None if self.truncation is None else self.truncation.curve(build),
            **rest,
        )


class _FileRecord(_CurveRecord):
    """A curve and the marker of the file format."""

    schema_version: int
    kind: str
