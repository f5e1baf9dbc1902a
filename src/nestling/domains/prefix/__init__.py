"""A language model that reads tokens of pictures, sound or video before its text, as many as wanted."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.prefix.batches import PrefixBatch as PrefixBatch
    from nestling.domains.prefix.features import Features as Features
    from nestling.domains.prefix.flops import prefill_flops as prefill_flops
    from nestling.domains.prefix.model import PrefixLM as PrefixLM

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Features": "features",
        "PrefixBatch": "batches",
        "PrefixLM": "model",
        "prefill_flops": "flops",
    },
)
