"""Curves of different data have different identities, and are not compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nestling.errors import DataError
from nestling.measure import STS, Curve, LinearProbe, Retrieval, Robustness, compare, encode_task, sweep
from nestling.measure.baselines import truncation
from nestling.measure.curve.provenance import identity

RNG = np.random.default_rng(0)
X, OTHER = RNG.normal(size=(2, 60, 8))
TEXTS = [f"text {i}" for i in range(60)]
TASK = Retrieval(X, X, range(60))


def as_given(x: Any) -> Any:
    return x


def swept(task: Any, name: str = "a", **how: Any) -> Curve:
    return sweep(as_given, task, "dim=2,8", name=name, resamples=20, **how)


@pytest.mark.parametrize(
    "other",
    [
        Retrieval(OTHER, X, range(60)),
        Retrieval(X, OTHER, range(60)),
        Retrieval(X, X, [(i + 1) % 60 for i in range(60)]),
        Retrieval(X, X, [{i: 2.0} for i in range(60)]),
        Retrieval(X, X, range(60), k=5),
        Retrieval(X[:59], X, range(59)),
        Retrieval(X.astype("f4"), X, range(60)),
        STS(X, X, range(60)),
    ],
)
def test_other_data_or_judgements_have_another_identity(other: Any) -> None:
    assert identity(other) != identity(TASK)


@pytest.mark.parametrize(
    "same",
    [
        Retrieval(X.copy(), X, list(range(60))),
        Retrieval(X, torch.from_numpy(X), range(60)),  # type: ignore[arg-type]
        Retrieval(X, X, range(60), measures=("map",)),
        encode_task(as_given, TASK),
        encode_task(lambda x: x[:, :3], encode_task(as_given, TASK)),
    ],
)
def test_the_same_data_have_the_same_identity(same: Any) -> None:
    assert identity(same) == identity(TASK)


def test_every_kind_of_task_has_one() -> None:
    labels = np.arange(60) % 3
    tasks = [
        LinearProbe(X, labels, OTHER, labels),
        LinearProbe(X, labels, OTHER, labels[::-1]),
        Robustness(TASK, Retrieval(OTHER, X, range(60))),
        Retrieval(TEXTS, TEXTS, range(60)),
        Retrieval(TEXTS, [*TEXTS[:-1], "another"], range(60)),
        Retrieval(TEXTS, [f"{text} " for text in TEXTS], range(60)),
    ]
    assert len({identity(task) for task in tasks}) == len(tasks)


def test_a_curve_carries_it_through_a_file(tmp_path: Path) -> None:
    curve = swept(TASK)
    assert curve.data == identity(TASK)
    curve.save(tmp_path / "c.json")
    assert Curve.load(tmp_path / "c.json") == curve


def test_curves_of_different_data_do_not_stand_together(tmp_path: Path) -> None:
    one, other = swept(TASK, "one"), swept(Retrieval(OTHER, OTHER, range(60)), "other")
    refused = [
        lambda **how: compare([one, other], **how),
        lambda **how: one.plot(tmp_path / "c.png", others=[other], **how),
        lambda **how: one.to_html(tmp_path / "c.html", others=[other], **how),
    ]
    for call in refused:
        with pytest.raises(DataError, match=r"'one' .* and 'other' .* different data.* mixed=True"):
            call()
        call(mixed=True)
    with pytest.raises(DataError, match="different data"):
        Curve.mean([one, other])


def test_baselines_over_the_vectors_of_texts_stand_beside() -> None:
    texts = Retrieval(TEXTS, TEXTS, range(60))
    vectors = encode_task(lambda rows: np.stack([X[int(row.split()[1])] for row in rows]), texts)
    curve = sweep(lambda rows: np.stack([X[int(r.split()[1])] for r in rows]), texts, "dim=2,8", resamples=20)
    assert "truncation" in compare([curve, truncation(vectors, "dim=2,8")])


def test_curves_of_older_files_are_told_apart_by_task_and_examples() -> None:
    one, old = swept(TASK), replace(swept(TASK), data="")
    assert compare([one, old])
    with pytest.raises(DataError, match="data unknown"):
        compare([one, replace(old, examples=3)])
