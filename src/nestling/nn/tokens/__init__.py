"""Fewer tokens for a picture, a clip, an utterance or a text: pooling, resampling, projectors."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.nn.tokens.budget_pool import BudgetPool as BudgetPool
    from nestling.nn.tokens.compressor import Compressor as Compressor
    from nestling.nn.tokens.connector import Connector as Connector
    from nestling.nn.tokens.grid_pool import GridPool as GridPool
    from nestling.nn.tokens.projectors import Projector as Projector
    from nestling.nn.tokens.projectors import ScaleProjectors as ScaleProjectors
    from nestling.nn.tokens.resampler.mqt_weights import from_mqt_state_dict as from_mqt_state_dict
    from nestling.nn.tokens.resampler.query_resampler import QueryResampler as QueryResampler
    from nestling.nn.tokens.resampler.static_resampler import StaticResampler as StaticResampler
    from nestling.nn.tokens.sequence_pool import SequencePool as SequencePool
    from nestling.nn.tokens.tiled_views import TiledViews as TiledViews
    from nestling.nn.tokens.tokens import Tokens as Tokens

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "BudgetPool": "budget_pool",
        "Compressor": "compressor",
        "Connector": "connector",
        "GridPool": "grid_pool",
        "Projector": "projectors",
        "QueryResampler": "resampler.query_resampler",
        "ScaleProjectors": "projectors",
        "SequencePool": "sequence_pool",
        "StaticResampler": "resampler.static_resampler",
        "TiledViews": "tiled_views",
        "Tokens": "tokens",
        "from_mqt_state_dict": "resampler.mqt_weights",
    },
)
