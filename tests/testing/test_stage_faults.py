"""The page on stages with one fault each: the check finds them all before any re-ranking hides them."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from nestling.errors import ConfigError
from nestling.search.stages import STAGES
from nestling.testing import LawError, check_stage

PAGE = Path(__file__).resolve().parents[2] / "docs/extend/stage.md"
CODE = re.findall(r"<!-- runnable -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]

FAULTS = {
    "worst first": ("-asked @ self.signs.T", "asked @ self.signs.T", "shortlists: the best 60"),
    "all distances 0": ("-asked @ self.signs.T", "0 * asked @ self.signs.T", "shortlists: the best 60"),
    "codes of the wrong rows": ("(prefixes > 0,", "((prefixes > 0)[::-1],", "shortlists: the best 60"),
    "a row too few": ("rows = rows[:, :k]", "rows = rows[:, : k - 1]", r"shortlists: .* of shape \(8, 59\)"),
    "a row twice": (
        "rows = rows[:, :k]",
        "rows = rows[:, :k] if k > 60 else rows[:, [0, *range(k - 1)]]",
        "shortlists: .* one row twice",
    ),
    "rows that do not exist": ("rows = rows[:, :k]", "rows = rows[:, :k] + 99", "truth: IndexError"),
    "the filter ignored": ("if allowed is not None:", "if False:", "shortlists: .* the filter forbids"),
    "nothing found with a filter": (
        "rows, _ = keep_allowed(rows, allowed.mask, k, 0)",
        "rows = np.full_like(rows, -1)",
        "shortlists: .* 0 of them rows",
    ),
    "extracted codes of zeros": (
        'built.copied("codes")',
        '{"codes": 0 * built.arrays["codes"]}',
        r"sizes: .* extract\(32\) give other results at shortlist=60",
    ),
    "nothing extracted": ('built.copied("codes")', "{}", "sizes: KeyError is raised: 'codes'"),
    "nothing returned": ("return rows, np.take", "rows, np.take", "truth: TypeError is raised"),
}  # fmt: skip


def check(monkeypatch: pytest.MonkeyPatch, old: str = "", new: str = "") -> None:
    assert old in CODE
    module = types.ModuleType("faulty_stage")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    monkeypatch.setitem(STAGES, "sign", STAGES["flat"])  # takes away what the page adds
    exec(CODE.replace(old, new), module.__dict__)
    check_stage("sign@full > rerank@full", refused=["sign4@16"])


def test_the_page_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    check(monkeypatch)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new, message = FAULTS[fault]
    with pytest.raises(LawError, match=f"^{message}"):
        check(monkeypatch, old, new)


@pytest.mark.parametrize(
    ("plan", "message"), [(None, "plan must be the text .* not None"), ("", "stage"), ("nope@8", "nope")]
)
def test_a_plan_that_is_none_is_refused(plan: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_stage(plan)
