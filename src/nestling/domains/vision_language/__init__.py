"""Pictures and text: LLaVA-like models with as many tokens a picture as wanted, and what a picture needs."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.vision_language.llava import NestedLlava as NestedLlava
    from nestling.domains.vision_language.llava import nest_llava as nest_llava

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "NestedLlava": "llava",
        "nest_llava": "llava",
    },
)
