"""Versions of the schemas of saved text, and models that refuse unknown fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from nestling.errors import ArtifactError


class SavedFields(BaseModel):
    """Fields as they are saved: unknown ones are refused, and they do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_schema(raw: Any, key: str, latest: int, made: str) -> None:
    """Refuse what a newer nestling wrote.

    Args:
        raw: JSON as it was read; what else is wrong with it is found when its fields are checked.
        key: under which it has the version of its schema.
        latest: version that this nestling knows.
        made: subject and verb of the error: ``"curve.json was written"``.

    Raises:
        ArtifactError: for a later version.
    """
    version = raw.get(key) if isinstance(raw, dict) else None
    if isinstance(version, int) and version > latest:
        raise ArtifactError(
            f"{made} with schema {version}, and this nestling reads up to {latest}; "
            "update it with: pip install -U nestling"
        )
