"""The command ``nestling``, with one verb for each task; results go to stdout, messages to stderr."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.cli.command import VERBS as VERBS
    from nestling.cli.command import app as app
    from nestling.cli.command import main as main

__getattr__, __dir__, __all__ = exports(__name__, {"VERBS": "command", "app": "command", "main": "command"})
