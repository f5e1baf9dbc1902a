"""Plans: prefix and code of each stage of an index, cost of a query, measurements."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.plan.plan import Plan as Plan
    from nestling.search.plan.plan import PlanCost as PlanCost
    from nestling.search.plan.point import Point as Point

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Plan": "plan",
        "PlanCost": "plan",
        "Point": "point",
    },
)
