"""References to encoders: which one, and what opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestling.encoders.reference import digest_of, has_digest, name_to_open, same_encoder, with_place
from nestling.errors import ConfigError
from nestling.storage.artifact import write_folder

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("", "", True),
        ("wordllama", "wordllama", True),
        ("wordllama", "", False),
        ("wordllama", "minilm", False),
        (ONE, ONE, True),
        (ONE, OTHER, False),
        (f"here@{ONE}", f"there@{ONE}", True),
        (f"here@{ONE}", f"here@{OTHER}", False),
        (f"here@{ONE}", ONE, True),
        (f"here@{ONE}", "here", True),
        (f"here@{ONE}", "there", False),
        (ONE, "wordllama", False),
        (ONE, "", False),
        ("me@example/model", "me@example/model", True),
    ],
)
def test_encoders_are_told_apart(one: str, other: str, same: bool) -> None:
    assert same_encoder(one, other) is same
    assert same_encoder(other, one) is same


def saved(folder: Path, text: str) -> Path:
    with write_folder(folder, "text_encoder") as path:
        (path / "weights").write_text(text)
    return folder


def test_an_encoder_beside_an_index_is_found_and_checked(tmp_path: Path) -> None:
    encoder, moved = saved(tmp_path / "encoder", "a"), saved(tmp_path / "moved", "b")
    reference = with_place(digest_of(encoder), tmp_path / "index")
    assert reference == f"{encoder}@{digest_of(encoder)}"
    assert has_digest(reference)
    assert name_to_open(reference) == str(encoder)
    assert with_place(digest_of(moved), tmp_path / "index") == digest_of(moved)
    assert with_place("wordllama", tmp_path / "index") == "wordllama"
    for given, words in ((moved, "did not make"), ("wordllama", "no folder"), (tmp_path, "no folder")):
        with pytest.raises(ConfigError, match=f"{words}.*--encoder"):
            name_to_open(reference, str(given))
    assert name_to_open(digest_of(moved), str(moved)) == str(moved)
    with pytest.raises(ConfigError, match=r"not known.*--encoder"):
        name_to_open(digest_of(moved))
    encoder.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"no folder.*--encoder"):
        name_to_open(reference)
    assert name_to_open(reference, str(tmp_path / "elsewhere")) == str(tmp_path / "elsewhere")
    assert name_to_open("wordllama") == "wordllama"
    assert name_to_open("") == ""
