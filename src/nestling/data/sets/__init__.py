"""Public data sets: a catalogue with checksums, downloading, one reader each; docstrings as the default."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.data.sets.sts import read_scored_pairs as read_scored_pairs

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "read_scored_pairs": "sts",
    },
)
