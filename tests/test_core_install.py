"""An installation without extras: working calls, and errors of the others; the packages are hidden."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nestling
from nestling.errors import MissingExtraError
from nestling.process.extras import EXTRAS

HIDDEN = (*EXTRAS, "datasets", "huggingface_hub", "tensorboard", "torchvision")
HIDE = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HIDDEN!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def hidden(code: str, *arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", HIDE + code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder)


def test_every_module_is_imported_or_names_the_extra_that_it_needs() -> None:
    code = """
import importlib, pkgutil, nestling
from nestling.errors import MissingExtraError
def tried(name):
    try:
        importlib.import_module(name)
    except MissingExtraError as error:
        assert 'pip install "nestling[' in str(error), name
for found in pkgutil.walk_packages(nestling.__path__, "nestling."):
    if not found.name.endswith("._kernels"):  # a library of an older build
        tried(found.name)
for name in nestling.__all__:
    try:
        getattr(nestling, name)
    except MissingExtraError as error:
        assert 'pip install "nestling[' in str(error), name
"""
    told = hidden(code)
    assert told.returncode == 0, told.stderr


TEXT, STATIC, MINILM = ("nestling[text]", "nestling[static]", "nestling[minilm]")
COMMANDS = {
    "demo": TEXT,
    "train --pairs pairs.csv --folder run": TEXT,
    "train --pairs pairs.csv --folder run --encoder minilm": MINILM,
    "encode wordllama texts.txt -o vectors": STATIC,
    "encode minilm texts.txt -o vectors": MINILM,
    "sweep wordllama --pairs pairs.csv": STATIC,
    "sweep minilm --pairs pairs.csv": MINILM,
    "sweep x.npy --queries x.npy": "dim=8",
    "compare x.npy y.npy": None,
    "compare --layers plan.toml": None,
    "compare x.npy y.npy -o pictures": None,
    "extract wordllama --at dim=64 -o small": STATIC,
    "extract minilm --at dim=64 -o small": MINILM,
    "index build x.npy -o made --plan flat@full": "60 vectors",
    "index build texts.txt --encoder wordllama -o words": STATIC,
    "index build texts.txt --encoder minilm -o words": MINILM,
    "index tune ix": "Chosen",
    "index add ix x.npy": "120",
    "index update ix rows": "120",
    "index delete ix 3": "119",
    "index compact ix": "119",
    "index info ix": "119 vectors",
    "index verify ix": "no damage found",
    "index extract ix --at dim=8 -o smaller": "119 vectors",
    "index export ix --to lancedb:///nowhere/items": None,
    "index export ix --to postgres://host/db/items": None,
    "bench x.npy --plans flat@full": "Chosen",
    "bench x.npy --plans flat@full -o report": None,
    "search ix --vectors x.npy": "1.000",
    "reproduce mrl --quick": TEXT,
    "reproduce starbucks --quick": MINILM,
    "reproduce trsa --quick": TEXT,
    "data": "docstrings",
}
"""What each prints without extras, or which extras the error names; None is any."""


RUN = """
import contextlib, io, json, traceback
from nestling.cli import main
def run(line):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["nestling", *line.split()]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = traceback.format_exc()
    return code, out.getvalue(), err.getvalue()
told = {line: run(line) for line in sys.argv[1:]}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, str, str]]:
    """Exit code, stdout and stderr of every command, one after the other in one process."""
    folder = tmp_path_factory.mktemp("core")
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    np.save(folder / "x.npy", x)
    nestling.StoredVectors(x, ids=range(60)).save(folder / "rows")
    np.save(folder / "y.npy", x[:, ::-1])
    nestling.AdaptiveIndex.create(folder / "ix", x, plan="flat@full").close()
    (folder / "texts.txt").write_text("read a file\nwrite a file\n")
    (folder / "pairs.csv").write_text("query,document\n" + "".join(f"q{i},d{i}\n" for i in range(20)))
    (folder / "plan.toml").write_text('[data]\ntexts = "texts.txt"\n')
    ran = hidden(RUN, *COMMANDS, folder=folder)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, tuple[object, str, str]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_works_or_names_the_extra_that_it_needs(
    line: str, told: dict[str, tuple[object, str, str]]
) -> None:
    code, out, err = told[line]
    wanted = COMMANDS[line]
    if wanted is None or wanted.startswith("nestling["):
        assert code == MissingExtraError.exit_code, code
        assert f'pip install "{wanted or "nestling["}' in err
    else:
        assert code == 0, err
        assert wanted in out


def test_every_command_is_tried() -> None:
    import typer

    from nestling.cli import app

    verbs = typer.main.get_group(app).commands
    named = {*verbs, *(f"index {verb}" for verb in verbs["index"].commands)} - {"index", "choose"}
    assert {verb for verb in named if not any(line.startswith(verb) for line in COMMANDS)} == set()
