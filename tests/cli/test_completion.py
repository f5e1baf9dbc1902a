"""Completion by Tab, in a real bash and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "files"

COMPLETED = {
    "": "demo train encode sweep choose compare extract search bench reproduce data index",
    "train --dr": "--draw --draw-count --drop-last",
    "train --draw ": "every random_some sandwich random_prefix cross",
    "encode ": "wordllama minilm",
    "reproduce mrl --claims C1,C17,C1": "C1,C17,C10 C1,C17,C11",
    f"search {GOLDEN}/index-flat --at ": "4 8",
    f"choose {GOLDEN}/curve.json --metric r": "recall@10",
    "index info none": "",  # so the shell completes names of files
}

SCRIPT = """
eval "$(nestling --show-completion)"
while IFS= read -r line; do
    read -ra words <<< "nestling $line"
    [[ -z "$line" || "$line" == *" " ]] && words+=("")
    COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1)) COMPREPLY=()
    _nestling_completion nestling
    echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Completions by bash for each line; an import of torch would end the command."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
    }
    told = subprocess.run(
        ["bash", "--norc", "-c", SCRIPT],
        input="".join(f"{line}\n" for line in COMPLETED),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert told.stderr == ""
    return dict(zip(COMPLETED, told.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("line", COMPLETED)
def test_a_word_is_completed(line: str, completed: dict[str, str]) -> None:
    found, wanted = completed[line].split(), COMPLETED[line].split()
    assert found[: len(wanted)] == wanted if "claims" in line else found == wanted
