"""Models of transformers by name, checked without torch: a folder, or one on the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nestling.arguments.paths import home_path
from nestling.encoders.text.names import missing_on_the_hub
from nestling.errors import DataError, require, unknown

_CONFIG = "config.json"


def check_pretrained(name: str, what: str, bundled: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of a model in a folder; empty for one of the hub.

    Args:
        name: of the model.
        what: it is, in errors.
        bundled: names that need no folder.

    Raises:
        DataError: if there is no such model.
    """
    folder = home_path(name)
    if name in bundled:
        return {}
    if not folder.is_dir():
        reason = missing_on_the_hub(name)
        if reason is None:
            return {}
        raise DataError(
            f"{unknown(what, name, [*bundled, 'a folder of a model of transformers'])}, or a model on the "
            f"Hugging Face hub ({reason})"
        )
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} holds no {what} of transformers: its {_CONFIG} is missing or damaged ({error})"
        ) from error
    return dict(config)


def lasting_name(name: str) -> str:
    """``name`` as it can be opened from any folder."""
    return str(home_path(name).resolve()) if home_path(name).is_dir() else name


def open_pretrained(kind: str, name: str, what: str) -> Any:
    """A model in float32 and in evaluation mode, or its tokenizer or processor.

    Args:
        kind: the class of transformers, such as ``"AutoModelForCausalLM"``.
        name: of the model.
        what: it is, in errors.

    Raises:
        DataError: if there is none of this name, or its files are damaged.
    """
    check_pretrained(name, what)
    transformers = require("transformers", "lora")
    from nestling.encoders.text.pretrained import quiet_unless_terminal

    is_model = kind.startswith("AutoModel")
    try:
        with quiet_unless_terminal():
            made = getattr(transformers, kind).from_pretrained(
                str(home_path(name)), **({"dtype": "float32"} if is_model else {})
            )
    except (OSError, ValueError, KeyError) as error:  # what transformers raises for files that are missing
        raise DataError(f"{name} cannot be opened as a {what} ({kind}): {error}") from error
    return made.eval() if is_model else made
