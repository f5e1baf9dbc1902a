"""The immutable part of an index: the stages of a plan, built over a fixed set of rows and searched."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.search.engine.engine import Engine as Engine
    from nestling.search.engine.engine import build as build

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Engine": "engine",
        "build": "engine",
    },
    renamed={"Scanner": "nestling.search.stages.building.Scanner"},
)
