"""Vectors that callers give are checked once, where they enter, and stored vectors never again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestling.vectors.stored as stored_module
from nestling.cut import RAW, CutRule
from nestling.errors import DataError, GranularityError
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.search.tuning import planner
from nestling.vectors.opening import open_vectors
from nestling.vectors.stored import StoredVectors
from nestling.vectors.vectors_like import values_of

ROWS = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each scan of ``ROWS`` for NaN and infinity from now on."""
    import nestling.search.exact.neighbours as exact
    import nestling.search.index.intake as intake
    import nestling.vectors.vectors_like as given

    seen: list[str] = []
    for module in (stored_module, given, intake, exact, planner):
        real = module.check_vectors

        def check(x: Any, *rest: Any, real: Any = real, **named: Any) -> Any:
            if np.shape(x) == ROWS.shape:
                seen.append("scan")
            return real(x, *rest, **named)

        monkeypatch.setattr(module, "check_vectors", check)
    return seen


def test_an_array_is_scanned_once_on_its_way_into_an_index(scans: list[str], tmp_path: Path) -> None:
    planner.build(tmp_path / "index", ROWS, queries=ROWS[:5], recall=0.9).close()
    assert len(scans) == 1


def test_stored_vectors_are_not_scanned_again(scans: list[str], tmp_path: Path) -> None:
    stored = StoredVectors(ROWS, "dim=4,8")
    scans.clear()
    planner.build(tmp_path / "index", stored, queries=ROWS[:5], recall=0.9).close()
    planner.tune(stored, queries=ROWS[:5], plans=["flat@full"], recall=0.9)
    AdaptiveIndex.create(tmp_path / "other", stored).close()
    nearest(ROWS[:2], stored, 3)
    assert not scans


def test_arguments_replace_what_stored_vectors_say() -> None:
    stored = StoredVectors(ROWS, "dim=4,8", ids=range(600), encoder="one", fields={"a": range(600)})
    assert StoredVectors.of(stored) is stored
    other = StoredVectors.of(stored, "dim=2,8", RAW, encoder="two", kinds={"a": "float"})
    assert (str(other.nesting), other.rule, other.encoder, other.fields.kinds) == (
        "dim=2,8",
        RAW,
        "two",
        {"a": "float"},
    )
    assert other.values is stored.values
    assert other.ids is stored.ids
    assert (str(stored.nesting), stored.rule, stored.encoder) == ("dim=4,8", CutRule(), "one")


def test_only_what_is_replaced_is_checked() -> None:
    raw = StoredVectors(np.vstack([ROWS, np.zeros((1, 8), np.float32)]), rule=RAW)
    with pytest.raises(DataError, match="row 600 of the vectors is all zero"):
        StoredVectors.of(raw, rule=CutRule())
    with pytest.raises(GranularityError, match="must end at 8"):
        StoredVectors.of(raw, "dim=4")
    with pytest.raises(DataError, match="ids"):
        StoredVectors.of(raw, ids=[1, 1])


def test_a_folder_with_other_words_is_opened_as_they_say(tmp_path: Path) -> None:
    StoredVectors(ROWS, "dim=4,8", encoder="one").save(tmp_path / "saved")
    opened = open_vectors(tmp_path / "saved", "dim=8", encoder="two")
    assert (str(opened.nesting), opened.encoder) == ("dim=8", "two")


def test_values_are_of_the_size_that_is_expected() -> None:
    with pytest.raises(DataError, match="documents have 8 entries a row, but 4 are expected"):
        values_of(StoredVectors(ROWS), "documents", dim=4)
    with pytest.raises(DataError, match="NaN"):
        values_of(ROWS * np.nan)


def test_what_a_map_makes_is_checked_too(tmp_path: Path) -> None:
    class Spoiling:
        nesting, rule = StoredVectors(ROWS).nesting, RAW

        def transform(self, rows: np.ndarray) -> np.ndarray:
            return rows * np.nan

    with pytest.raises(DataError, match="mapped vectors hold NaN"):
        StoredVectors(ROWS).mapped(Spoiling(), tmp_path / "mapped")
    assert not (tmp_path / "mapped").exists()


def test_the_old_name_of_an_attribute_warns(tmp_path: Path) -> None:
    with (
        AdaptiveIndex.create(tmp_path / "index", ROWS) as index,
        pytest.warns(DeprecationWarning, match="manifest"),
    ):
        assert index.generation is index.manifest
