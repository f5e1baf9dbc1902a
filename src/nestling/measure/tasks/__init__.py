"""Evaluation tasks (retrieval, similarity, classification, clustering, fidelity) and their metrics."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.measure.tasks.answers import ExactMatch as ExactMatch
    from nestling.measure.tasks.answers import MultipleChoice as MultipleChoice
    from nestling.measure.tasks.qrels import Judgements as Judgements
    from nestling.measure.tasks.qrels import Qrels as Qrels
    from nestling.measure.tasks.tasks import STS as STS
    from nestling.measure.tasks.tasks import Clustering as Clustering
    from nestling.measure.tasks.tasks import ComparesWithFull as ComparesWithFull
    from nestling.measure.tasks.tasks import HeadClassification as HeadClassification
    from nestling.measure.tasks.tasks import LinearProbe as LinearProbe
    from nestling.measure.tasks.tasks import NearestClassMean as NearestClassMean
    from nestling.measure.tasks.tasks import NeighbourClassification as NeighbourClassification
    from nestling.measure.tasks.tasks import Retrieval as Retrieval
    from nestling.measure.tasks.tasks import Robustness as Robustness
    from nestling.measure.tasks.tasks import Task as Task
    from nestling.measure.tasks.tasks import check_is_task as check_is_task
    from nestling.measure.tasks.tasks import is_relative as is_relative
    from nestling.measure.tasks.tasks import with_full as with_full

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Clustering": "tasks",
        "ComparesWithFull": "tasks",
        "ExactMatch": "answers",
        "HeadClassification": "tasks",
        "Judgements": "qrels",
        "LinearProbe": "tasks",
        "MultipleChoice": "answers",
        "NearestClassMean": "tasks",
        "NeighbourClassification": "tasks",
        "Qrels": "qrels",
        "Retrieval": "tasks",
        "Robustness": "tasks",
        "STS": "tasks",
        "Task": "tasks",
        "check_is_task": "tasks",
        "is_relative": "tasks",
        "with_full": "tasks",
    },
    renamed={"check_task": "check_is_task"},
)
