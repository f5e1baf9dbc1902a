"""Pictures and text: LLaVA-like models with as many tokens a picture as wanted, and what a picture needs."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.vision_language.answerer import Answerer as Answerer
    from nestling.domains.vision_language.llava import NestedLlava as NestedLlava
    from nestling.domains.vision_language.llava import answers_only as answers_only
    from nestling.domains.vision_language.llava import nest_llava as nest_llava
    from nestling.domains.vision_language.sweep import sweep_answers as sweep_answers

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Answerer": "answerer",
        "NestedLlava": "llava",
        "answers_only": "llava",
        "nest_llava": "llava",
        "sweep_answers": "sweep",
    },
)
