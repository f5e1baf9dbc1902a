"""Reading sentence-transformers models from folders and hubs, with the sizes they declare."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from nestling.errors import DataError, require, unknown

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BUNDLED = ("wordllama", "minilm")


def read_model(name: str, device: str | None = None) -> tuple[SentenceTransformer, tuple[int, ...] | None]:
    """A model by folder or hub name, without custom code, and the sizes its ``config.json`` declares.

    Raises:
        DataError: if there is no such model, or it cannot be read.
    """
    require("sentence_transformers", "text")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import load_file_path

    try:
        with quiet_unless_terminal():
            model = SentenceTransformer(name, device=device, trust_remote_code=False)
        path = load_file_path(name, "config.json")
        config = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{unknown('text model', name, BUNDLED)}, a folder, or a model on the Hugging Face hub ({reason})"
        ) from error
    return model, declared_dims(config, model.get_embedding_dimension())


def declared_dims(config: Any, full: int | None) -> tuple[int, ...] | None:
    """The sizes a model's config declares, increasing, up to and with ``full``; None if it declares none.

    Args:
        config: what stands in ``config.json`` as a mapping, a transformers config, or None.
        full: the width of the model.

    Raises:
        DataError: if what it declares are no sizes.
    """
    name = "matryoshka_dimensions"
    declared = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
    if not declared:
        return None
    if not isinstance(declared, list) or not all(type(dim) is int and dim > 0 for dim in declared):
        raise DataError(f"the model's config declares {name} {declared!r}; a list of whole numbers is needed")
    full = max(declared) if full is None else full
    return tuple(sorted({dim for dim in declared if dim < full} | {full}))


@contextmanager
def quiet_unless_terminal() -> Iterator[None]:
    """Without the progress bars of transformers where nobody looks on."""
    from transformers.utils import logging

    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]
