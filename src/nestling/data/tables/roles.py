"""Column roles as one text: ``query=title,document=body``."""

from __future__ import annotations

from collections.abc import Sequence

from nestling.errors import ConfigError, unknown

PAIR_ROLES = ("query", "document", "group")
SCORED_ROLES = ("first", "second", "score")
TEXT_ROLES = ("text",)
QUESTION_ROLES = ("image", "question", "answer", "choices")
TRANSCRIPT_ROLES = ("audio", "text")


def read_roles(text: str | None, roles: Sequence[str]) -> dict[str, str]:
    """The columns that a text names, by their part.

    Args:
        text: parts with their columns, commas between; None names none.
        roles: the parts that there are.

    Raises:
        ConfigError: for another form, or a part that there is not (the nearest are named).

    >>> read_roles("query=title,document=body", PAIR_ROLES)
    {'query': 'title', 'document': 'body'}
    """
    found: dict[str, str] = {}
    for each in (text or "").split(","):
        if not each.strip():
            continue
        role, sign, column = (part.strip() for part in each.partition("="))
        if not sign or not column:
            raise ConfigError(f"columns are named as in {_example(roles)}; got {each.strip()!r}")
        if role not in roles:
            raise ConfigError(f"{unknown('part of a table', role, roles)}; write as in {_example(roles)}")
        if role in found:
            raise ConfigError(f"columns name {role} twice: {found[role]!r} and {column!r}")
        found[role] = column
    return found


def _example(roles: Sequence[str]) -> str:
    return repr(",".join(f"{role}=COLUMN" for role in roles[:2]))
