"""The encoder that a text encoder was trained from, to compare it with plain truncation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from nestling.elastic import Elastic, Origin
from nestling.encoders.text.names import check_model
from nestling.errors import NestlingError
from nestling.granularity import Nesting

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
        modules: in place of it, the number of modules of the model that are the encoder under a map.
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


def origin_of(
    encoder: TextEncoder | StaticEncoder, open_named: Callable[[str, Nesting | None], Elastic]
) -> Origin:
    """The encoder under a map, the encoder before training, or a note why there is none.

    Args:
        encoder: the one that was trained.
        open_named: opens the encoder before training by its name, with a nesting or its own.
    """
    known = encoder.trained_from
    if known.modules:
        return encoder.under_map(known.modules)
    if not known.encoder:
        return Origin(note=_STOCK if encoder.nesting_is_assumed else _UNKNOWN)
    layered = encoder.nesting if encoder.nesting.axes != ("dim",) else None
    try:
        check_model(known.encoder)
        return Origin(open_named(known.encoder, layered))
    except NestlingError:
        return Origin(note=_GONE.format(repr(known.encoder)))
