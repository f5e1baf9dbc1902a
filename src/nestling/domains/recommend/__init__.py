"""Recommendation of the next item: the catalogue, a model of any width, full ranking, untrained baselines."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.recommend.baselines import NextCounts as NextCounts
    from nestling.domains.recommend.baselines import Popularity as Popularity
    from nestling.domains.recommend.baselines import TextAndCounts as TextAndCounts
    from nestling.domains.recommend.baselines import TextCosine as TextCosine
    from nestling.domains.recommend.baselines import untrained as untrained
    from nestling.domains.recommend.evaluation import Evaluation as Evaluation
    from nestling.domains.recommend.evaluation import evaluate as evaluate
    from nestling.domains.recommend.items import Items as Items
    from nestling.domains.recommend.next_item import NextItem as NextItem
    from nestling.domains.recommend.ranking import Ranks as Ranks
    from nestling.domains.recommend.ranking import rank_among_sampled as rank_among_sampled
    from nestling.domains.recommend.ranking import rank_next_items as rank_next_items
    from nestling.domains.recommend.recommendations import Recommendations as Recommendations
    from nestling.domains.recommend.states import UserStates as UserStates

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Evaluation": "evaluation",
        "Items": "items",
        "NextCounts": "baselines",
        "NextItem": "next_item",
        "Popularity": "baselines",
        "Ranks": "ranking",
        "Recommendations": "recommendations",
        "TextAndCounts": "baselines",
        "TextCosine": "baselines",
        "UserStates": "states",
        "evaluate": "evaluation",
        "rank_among_sampled": "ranking",
        "rank_next_items": "ranking",
        "untrained": "baselines",
    },
)
