"""Constraints on arguments as data: ranges of numbers and sets of names, and the one validator for them.

A constraint is declared once, beside the function or the dataclass that it belongs to. The same value makes
the error, validates a field of a plan, and gives the command line and the tests the allowed values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

import numpy as np

from nestling.arguments.formatting import shown
from nestling.errors import ConfigError, meant

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

_Value = TypeVar("_Value")
_Checked = TypeVar("_Checked", bound=Callable[..., Any])


class Constraint(Protocol):
    """The values that an argument may have."""

    @property
    def optional(self) -> bool:
        """Whether None is allowed too."""
        ...

    @property
    def wanted(self) -> str:
        """The allowed values in words, as they follow "must be"."""
        ...

    def admits(self, value: Any) -> bool:
        """Whether a value other than None is allowed."""
        ...

    def advice(self, value: Any) -> str:
        """Advice about a value that is not allowed; "" if ``wanted`` says all."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Constraint:
    """The parts that all constraints share: ``| None``, and validation by pydantic in ``Annotated[...]``."""

    optional: bool = False

    def __or__(self, other: None) -> Self:
        return replace(self, optional=True)

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        from pydantic_core import core_schema  # slow to import, and only plans need it

        def validate(value: Any, info: core_schema.ValidationInfo) -> Any:
            return check(info.field_name or "value", value, cast(Constraint, self))

        return core_schema.with_info_before_validator_function(validate, handler(source))


@dataclass(frozen=True)
class Whole(_Constraint):
    """Whole numbers from ``least`` to ``most``; numpy's integers are welcome, floats and bools are not.

    >>> check("k", 0, Whole(1))
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: k=0 must be a whole number of at least 1
    """

    least: int = 1
    most: int | None = None
    hint: str = ""

    @property
    def wanted(self) -> str:
        """The allowed values in words."""
        return f"a whole number {_range(self.least, self.most)}"

    def admits(self, value: Any) -> bool:
        """Whether a value is allowed."""
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            return False
        return bool(value >= self.least and (self.most is None or value <= self.most))

    def advice(self, value: Any) -> str:
        """The hint of the declaration."""
        return self.hint


@dataclass(frozen=True)
class Real(_Constraint):
    """Numbers within bounds, ``above`` and ``below`` excluding theirs; never NaN, text or bools.

    >>> check("temperature", -1.0, Real(above=0, hint="0.05 is usual"))
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: temperature=-1.0 must be a finite number above 0; 0.05 is usual
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    finite: bool = True
    hint: str = ""

    @property
    def wanted(self) -> str:
        """The allowed values in words."""
        bounded = self.most is not None or self.below is not None
        finite = "finite " if self.finite and not bounded else ""
        return f"a {finite}number {_range(self.least, self.most, self.above, self.below)}".strip()

    def admits(self, value: Any) -> bool:
        """Whether a value is allowed."""
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            return False
        return bool(
            not math.isnan(value)
            and not (self.finite and math.isinf(value))
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def advice(self, value: Any) -> str:
        """The hint of the declaration."""
        return self.hint


@dataclass(frozen=True)
class OneOf(_Constraint):
    """Names, such as those of a ``Literal``: ``OneOf(get_args(Metric))``.

    >>> check("metric", "cosin", OneOf(("cosine", "dot")))
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: metric='cosin' must be one of cosine, dot; did you mean 'cosine'?
    """

    options: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """The allowed values in words."""
        return f"one of {', '.join(self.options)}"

    def admits(self, value: Any) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, str) and value in self.options

    def advice(self, value: Any) -> str:
        """The nearest options, if any is near."""
        return meant(value, self.options)


@dataclass(frozen=True)
class Flag(_Constraint):
    """``True`` or ``False``; no other value that counts as one of them.

    >>> check("both_sides", "no", Flag())
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: both_sides='no' must be True or False
    """

    @property
    def wanted(self) -> str:
        """The allowed values in words."""
        return "True or False"

    def admits(self, value: Any) -> bool:
        """Whether a value is allowed."""
        return isinstance(value, bool | np.bool_)

    def advice(self, value: Any) -> str:
        """Nothing more can be said."""
        return ""


def check(name: str, value: _Value, constraint: Constraint) -> _Value:
    """``value`` if the constraint allows it; a number of numpy becomes one of Python.

    Raises:
        ConfigError: for any other value, which names the argument, the value and what is allowed.
    """
    if value is None and constraint.optional:
        return value
    if not constraint.admits(value):
        parts = [f"{name}={shown(value)} must be {constraint.wanted}", constraint.advice(value)]
        raise ConfigError("; ".join(filter(None, parts)))
    return cast(_Value, value.item()) if isinstance(value, np.generic) else value


def checked(**constraints: Constraint) -> Callable[[_Checked], _Checked]:
    """Declare constraints on the arguments of a function, or on the fields of a dataclass, and check them.

    Goes above a function, or between ``@dataclass`` and the class. Arguments are checked at every call,
    before the function runs; fields when an instance is made, before ``__post_init__``.

    >>> @checked(k=Whole(1))
    ... def nearest(k: int) -> int:
    ...     return k
    >>> nearest(k=2.5)
    Traceback (most recent call last):
        ...
    nestling.errors.ConfigError: k=2.5 must be a whole number of at least 1
    >>> constraints_of(nearest)["k"].wanted
    'a whole number of at least 1'
    """

    def declare(target: _Checked) -> _Checked:
        if not isinstance(target, type):
            return cast(_Checked, _checks_arguments(target, constraints))
        _check_fields(target, constraints)
        return target

    return declare


def constraints_of(target: Any) -> Mapping[str, Constraint]:
    """The declared constraints of a function, or of a class with those of the classes that it extends."""
    if not isinstance(target, type):
        return dict(getattr(target, _DECLARED, {}))
    found: dict[str, Constraint] = {}
    for each in reversed(target.__mro__):
        found |= vars(each).get(_DECLARED, {}) | getattr(vars(each).get("__init__"), _DECLARED, {})
    return found


_DECLARED = "__constraints__"


def _checks_arguments(function: Callable[..., Any], constraints: Mapping[str, Constraint]) -> Any:
    parameters = signature(function).parameters
    _check_names(function, constraints, parameters)
    positional = [each.name for each in parameters.values() if each.kind != Parameter.KEYWORD_ONLY]
    # A parameter that is never positional lies behind all arguments.
    places = {name: positional.index(name) if name in positional else math.inf for name in constraints}

    @wraps(function)
    def checking(*args: Any, **rest: Any) -> Any:
        given = list(args)
        for name, constraint in constraints.items():
            if name in rest:
                rest[name] = check(name, rest[name], constraint)
            elif (place := places[name]) < len(given):
                given[int(place)] = check(name, given[int(place)], constraint)
        return function(*given, **rest)

    setattr(checking, _DECLARED, constraints)
    return checking


def _check_fields(kind: type, constraints: Mapping[str, Constraint]) -> None:
    if "__dataclass_fields__" in vars(kind):
        raise TypeError(f"@checked goes below @dataclass, above the class {kind.__name__}")
    _check_names(kind, constraints, kind.__annotations__)
    after: Callable[[Any], None] | None = getattr(kind, "__post_init__", None)

    def post_init(self: Any) -> None:
        for name, constraint in constraints.items():
            given = getattr(self, name)
            value = check(name, given, constraint)
            if value is not given:
                object.__setattr__(self, name, value)  # the class may be frozen
        if after is not None:
            after(self)

    post_init.__name__ = "__post_init__"
    for name, value in (("__post_init__", post_init), (_DECLARED, constraints)):
        setattr(kind, name, value)


def _check_names(target: Any, constraints: Mapping[str, Constraint], known: Mapping[str, Any]) -> None:
    missing = [name for name in constraints if name not in known]
    if missing:
        raise TypeError(f"{target.__qualname__} has no {', '.join(missing)} to constrain")


def _range(
    least: float | None, most: float | None, above: float | None = None, below: float | None = None
) -> str:
    """Bounds in words.

    >>> _range(1, None), _range(0, 1), _range(None, 1, above=0), _range(0, None, below=1)
    ('of at least 1', 'from 0 to 1', 'above 0 and at most 1', 'of at least 0 and below 1')
    """
    if least is not None and most is not None:
        return f"from {least:g} to {most:g}" if isinstance(most, float) else f"from {least} to {most}"
    words = {"of at least": least, "above": above, "at most": most, "below": below}
    return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)
