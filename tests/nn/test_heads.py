"""Heads keep the laws of elastic things and have the paper's parameter counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.nn.heads import NestedClassifier
from nestling.testing import ELASTIC_LAWS, ElasticExample

NESTING = Nesting.parse("dim=4,8,16")


@pytest.fixture(params=["own", "tied", "tied, no bias"])
def head(request: pytest.FixtureRequest) -> NestedClassifier:
    torch.manual_seed(0)
    return NestedClassifier(NESTING, 5, tied="tied" in request.param, bias="no bias" not in request.param)


@pytest.mark.parametrize("law", ELASTIC_LAWS, ids=lambda law: law.__name__)
def test_a_head_keeps_the_laws(head: NestedClassifier, law: object) -> None:
    law(ElasticExample(head, torch.randn(7, 16)))  # type: ignore[operator]


def test_parameters_as_in_the_paper() -> None:
    own, tied = NestedClassifier(NESTING, 5), NestedClassifier(NESTING, 5, tied=True)
    assert sum(p.numel() for p in own.parameters()) == 5 * (4 + 8 + 16) + 3 * 5
    assert sum(p.numel() for p in tied.parameters()) == 5 * 16 + 5
    assert own.extract(4).cost().parameters == sum(p.numel() for p in own.extract(4).parameters())


def test_features_that_are_cut_already_are_accepted(head: NestedClassifier) -> None:
    x = torch.randn(3, 16)
    torch.testing.assert_close(head(x, at=8), head(x[:, :8], at=8))


def test_a_batch_of_one_row(head: NestedClassifier) -> None:
    assert head(torch.randn(1, 16), at=4).shape == (1, 5)


def test_extracting_draws_nothing_at_random_and_shares_no_memory(head: NestedClassifier) -> None:
    small, x = head.extract(8), torch.randn(3, 16)
    before = small(x[:, :8])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    torch.testing.assert_close(small(x[:, :8]), before)


def test_dtype_and_mode_survive(head: NestedClassifier, tmp_path: Path) -> None:
    head.double().eval()
    small = head.extract(4)
    assert not small.training
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    head.save(tmp_path / "head")
    assert {p.dtype for p in NestedClassifier.load(tmp_path / "head").parameters()} == {torch.float64}


def test_bad_input_is_refused(head: NestedClassifier) -> None:
    with pytest.raises(DataError, match="16 or more"):
        head(torch.randn(3, 8))
    with pytest.raises(DataError, match="shape"):
        head(torch.randn(16))
    with pytest.raises(GranularityError, match="nearest"):
        head(torch.randn(3, 16), at=5)
    with pytest.raises(ConfigError, match="at least 2"):
        NestedClassifier(NESTING, 1)
    with pytest.raises(GranularityError, match="the axis dim, not layer"):
        NestedClassifier(Nesting.parse("layer=1,2"), 3)
