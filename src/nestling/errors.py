"""One tree of errors: each says what is wrong, what was given, what is allowed and what to do."""

from __future__ import annotations

import difflib
import errno
import importlib
import signal
from collections.abc import Iterable, Sequence
from types import ModuleType


class NestlingError(Exception):
    """Base of every error that nestling raises on purpose.

    ``exit_code`` is what the command line returns for it: 1 for a request that cannot be met,
    3 for data that cannot be used (2 is kept for wrong command-line usage).
    """

    exit_code = 1


class GranularityError(NestlingError, ValueError):
    """A granularity or a nesting is malformed, or an ``at=`` lies outside the nesting."""


class ConfigError(NestlingError, ValueError):
    """An argument, a flag or a key of a plan has a value that is not allowed."""


class DataError(NestlingError, ValueError):
    """The data given cannot be used: wrong shape or type, NaN, empty, unreadable."""

    exit_code = 3


class ArtifactError(DataError):
    """A saved folder is missing, torn, altered, of another kind or of a newer schema."""


class StorageError(NestlingError, OSError):
    """Writing failed (disk full, no permission); nothing half-written remains."""


class StoreError(NestlingError, RuntimeError):
    """A database cannot be reached, or refused what was asked of it."""


class StoreBusyError(StoreError):
    """A database did not answer in time or lost the connection; trying again may help."""


class NonFiniteError(NestlingError, FloatingPointError):
    """A loss or a gradient became NaN or infinite while training; the weights were not changed by it."""


class WorkerError(NestlingError, RuntimeError):
    """A process that works for this one could not start, or ended before its work was done."""


class MissingExtraError(NestlingError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""


class UntrainedGranularityWarning(UserWarning):
    """A size is used that the model was not trained for; quality lies between its neighbours."""


class CalibrationWarning(UserWarning):
    """A code is calibrated on too few vectors."""


class PrecisionWarning(UserWarning):
    """Numbers are so small that half precision keeps few of their digits, or none."""


class NoGainWarning(UserWarning):
    """A map was fitted, and plain truncation of the vectors does as well at some sizes."""


class ServingWarning(UserWarning):
    """An inference server would give other vectors than a saved text encoder does, without an error."""


class EvaluationWarning(UserWarning):
    """A measurement looks better or worse than use will be, by the data or by their split."""


class UndefinedSimilarityWarning(UserWarning):
    """A similarity is undefined and given as NaN, such as a correlation with entries that are all equal."""


def unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """Text for an unknown name: what was given, the nearest allowed names, then all of them.

    >>> unknown("axis", "dims", ["dim", "layer"])
    "unknown axis 'dims'; did you mean 'dim'? Allowed: dim, layer"
    >>> unknown("key", "learning_rate", ["layer", "lr"])
    "unknown key 'learning_rate'; did you mean 'lr'? Allowed: layer, lr"
    """
    names = [str(option) for option in allowed]
    hint = meant(name, names)
    return f"unknown {what} {str(name)!r}{'; ' + hint if hint else '.'} Allowed: {', '.join(names)}"


def meant(name: object, allowed: Iterable[str]) -> str:
    """A question for the allowed names nearest to one that is unknown; "" where none is near.

    >>> meant("prise", ["price", "brand"])
    "did you mean 'price'?"
    >>> meant("BRAND", ["price", "brand"])
    "did you mean 'brand'?"
    """
    names = [*allowed]
    close = [option for option in names if _is_short_for(option, str(name))]
    close = close or difflib.get_close_matches(str(name), names, n=2, cutoff=0.5)
    folded = {str(option).casefold(): option for option in names}
    exact = folded.get(str(name).casefold())
    close = [exact] if exact is not None else close
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def named(noun: str, names: Sequence[str], count: int, then: str = "", most: int = 5) -> str:
    """Names of items in a message: one alone, or how many they are and the first of them.

    Args:
        noun: name of the items, in the singular.
        names: of all, or of the first.
        count: number of items.
        then: words that follow, up to a verb in the plural, which agrees with their number.
        most: largest number of names shown.

    >>> named("id", ["7"], 1, "are"), named("row", ["3", "9", "11"], 3, "of the vectors hold", most=2)
    ('id 7 is', '3 rows (3, 9, ...) of the vectors hold')
    """
    if count == 1:
        *rest, verb = then.split(" ")
        return " ".join([noun, *names, *rest, _SINGULAR.get(verb, f"{verb}s") if verb else ""]).strip()
    shown = ", ".join(names[:most]) + ", ..." * (count > most)
    return f"{count} {noun}s ({shown}) {then}".strip()


_SINGULAR = {"are": "is", "have": "has", "do": "does"}


def _is_short_for(one: str, other: str) -> bool:
    """Whether one of two names is the first letters of the words of the other."""
    return any(
        "_" in long and short == "".join(word[:1] for word in long.split("_"))
        for short, long in ((one, other), (other, one))
    )


def require(module: str, extra: str) -> ModuleType:
    """Import an optional ``module`` or say which extra of nestling brings it.

    Raises:
        MissingExtraError: if the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise missing(error.name, extra) from error


def missing(packages: str | Sequence[str], extra: str) -> MissingExtraError:
    """The error for packages that are not installed, and that extras of nestling bring."""
    names = [packages] if isinstance(packages, str) else list(packages)
    several = len(names) > 1
    return MissingExtraError(
        f"this needs the package{'s' * several} {', '.join(map(repr, names))}, which "
        f"{'are' if several else 'is'} not installed. "
        f'Install {"them" if several else "it"} with: pip install "nestling[{extra}]"'
    )


def reason_of(error: OSError) -> str:
    """Reason that writing failed, in words."""
    if error.errno == errno.ENOSPC:
        return "the disk is full; free some space and try again"
    return error.strerror or str(error)


def ending_of(code: int) -> str:
    """The end of a process in words, by its exit code.

    >>> ending_of(1), ending_of(-9)
    ('ended with exit code 1', 'was ended by SIGKILL')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
