"""Encoding of large files resumes after errors, kills, torn parts and full disks."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.domains.text import collection, encoding
from nestling.domains.text.collection import Collection
from nestling.domains.text.encoding import encoded
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ArtifactError, ConfigError, DataError, StorageError
from nestling.granularity import Nesting
from nestling.storage.lock import WriterLock

PART = 7
# Spelled in letters, as the tiny model reads no digits: texts that it cannot tell apart have equal vectors.
SPELLED = str.maketrans("0123456789", "abcdefghij")
TEXTS = [f"text {n} tells of the {n**2}th day".translate(SPELLED) for n in range(5 * PART + 2)]


@pytest.fixture(scope="module")
def encoder(tiny_bert_folder: Path) -> TextEncoder:
    return TextEncoder.open(tiny_bert_folder, Nesting.parse("dim=16,32"))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_TEXTS_AT_A_TIME", PART)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / ".out.encoding"


class Interrupted:
    """An encoder that is stopped after some parts, and remembers what it was asked for."""

    def __init__(self, encoder: TextEncoder, parts: int) -> None:
        self.encoder, self.left, self.asked = encoder, parts, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode(self, texts: list[str], *rest: Any, **named: Any) -> Any:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked += texts
        return self.encoder.encode(texts, *rest, **named)


def finish(encoder: Any, texts: Any, out: Path, at: str | None = None) -> np.ndarray:
    with encoded(encoder, texts, out, at) as vectors:
        return np.array(vectors)


def interrupt(encoder: TextEncoder, texts: list[str], out: Path, parts: int, at: str | None = None) -> None:
    with pytest.raises(KeyboardInterrupt):
        finish(Interrupted(encoder, parts), texts, out, at)


def test_vectors_are_those_of_the_encoder(encoder: TextEncoder, out: Path) -> None:
    for at in (None, "dim=16"):
        np.testing.assert_allclose(finish(encoder, TEXTS, out, at), encoder.encode(TEXTS, at), atol=1e-6)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("parts", range(6))
def test_what_is_finished_is_not_encoded_again(
    encoder: TextEncoder, out: Path, work: Path, parts: int
) -> None:
    whole = finish(encoder, TEXTS, out)
    interrupt(encoder, TEXTS, out, parts)
    assert work.exists() == (parts > 0)
    again = Interrupted(encoder, 99)
    np.testing.assert_array_equal(finish(again, TEXTS, out), whole)
    assert again.asked == TEXTS[parts * PART :]
    assert not work.exists()


def test_an_error_of_the_caller_keeps_the_vectors(encoder: TextEncoder, out: Path) -> None:
    with pytest.raises(ZeroDivisionError), encoded(encoder, TEXTS, out):
        raise ZeroDivisionError
    again = Interrupted(encoder, 0)
    assert len(finish(again, TEXTS, out)) == len(TEXTS)


def test_texts_that_were_not_reached_may_change(encoder: TextEncoder, out: Path) -> None:
    interrupt(encoder, TEXTS, out, 2)
    changed = [*TEXTS[: 2 * PART], *(text.upper() for text in TEXTS[2 * PART :]), "one more"]
    np.testing.assert_allclose(finish(encoder, changed, out), encoder.encode(changed), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda encoder: (encoder, ["another", *TEXTS[1:]], None), "14 vectors of other texts"),
        (lambda encoder: (encoder, TEXTS[: 2 * PART - 1], None), "of other texts"),
        (lambda encoder: (encoder, TEXTS, "dim=16"), "another encoder or granularity"),
        (lambda encoder: (encoder.extract("dim=16"), TEXTS, None), "another encoder or granularity"),
    ],
)
def test_other_texts_and_encoders_are_refused(
    encoder: TextEncoder, out: Path, work: Path, change: Callable[..., Any], message: str
) -> None:
    interrupt(encoder, TEXTS, out, 2)
    other, texts, at = change(encoder)
    with pytest.raises(ConfigError, match=rf"{message}.*run that call again .*, or remove the folder"):
        finish(other, texts, out, at)
    assert len(finish(Interrupted(encoder, 4), TEXTS, out)) == len(TEXTS)


def test_other_weights_are_another_encoder(encoder: TextEncoder, out: Path) -> None:
    interrupt(encoder, TEXTS, out, 1)
    other = encoder.extract("dim=32")
    next(other.parameters()).data[12, 3] += 1
    with pytest.raises(ConfigError, match="another encoder"):
        finish(other, TEXTS, out)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _set(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "damage",
    [
        lambda work: _flip(work / "vectors.f32"),
        lambda work: os.truncate(work / "vectors.f32", 1000),
        lambda work: (work / "vectors.f32").unlink(),
        lambda work: _set(work / "progress.json", vectors="0" * 64),
        lambda work: _set(work / "progress.json", more=1),
        lambda work: (work / "progress.json").write_bytes(b"\xff{"),
    ],
)
def test_altered_files_are_refused(
    encoder: TextEncoder, out: Path, work: Path, damage: Callable[[Path], Any]
) -> None:
    interrupt(encoder, TEXTS, out, 2)
    damage(work)
    with pytest.raises(ArtifactError, match="to encode again"):
        finish(encoder, TEXTS, out)


def test_a_torn_part_is_encoded_again(encoder: TextEncoder, out: Path, work: Path) -> None:
    interrupt(encoder, TEXTS, out, 2)
    with (work / "vectors.f32").open("ab") as stream:
        stream.write(b"torn")
    np.testing.assert_allclose(finish(encoder, TEXTS, out), encoder.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("failing", ["append_after", "write_file"])
def test_a_full_disk_loses_nothing(
    encoder: TextEncoder, out: Path, work: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    interrupt(encoder, TEXTS, out, 2)
    with monkeypatch.context() as patch:
        patch.setattr(encoding, failing, full)
        with pytest.raises(StorageError, match="the disk is full"):
            finish(encoder, TEXTS, out)
    again = Interrupted(encoder, 99)
    assert len(finish(again, TEXTS, out)) == len(TEXTS)
    assert again.asked == TEXTS[2 * PART :]


@pytest.mark.parametrize(("bad", "message"), [("  ", "blank in row 20"), (7, "row 20 holds an int")])
def test_bad_texts_are_named_before_anything_is_encoded(
    encoder: TextEncoder, out: Path, bad: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        finish(Interrupted(encoder, 0), [*TEXTS[:20], bad, *TEXTS[20:]], out)
    with pytest.raises(DataError, match="no text"):
        finish(encoder, [], out)
    assert not list(out.parent.iterdir())


def test_a_text_without_tokens_is_named_by_its_number(out: Path) -> None:
    encoder, silence = TextEncoder.open("wordllama").extract("dim=64"), "\u2060"
    next(encoder.parameters()).data[encoder.model.preprocess([silence])["input_ids"]] = 0
    with pytest.raises(DataError, match="row 17 of the texts"):
        finish(encoder, [*TEXTS[:17], silence, *TEXTS], out)


def test_one_process_encodes(encoder: TextEncoder, out: Path, work: Path) -> None:
    work.mkdir()
    lock = WriterLock(work)
    with pytest.raises(StorageError, match="open for writing already"):
        finish(encoder, TEXTS, out)
    lock.release()
    assert len(finish(encoder, TEXTS, out)) == len(TEXTS)


def test_texts_are_read_no_sooner_than_they_are_encoded(encoder: TextEncoder, out: Path) -> None:
    ahead = []

    class Watched:
        def __iter__(self) -> Iterator[str]:
            counted.asked.clear()
            for row, text in enumerate(TEXTS):
                ahead.append(row - len(counted.asked))
                yield text

    counted = Interrupted(encoder, 99)
    finish(counted, Watched(), out)
    assert max(ahead[len(TEXTS) :]) < PART


def test_texts_from_a_generator(encoder: TextEncoder, out: Path) -> None:
    np.testing.assert_array_equal(finish(encoder, (text for text in TEXTS), out), encoder.encode(TEXTS))


def test_an_index_that_fails_does_not_cost_its_vectors(
    encoder: TextEncoder, out: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(collection, "build", full)
        with pytest.raises(StorageError):
            Collection.create(out, encoder, TEXTS)
    assert work.exists()
    silent: Any = Interrupted(encoder, 0)
    with Collection.create(out, silent, TEXTS) as made:
        assert len(made) == len(TEXTS)
    assert not work.exists()


KILLED = """
import os, signal, sys, time
from pathlib import Path
import numpy as np, torch
from nestling.data import TextFile
from nestling.domains.text.encoding import encoded
from nestling.encoders.text.encoder import TextEncoder

torch.set_num_threads(1)
folder, kills = Path(sys.argv[1]), np.random.default_rng(0).uniform(0, 0.1, int(sys.argv[2]))
texts, encoder = TextFile(folder / "texts.jsonl"), TextEncoder.open("wordllama")
progress = folder / ".out.npy.encoding" / "progress.json"

def begin():
    child = os.fork()
    if child == 0:
        with encoded(encoder, texts, folder / "out.npy") as vectors:
            np.save(folder / "out.npy", vectors)
        os._exit(0)
    return child

def seen():
    return progress.read_text() if progress.exists() else ""

for pause in kills:
    before, child = seen(), begin()
    while seen() == before:
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not (folder / "out.npy").exists()
assert os.waitpid(begin(), 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked, which this system cannot")
def test_killed_at_random_moments(python: str, tmp_path: Path) -> None:
    texts = [f"text {number} of many" for number in range(8 * 2048)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "texts.jsonl").write_text(lines, encoding="utf-8")
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", KILLED, tmp_path, "4"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        np.load(tmp_path / "out.npy"), TextEncoder.open("wordllama").encode(texts), atol=1e-6
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "texts.jsonl"]
