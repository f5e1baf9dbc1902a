"""The network that reads a history: blocks around one of the mixers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.nn.recurrent import LastItem, Mean, Mixer, NestedGRU, NestedLRU, SequenceBlock, SequenceStack

MixerName = Literal["lru", "gru", "mean", "last_item"]


@checked(mixer=OneOf(get_args(MixerName)), blocks=Whole(1))
def sequence_network(
    sizes: Sequence[int], mixer: MixerName, blocks: int, dropout: float, r_min: float, r_max: float
) -> SequenceStack:
    """Blocks with mixers of one kind, so that kinds of mixers compete on equal terms.

    Args:
        sizes: widths, increasing.
        mixer: the kind.
        blocks: how many.
        dropout: of each block.
        r_min: of an LRU.
        r_max: of an LRU.
    """
    of: dict[str, Callable[[], Mixer]] = {
        "lru": lambda: NestedLRU(sizes, r_min, r_max),
        "gru": lambda: NestedGRU(sizes),
        "mean": lambda: Mean(sizes),
        "last_item": lambda: LastItem(sizes),
    }
    return SequenceStack([SequenceBlock(of[mixer](), dropout) for _ in range(blocks)])
