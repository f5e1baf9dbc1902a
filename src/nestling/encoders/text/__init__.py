"""Text encoders: sentence-transformers models cut in dims and layers, and static vectors without torch."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.encoders.text.encoder import TextEncoder as TextEncoder
    from nestling.encoders.text.late_interaction import TokenEncoder as TokenEncoder
    from nestling.encoders.text.serving_compatibility import served_by as served_by

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "TextEncoder": "encoder",
        "TokenEncoder": "late_interaction",
        "served_by": "serving_compatibility",
    },
)
