"""One tree of errors with exit codes; missing extras and unknown names give advice."""

from __future__ import annotations

import inspect

import pytest

from nestling import errors
from nestling.errors import DataError, MissingExtraError, NestlingError, require, unknown


def test_one_tree_with_exit_codes() -> None:
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, Exception) and not issubclass(kind, Warning):
            assert issubclass(kind, NestlingError)
            assert kind.exit_code == (3 if issubclass(kind, DataError) else 1)


def test_a_missing_extra_names_its_install_command() -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "nestling\[vision\]"'):
        require("surely_not_installed.part", "vision")
    assert require("json", "text").dumps([1]) == "[1]"


def test_a_module_that_breaks_while_it_loads_is_not_called_missing(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaking_module.py").write_text("import surely_not_installed_either")  # type: ignore[operator]
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("breaking_module", "text")
    assert not isinstance(caught.value, MissingExtraError)


def test_unknown_names_list_the_allowed_ones() -> None:
    assert unknown("metric", "zzz", ["ndcg", "mrr"]) == "unknown metric 'zzz'. Allowed: ndcg, mrr"
