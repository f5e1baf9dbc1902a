"""Advice of the command line for commands as a newcomer types them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from commands import ended
from nestling.cli.terminal.messages import in_flags
from nestling.domains.text.collection import Collection
from nestling.encoders.text.opening import open_encoder
from nestling.search.index.index import AdaptiveIndex
from nestling.search.tuning.planner import build

DIM = 16


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vectors, tables, an index, a collection and a small set in BEIR's format."""
    folder = tmp_path_factory.mktemp("advice")
    x = np.random.default_rng(0).normal(size=(2000, DIM)).astype(np.float32)
    for name, rows in (("x", x), ("q", x[:4]), ("five", x[:5]), ("one", x[:1])):
        np.save(folder / f"{name}.npy", rows)
    np.save(folder / "codes.npy", x.astype(np.int8))
    (folder / "products.csv").write_text("sku,title\na,warm jacket\nb,rain coat\n")
    (folder / "pairs.csv").write_text("query,document\na cat,a dog\nx y,z w\nu v,a b\n")
    build(folder / "ix", x, plan="int4@4 > rerank@full", nesting="dim=4,8,16", recall=0.9).close()
    encoder = open_encoder("wordllama").extract("dim=64")
    Collection.create(folder / "products", encoder, ["warm jacket", "rain coat"], plan="flat@full").close()
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    texts = {"d1": "a cat", "d2": "a dog", "d3": "a bird"}
    (beir / "corpus.jsonl").write_text(
        "".join(f"{json.dumps({'_id': name, 'text': text})}\n" for name, text in texts.items())
    )
    (beir / "queries.jsonl").write_text('{"_id":"q1","text":"cat"}\n{"_id":"q2","text":"dog"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")
    return folder


def told(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; ``'a b'`` is one word."""
    return ended(shlex.split(line), place, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("search", 'nestling search INDEX "warm winter jacket"'),
        ("search products", 'give a query: nestling search products "warm winter jacket"'),
        ("search products warm jacket", 'nestling search products "warm jacket"'),
        ("search warm winter jacket", 'nestling search "warm winter jacket"'),
        ("search nowhere coat", 'nestling search INDEX "coat"'),
        ("search ix --vectors q.npy --at 5", "the nearest valid granularity is dim=4 or dim=8"),
        (
            "search ix --vectors q.npy --at dims=8",
            "the only axis is dim, with the sizes dim=4,8,16; did you mean",
        ),
        ("search ix --vectors q.npy --at bits=2", 'nestling index build or encode with --at "bits=2"'),
        ("extract wordllama --at dim=64,bits=2 -o new", "leave bits out where a model is cut"),
        ("index build x.npy -o new --at bit=2", "did you mean 'bits'?"),
        ("index build x.npy -o new --nesting experts=0", "experts=0 is not a size"),
        ("search ix --vectors q.npy --at 8x", 'write "full", or a size for each axis that is cut'),
        ("search ix --vectors q.npy --recall 2", "--recall 2.0 must be a number above 0"),
        ("search ix --vectors products.csv", "nestling encode wordllama products.csv -o vectors"),
        ("index build products.csv -o new", "nestling index build products.csv --encoder wordllama -o new"),
        ("index build products.csv -o new", "index build vectors.npy --table products.csv -o new"),
        ("index delete ix 900001", "id 900001 is not in the index, so nothing was deleted"),
        ("index delete ix 900001 900002", "2 ids (900001, 900002) are not in the index"),
        ("bench products.csv", "nestling encode wordllama products.csv -o vectors"),
        ("bench one.npy", "needs at least two vectors"),
        ("sweep wordllama --beir beir --k 10", "--k 10 documents cannot be found among 3"),
        ("reproduce mrl --claims C1,C99", "did you mean 'C9'"),
        *(
            (
                f"sweep x.npy --queries q.npy --bits '{bits}'",
                "--bits must be one or more of 1, 2, 3, 4, 8, 16, 32",
            )
            for bits in ("abc", "", "1 2", "5")
        ),
        ("index build x.npy -o new --nesting 'dim=4,16 x bits=1,32'", "leave bits out"),
        ("index build codes.npy -o new", "convert them to float32 if the numbers are meant"),
    ],
)
def test_a_mistake_gets_whole_advice(
    line: str,
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = told(line, place, monkeypatch, capsys)
    assert code in (1, 3)
    assert message in err
    lines = [line for line in err.splitlines() if "working: " not in line]  # a busy machine shows progress
    assert len(lines) == 1
    assert not re.search(r"\w\.\w+\(|nestling\.\w+\.\w", err), "advice for Python"


def test_a_recall_that_was_not_measured_gets_advice_for_a_search(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The point that is advised is of another plan than the user may know; it can be pasted and works."""
    _, _, err = told("search ix --vectors q.npy --recall 1", place, monkeypatch, capsys)
    assert "no measured point of this index reaches recall 1 at the lower end of its 95 % CI" in err
    point = err.split('--point "')[1].split('"')[0]
    code, out, _ = told(f"search ix --vectors q.npy --point {point}", place, monkeypatch, capsys)
    assert (code, out.count("query ")) == (0, 4)


@pytest.mark.parametrize("line", ["search ix --vectors q.npy --at {}", "search products coat --at {}"])
def test_a_size_alone_is_one_on_the_only_axis(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = 8 if " ix " in line else 64
    code, whole, err = told(line.format(f"dim={size}"), place, monkeypatch, capsys)
    assert code == 0, err
    assert told(line.format(size), place, monkeypatch, capsys)[:2] == (0, whole)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("sweep wordllama --beir beir", 3),
        ("sweep wordllama --pairs pairs.csv", 3),
        ("sweep five.npy --queries five.npy", 5),
        ("bench five.npy --plans flat@full", 4),
    ],
)
def test_fewer_rows_than_ten_lower_k_with_a_word(
    line: str, count: int, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(line, place, monkeypatch, capsys)
    assert code == 0, err
    assert f"so --k {count} is measured, not --k 10" in err
    assert f"@{count}" in out


def test_advice_that_would_lose_its_verb_is_left_out_whole() -> None:
    flags = {"at": "--at"}
    assert in_flags("it is wrong; write size=3, or 'full'", flags) == "it is wrong"
    assert in_flags("it is wrong; write size=3, or call it 'full'", flags) == "it is wrong; call it 'full'"
    assert in_flags("it is wrong; pass at=, or size=", flags) == "it is wrong; pass --at"


OPENED = {
    "encode wordllama {} --column title -o made.npy": "products.csv",
    "index build {} --encoder wordllama --column title --plan flat@full -o made": "products.csv",
    "index build {} --plan flat@full -o made": "x.npy",
    "index build x.npy --table {} --plan flat@full -o made": "rows.csv",
    "index update copy {}": "rows.csv",
    "index delete copy --table {}": "rows.csv",
    "search ix --vectors {}": "q.npy",
    "bench {} --plans flat@full": "five.npy",
    "sweep wordllama --pairs {}": "pairs.csv",
    "sweep x.npy --labels {}": "rows.csv",
    "sweep x.npy --queries {}": "x.npy",
}
"""Commands with a file in the place of ``{}``."""


@pytest.mark.parametrize("how", ["a descriptor of a file", "a descriptor of a pipe"])
@pytest.mark.parametrize("line", OPENED)
def test_what_a_shell_opened_is_read_like_a_file(line: str, how: str, place: Path, tmp_path: Path) -> None:
    """``3< file`` and ``<(command)``: both are paths such as /dev/fd/3."""
    for each in place.iterdir():
        (tmp_path / each.name).symlink_to(each)
    (tmp_path / "rows.csv").write_text("id,label\n" + "".join(f"{row},{row % 4}\n" for row in range(2000)))
    labels = {"label": list(range(2000))}
    AdaptiveIndex.create(tmp_path / "copy", np.load(place / "x.npy"), plan="flat@full", fields=labels).close()
    opened = f"/dev/fd/3 3< {OPENED[line]}" if "file" in how else f"<(cat {OPENED[line]})"
    code = "import sys; sys.argv[0] = 'nestling'; from nestling.cli import main; main()"
    script = f'{sys.executable} -c "{code}" {line.format(opened)}'
    told = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
