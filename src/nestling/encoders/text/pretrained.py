"""Reading sentence-transformers models from folders and hubs, with the sizes they declare."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from nestling.encoders.config_sizes import declared_dims
from nestling.encoders.text.depth import shallower
from nestling.encoders.text.names import no_model
from nestling.errors import DataError, require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_LAYER = re.compile(r"(?:^|\.)(?:layers?|block)\.(\d+)\.")


def read_model(
    name: str, device: str | None = None, *, depth: int | None = None
) -> tuple[SentenceTransformer, tuple[int, ...] | None]:
    """A model by folder or hub name, without custom code, and the sizes its ``config.json`` declares.

    Args:
        name: of the folder or on the hub.
        device: as torch names it.
        depth: read the weights of this many layers only.

    Raises:
        DataError: if there is no such model, it cannot be read, or its files hold fewer layers than its
            config says (they would be made up at random).
        ConfigError: for a device that is not there.
    """
    require("sentence_transformers", "text")
    from nestling.nn.device import check_device

    check_device(device)
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import load_file_path

    try:
        _check_weights(name)
        shortened = None if depth is None else {"num_hidden_layers": depth}
        # Warnings about the missing layers are expected.
        with quiet_unless_terminal(), nullcontext() if depth is None else _errors_alone():
            model = SentenceTransformer(name, device=device, trust_remote_code=False, config_kwargs=shortened)
        path = load_file_path(name, "config.json")
        config = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise no_model(name, reason) from error
    dims = declared_dims(config, model.get_embedding_dimension())
    return (model if depth is None else shallower(model, depth)), dims


def _check_weights(name: str) -> None:
    """Compare the number of layers that the config says with those that the weights are of."""
    from sentence_transformers.util import load_file_path

    paths = [load_file_path(name, file) for file in ("config.json", "model.safetensors")]
    if None in paths:
        return
    config, weights = map(Path, map(str, paths))
    said = json.loads(config.read_text(encoding="utf-8"))
    depth = said.get("num_hidden_layers", said.get("n_layers"))
    with safe_open(weights, "numpy") as stored:
        numbers = [int(found[1]) for key in stored.keys() if (found := _LAYER.search(key))]  # noqa: SIM118
    if isinstance(depth, int) and numbers and max(numbers) + 1 < depth:
        raise DataError(
            f"the config of {name} says {depth} layers, but its weights are of {max(numbers) + 1}; the "
            "others would be made up at random. Save the model again, or correct its config"
        )


@contextmanager
def _errors_alone() -> Iterator[None]:
    """Without the warnings of transformers."""
    from transformers.utils.logging import get_verbosity, set_verbosity

    level = get_verbosity()
    set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        set_verbosity(level)


@contextmanager
def quiet_unless_terminal() -> Iterator[None]:
    """Hide the progress bars of transformers unless stderr is a terminal."""
    from transformers.utils import logging as of_transformers

    if sys.stderr.isatty() or not of_transformers.is_progress_bar_enabled():
        yield
        return
    of_transformers.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        of_transformers.enable_progress_bar()  # type: ignore[no-untyped-call]
