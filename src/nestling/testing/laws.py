"""``LawError``, which every suite raises, and the comparison of global random states."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

Example = TypeVar("Example")


class LawError(AssertionError):
    """A law is broken; the message starts with the name of the law and says where it broke."""


def as_laws(*checks: Callable[[Example], None]) -> tuple[Callable[[Example], None], ...]:
    """Checks as laws: whatever error the thing under test raises becomes a :class:`LawError`."""
    return tuple(map(_as_law, checks))


def _as_law(check: Callable[[Example], None]) -> Callable[[Example], None]:
    name = check.__name__.replace("_", " ")

    @wraps(check)
    def law(example: Example) -> None:
        try:
            check(example)
        except LawError:
            raise
        except Exception as error:
            raise LawError(f"{name}: {type(error).__name__} is raised: {error}") from error

    return law


def random_state() -> tuple[Any, ...]:
    """The global random state of Python, numpy and (where it is loaded) torch, to compare."""
    torch = sys.modules.get("torch")
    legacy: Any = np.random.get_state()  # noqa: NPY002 - the global state is what must not change
    return (
        random.getstate(),
        legacy[1].tobytes(),
        legacy[2:],
        None if torch is None else torch.get_rng_state().numpy().tobytes(),
    )


def check_refused(
    case: str, action: Callable[[], Any], kind: type[Exception], advice: str, *, is_one: bool = False
) -> None:
    """Hold an action to an error of one kind.

    Args:
        case: the input, as the message begins.
        action: call that must fail.
        kind: of error.
        advice: remedy, the end of the message.
        is_one: whether ``case`` is in the singular.

    Raises:
        LawError: if it raises another kind of error, or none.
    """
    raised, were = ("raises", "is") if is_one else ("raise", "are")
    try:
        action()
    except kind:
        return
    except Exception as error:
        raise LawError(f"{case} {raised} {type(error).__name__} ({error}); {advice}") from error
    raise LawError(f"{case} {were} accepted; {advice}")
