"""The encoder that a text encoder was trained from, to compare it with plain truncation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nestling.elastic import Origin
from nestling.errors import NestlingError

if TYPE_CHECKING:
    from nestling.encoders.text.encoder import TextEncoder
    from nestling.encoders.text.static.encoder import StaticEncoder

_STOCK = "The model declares no trained sizes, so this is plain truncation."
_UNKNOWN = "The model does not record what it was trained from, so there is no plain truncation to compare."
_GONE = "The model was trained from {}, which cannot be opened here; there is no plain truncation to compare."


@dataclass(frozen=True)
class TrainedFrom:
    """The training origin of a text encoder, as saved in its manifest.

    Args:
        encoder: the name or folder of the encoder whose weights were trained on.
        modules: in place of it, how many modules of the model are the encoder under a map.
    """

    encoder: str = ""
    modules: int = 0

    @classmethod
    def of(cls, settings: dict[str, Any]) -> TrainedFrom:
        """Read the settings of a manifest."""
        return cls(**settings.get("trained_from", {}))

    def to_settings(self) -> dict[str, Any]:
        """The entry in the settings of a manifest."""
        return {"trained_from": asdict(self)}


def origin_of(encoder: TextEncoder | StaticEncoder) -> Origin:
    """The encoder under a map, the encoder before training, or a note why there is none."""
    from nestling.encoders.text.opening import open_encoder  # a circle: it opens what imports this

    known = encoder.trained_from
    if known.modules:
        return encoder.under_map(known.modules)
    if not known.encoder:
        return Origin(note=_STOCK if encoder.nesting_is_assumed else _UNKNOWN)
    layered = encoder.nesting if encoder.nesting.axes != ("dim",) else None
    try:
        return Origin(open_encoder(known.encoder, layered))
    except NestlingError:
        return Origin(note=_GONE.format(repr(known.encoder)))
