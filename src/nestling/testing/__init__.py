"""Public conformance suites: your elastic model, loss, task, stage or store is done when its check passes."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.testing.elastic import ELASTIC_LAWS as ELASTIC_LAWS
    from nestling.testing.elastic import ElasticExample as ElasticExample
    from nestling.testing.elastic import check_elastic as check_elastic
    from nestling.testing.laws import LawError as LawError
    from nestling.testing.loss import LOSS_LAWS as LOSS_LAWS
    from nestling.testing.loss import LossExample as LossExample
    from nestling.testing.loss import check_loss as check_loss
    from nestling.testing.stage import STAGE_LAWS as STAGE_LAWS
    from nestling.testing.stage import StageExample as StageExample
    from nestling.testing.stage import check_stage as check_stage
    from nestling.testing.store import STORE_LAWS as STORE_LAWS
    from nestling.testing.store import check_store as check_store
    from nestling.testing.store_example import StoreExample as StoreExample
    from nestling.testing.task import TASK_LAWS as TASK_LAWS
    from nestling.testing.task import TaskExample as TaskExample
    from nestling.testing.task import check_task as check_task

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ELASTIC_LAWS": "elastic",
        "LOSS_LAWS": "loss",
        "STAGE_LAWS": "stage",
        "STORE_LAWS": "store",
        "TASK_LAWS": "task",
        "ElasticExample": "elastic",
        "LawError": "laws",
        "LossExample": "loss",
        "StageExample": "stage",
        "StoreExample": "store_example",
        "TaskExample": "task",
        "check_elastic": "elastic",
        "check_loss": "loss",
        "check_stage": "stage",
        "check_store": "store",
        "check_task": "task",
    },
)
