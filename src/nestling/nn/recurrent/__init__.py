"""Mixers of sequences that are cut on ``width`` and updated event by event: LRU, GRU, mean, last item."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.nn.recurrent.block import SequenceBlock as SequenceBlock
    from nestling.nn.recurrent.block import SequenceStack as SequenceStack
    from nestling.nn.recurrent.gru import NestedGRU as NestedGRU
    from nestling.nn.recurrent.last_item import LastItem as LastItem
    from nestling.nn.recurrent.lru import NestedLRU as NestedLRU
    from nestling.nn.recurrent.mean import Mean as Mean
    from nestling.nn.recurrent.mixer import Mixer as Mixer
    from nestling.nn.recurrent.scan import linear_recurrence as linear_recurrence

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "LastItem": "last_item",
        "Mean": "mean",
        "Mixer": "mixer",
        "NestedGRU": "gru",
        "NestedLRU": "lru",
        "SequenceBlock": "block",
        "SequenceStack": "block",
        "linear_recurrence": "scan",
    },
)
