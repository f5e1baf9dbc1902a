"""Opening a text encoder by name, with torch only where the model needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nestling._exports import old_names
from nestling.cut import CutRule
from nestling.encoders.text.names import check_model, needs_no_torch
from nestling.encoders.text.static.encoder import StaticEncoder
from nestling.granularity import AnyNesting

if TYPE_CHECKING:
    from nestling.encoders.text.encoder import TextEncoder


def open_encoder(
    name: str | Path, nesting: AnyNesting | None = None, rule: CutRule | None = None
) -> TextEncoder | StaticEncoder:
    """A text encoder for use: of static vectors by numpy, of any other model by torch.

    To train one, or to choose its device, pooling or length, open a :class:`~.text.TextEncoder`.

    Args:
        name: ``"wordllama"``, ``"minilm"``, a folder, or the name of a model on the Hugging Face hub.
        nesting: other sizes than the model's own.
        rule: another rule around the cut than the model's own.

    Raises:
        DataError: if there is no such model, or it cannot be read.
        ArtifactError: if a folder saved by nestling is torn or altered.
        MissingExtraError: if the packages that the model needs are not installed.
    """
    encoder = _open(name, nesting, rule)
    encoder.rule = encoder.rule.named(str(name))  # a folder may have moved since its code was made
    return encoder


def _open(name: str | Path, nesting: AnyNesting | None, rule: CutRule | None) -> TextEncoder | StaticEncoder:
    if needs_no_torch(name):
        return StaticEncoder.open(name, nesting, rule)
    check_model(name)
    from nestling.encoders.text.encoder import TextEncoder  # torch

    return TextEncoder.open(name, nesting, rule)


__getattr__ = old_names(
    __name__,
    {"BUNDLED": "nestling.encoders.text.names.BUNDLED", "no_model": "nestling.encoders.text.names.no_model"},
)
