"""Constraints: their messages, and every declaration of the library asked for values outside of it."""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from dataclasses import dataclass, is_dataclass
from inspect import getdoc, getmembers, isclass, isfunction, signature
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

import nestling
from nestling.arguments.constraints import (
    Constraint,
    Flag,
    OneOf,
    Real,
    Whole,
    check,
    checked,
    constraints_of,
)
from nestling.errors import ConfigError
from nestling.toml_plan import validated

HOME = Path(nestling.__file__).parent


def outside(constraint: Constraint) -> list[Any]:
    """Values that a constraint forbids, derived from its declaration alone."""
    wrong: list[Any] = [] if constraint.optional else [None]
    if isinstance(constraint, Whole):
        wrong += [constraint.least - 1, constraint.least + 0.5, True, np.bool_(True), "3", math.nan]
        wrong += [] if constraint.most is None else [constraint.most + 1, np.int64(constraint.most + 1)]
    elif isinstance(constraint, Real):
        wrong += [math.nan, np.float32(math.nan), "0.9", True, [0.5]]
        wrong += [edge for edge in (constraint.above, constraint.below) if edge is not None]
        wrong += [] if constraint.least is None else [np.nextafter(constraint.least, -math.inf)]
        wrong += [] if constraint.most is None else [np.nextafter(constraint.most, math.inf)]
        wrong += [math.inf, -math.inf] if constraint.finite else []
    elif isinstance(constraint, Flag):
        wrong += [0, 1, "True", "", []]
    else:
        assert isinstance(constraint, OneOf)
        wrong += [f"{constraint.options[0]}x", "", 3, list(constraint.options)]
    return wrong


def inside(constraint: Constraint) -> list[Any]:
    """Values at the edges of what a constraint allows."""
    if isinstance(constraint, Whole):
        most = constraint.least + 2**40 if constraint.most is None else constraint.most
        return [constraint.least, np.int64(constraint.least), most]
    if isinstance(constraint, Real):
        low = constraint.least if constraint.above is None else np.nextafter(constraint.above, math.inf)
        high = constraint.most if constraint.below is None else np.nextafter(constraint.below, -math.inf)
        return [edge for edge in (low, high) if edge is not None] or [0, 0.5]
    if isinstance(constraint, Flag):
        return [True, False, np.bool_(True)]
    assert isinstance(constraint, OneOf)
    return list(constraint.options)


def declared() -> list[tuple[Any, str, Constraint]]:
    """Every declared constraint of the library: its function or class, the argument, the constraint."""
    found: dict[tuple[Any, str], Constraint] = {}
    for module in pkgutil.walk_packages([str(HOME)], "nestling."):
        path = HOME.joinpath(*module.name.split(".")[1:])
        source = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
        if "@checked(" not in source.read_text(encoding="utf-8"):
            continue
        for _, member in getmembers(importlib.import_module(module.name)):
            if not (isclass(member) or isfunction(member)) or member.__module__ != module.name:
                continue
            inner = [each for _, each in getmembers(member, isfunction)] if isclass(member) else []
            for target in (member, *inner):
                if target.__name__ not in ("__init__", "__post_init__"):
                    found |= {(target, name): each for name, each in constraints_of(target).items()}
    return [(target, name, constraint) for (target, name), constraint in found.items()]


BOUNDS = (("at least", "least"), ("above", "above"), ("at most", "most"), ("below", "below"))


@pytest.mark.parametrize(("target", "name", "constraint"), declared())
def test_a_range_in_a_docstring_is_the_declared_one(target: Any, name: str, constraint: Constraint) -> None:
    said = re.search(rf"^ +{name}: (.*(?:\n {{8,}}.*)*)", getdoc(target) or "", re.MULTILINE)
    text = re.sub(r"\s+", " ", said[1]) if said else ""
    for phrase, bound in BOUNDS:
        for number in re.findall(rf"\b{phrase} (-?\d+(?:\.\d+)?)", text):
            assert float(number) == getattr(constraint, bound, None), text


def call_with(target: Any, name: str, value: Any) -> None:
    """Give one argument alone: constraints are checked before arguments are missed."""
    if not isclass(target):
        target(**{name: value})
    elif is_dataclass(target):
        assert "__post_init__" in target.__init__.__code__.co_names, "dataclass() came before checked()"
        instance = object.__new__(target)
        for other, constraint in constraints_of(target).items():
            object.__setattr__(instance, other, value if other == name else inside(constraint)[0])
        instance.__post_init__()
    else:
        target.__init__(object.__new__(target), **{name: value})


DECLARED = declared()


def test_many_constraints_are_declared() -> None:
    assert len(DECLARED) > 60, "the walk over the modules finds them"


@pytest.mark.parametrize(
    ("target", "name", "constraint"), DECLARED, ids=lambda each: getattr(each, "__qualname__", str(each)[:20])
)
def test_every_declaration_refuses_values_outside(target: Any, name: str, constraint: Constraint) -> None:
    for value in outside(constraint):
        with pytest.raises(ConfigError) as caught:
            call_with(target, name, value)
        assert str(caught.value).startswith(f"{name}="), value
        assert constraint.wanted in str(caught.value)
    for value in inside(constraint):
        assert check(name, value, constraint) == value
    parameter = signature(target).parameters[name]
    if parameter.default is not parameter.empty:
        check(name, parameter.default, constraint)


@given(least=st.integers(-5, 5), extra=st.integers(0, 5), value=st.integers(-20, 20))
def test_a_whole_number_lies_in_its_range(least: int, extra: int, value: int) -> None:
    constraint = Whole(least, least + extra)
    assert constraint.admits(value) == (value in range(least, least + extra + 1))
    assert constraint.admits(np.int32(value)) == constraint.admits(value)


@given(value=st.floats(allow_nan=False, allow_infinity=False), low=st.floats(-1, 0), high=st.floats(0, 1))
def test_a_number_lies_within_its_bounds(value: float, low: float, high: float) -> None:
    assert Real(least=low, most=high).admits(value) == (low <= value <= high)
    assert Real(above=low, below=high).admits(value) == (low < value < high)


def test_a_number_of_numpy_becomes_one_of_python() -> None:
    for value, constraint in ((np.int64(3), Whole(1)), (np.float32(0.5), Real(above=0))):
        found = check("x", value, constraint)
        assert (type(found) in (int, float), found) == (True, value)


@pytest.mark.parametrize(
    ("name", "value", "constraint", "message"),
    [
        ("k", 0, Whole(1), "k=0 must be a whole number of at least 1"),
        ("k", "3", Whole(1, 9), "k='3' must be a whole number from 1 to 9"),
        ("lr", 0.0, Real(above=0), "lr=0.0 must be a finite number above 0"),
        ("warmup", 1, Real(least=0, below=1), "warmup=1 must be a number of at least 0 and below 1"),
        ("share", 2, Real(least=0, most=1), "share=2 must be a number from 0 to 1"),
        ("recall", 0, Real(above=0, most=1, hint="0.95 is usual"),
         "recall=0 must be a number above 0 and at most 1; 0.95 is usual"),
        ("target", "x", Real(finite=False), "target='x' must be a number"),
        ("metric", "cosin", OneOf(("cosine", "dot")),
         "metric='cosin' must be one of cosine, dot; did you mean 'cosine'?"),
    ],
)  # fmt: skip
def test_messages_have_one_form(name: str, value: Any, constraint: Constraint, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(name, value, constraint)
    assert str(caught.value) == message


def test_arguments_are_checked_wherever_they_stand() -> None:
    @checked(k=Whole(1), share=Real(least=0, most=1))
    def found(x: Any, k: int, *rest: int, share: float = 1.0) -> tuple[Any, ...]:
        return (x, k, *rest, share)

    assert found("x", np.int64(2), 0, 0, share=0.5) == ("x", 2, 0, 0, 0.5)
    assert found("x", k=3) == ("x", 3, 1.0)
    for wrong in (lambda: found("x", 0), lambda: found("x", k=0), lambda: found("x", 1, share=2)):
        with pytest.raises(ConfigError, match="must be"):
            wrong()
    assert signature(found).parameters.keys() == {"x", "k", "rest", "share"}


def test_a_class_has_the_constraints_of_those_it_extends() -> None:
    @dataclass(frozen=True)
    @checked(seed=Whole(0))
    class Seeded:
        seed: int = 0

    @dataclass(frozen=True)
    @checked(k=Whole(1) | None)
    class Nearest(Seeded):
        k: int | None = None

    assert list(constraints_of(Nearest)) == ["seed", "k"]
    assert Nearest(seed=np.int64(2), k=None) == Nearest(2)  # type: ignore[arg-type]  # numpy's are taken
    for wrong in ({"seed": -1}, {"k": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
            Nearest(**wrong)


def test_a_declaration_that_cannot_work_is_an_error() -> None:
    with pytest.raises(TypeError, match="has no size to constrain"):
        checked(size=Whole(1))(lambda k: k)
    with pytest.raises(TypeError, match="below @dataclass"):

        @checked(k=Whole(1))
        @dataclass
        class Late:
            k: int = 1


def test_a_field_of_a_plan_is_checked_by_the_same_validator() -> None:
    class Loss(BaseModel):
        temperature: Annotated[float, Real(above=0, hint="0.05 is usual")] = 0.05
        chunk_size: Annotated[int | None, Whole(1) | None] = None

    class Plan(BaseModel):
        loss: Loss = Loss()

    assert validated(Plan, {"loss": {"temperature": 1, "chunk_size": 8}}).loss.chunk_size == 8
    with pytest.raises(ConfigError) as caught:
        validated(Plan, {"loss": {"temperature": 0.0, "chunk_size": 0}})
    assert str(caught.value) == (
        "[loss] temperature=0.0 must be a finite number above 0; 0.05 is usual; "
        "[loss] chunk_size=0 must be a whole number of at least 1"
    )
