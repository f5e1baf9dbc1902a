"""Text: training by plans, resumable encoding, and collections: an encoder and an index, searched by text."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.text.retrieval import PairRows as PairRows
    from nestling.domains.text.retrieval import TextStudy as TextStudy
    from nestling.domains.text.retrieval import read_data as read_data
    from nestling.domains.text.training import train as train

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "PairRows": "retrieval",
        "TextStudy": "retrieval",
        "read_data": "retrieval",
        "train": "training",
    },
)
