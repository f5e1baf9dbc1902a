"""Recommendation of the next item: the catalogue, full ranking with its metrics, and untrained baselines."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.recommend.baselines import NextCounts as NextCounts
    from nestling.domains.recommend.baselines import Popularity as Popularity
    from nestling.domains.recommend.baselines import TextAndCounts as TextAndCounts
    from nestling.domains.recommend.baselines import TextCosine as TextCosine
    from nestling.domains.recommend.baselines import untrained as untrained
    from nestling.domains.recommend.items import Items as Items
    from nestling.domains.recommend.ranking import Ranks as Ranks
    from nestling.domains.recommend.ranking import rank_next_items as rank_next_items

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Items": "items",
        "NextCounts": "baselines",
        "Popularity": "baselines",
        "Ranks": "ranking",
        "TextAndCounts": "baselines",
        "TextCosine": "baselines",
        "rank_next_items": "ranking",
        "untrained": "baselines",
    },
)
