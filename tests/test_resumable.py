"""Values that are made once, kept in a file, and resumed after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nestling.errors import ArtifactError, ConfigError
from nestling.storage.resumable import ResumableValues


def test_figures_are_measured_once_and_survive_an_interruption(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, measured = tmp_path / "tour.json", []

    def measure(value: object) -> Any:
        measured.append(value)
        return value

    first = ResumableValues(path, {"quick": False})
    assert first.once("rate", lambda: measure(0.1)) == 0.1
    assert first.once("rate", lambda: measure(0.2)) == 0.1
    with pytest.raises(KeyboardInterrupt):
        first.once("cells", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    with caplog.at_level("INFO"):
        again = ResumableValues(path, {"quick": False})
    assert "with 1 figures" in caplog.text
    assert again.once("rate", lambda: measure(0.3)) == 0.1
    assert again.once("cells", lambda: measure({"dim=8": 1.5})) == {"dim=8": 1.5}
    assert measured == [0.1, {"dim=8": 1.5}]
    again.remove()
    again.remove()
    assert not list(tmp_path.iterdir())


def test_figures_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "tour.json"
    ResumableValues(path, {"quick": True}).once("rate", lambda: 1)
    with pytest.raises(ConfigError, match=r"'quick': True.*'quick': False.*delete"):
        ResumableValues(path, {"quick": False})
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="delete"):
        ResumableValues(path, {"quick": True})
    alone = ResumableValues(None, {})
    assert [alone.once("a", lambda: [1]), alone.once("a", lambda: [2])] == [[1], [1]]
    alone.remove()
