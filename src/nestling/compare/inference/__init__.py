"""Inference on RDMs: model evaluation, noise ceilings, bootstrap, permutation tests, identification."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.compare.inference.evaluation import evaluate as evaluate
    from nestling.compare.inference.identification import identify as identify

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "evaluate": "evaluation",
        "identify": "identification",
    },
)
