"""Commands refuse impossible requests at once: before torch is imported, and before anything is encoded."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from nestling.domains.text.collection import Collection
from nestling.encoders.text.opening import open_encoder
from nestling.granularity import Nesting
from nestling.storage.artifact import write_folder

RUN = """
import contextlib, io, json, sys
from importlib.machinery import ModuleSpec
from nestling.cli import main
class Watched:  # it may be asked whether they are installed
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "sentence_transformers", "transformers", "sklearn"):
            return ModuleSpec(name, self)
    def create_module(self, spec):
        raise AssertionError(f"{spec.name} was imported")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Watched())
def run(line):
    err, code = io.StringIO(), 0
    sys.argv = ["nestling", *line.split()]
    with contextlib.redirect_stdout(err), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            code = repr(error)
    return code, err.getvalue()
print(json.dumps({line: run(line) for line in sys.argv[1:]}))
"""

REFUSED = {
    "encode minilm none.csv -o v": "none.csv does not exist",
    "encode minilm texts.csv --column titel -o v": "titel",
    "encode minilm texts.csv -o texts.csv/v": "is no folder",
    "encode minilm texts.csv -o pairs.csv": "exists and was not written by nestling",
    "encode minilm texts.txt --at 64x -o v": "is not a granularity",
    "encode small texts.txt --at dim=100 -o v": "nearest valid granularity is dim=64",
    "encode ./none texts.txt -o v": "there is no such folder",
    "encode a/b/none texts.txt -o v": "there is no such folder",
    "encode none/model texts.txt -o v": "unknown text model",
    "train none.toml": "none.toml cannot be read",
    "train wrong.toml": "did you mean 'lr'",
    "train --pairs none.csv": "none.csv does not exist",
    "train --scored none.csv --tune encoder --no-symmetric": "none.csv does not exist",
    "train --texts none.csv": "none.csv does not exist",
    "train --docstrings none": "none does not exist",
    "train --pairs pairs.csv --encoder ./none": "there is no such folder",
    "train --pairs pairs.csv --nesting dim=x": "is not a nesting",
    "train --pairs pairs.csv --folder texts.csv": "is no folder",
    "train task.toml": "unknown task 'speach'; did you mean 'speech'?",
    "train speech.toml --pairs pairs.csv": "unknown setting 'pairs'",
    "train speech.toml": "none.wav",
    "train sound.toml --encoder llava": "a model of kind 'llava'",
    "train sound.toml --encoder ./none": "there is no such folder",
    "train pictures.toml": "can be pooled to 1, 4, 16",
    "train no-pictures.toml": "none.png",
    "train no-model.toml": "the plan has no model",
    "sweep vl --pairs pairs.csv": "give the data to measure on by --pictures FILE",
    "sweep vl --recordings none.csv": "give the data to measure on by --pictures FILE",
    "sweep vl --pictures none.csv": "none.csv does not exist",
    "sweep vl --pictures pictures.csv --bits 8": "--bits and --both-sides are for stored vectors",
    "sweep vl --pictures pictures.csv --k 3": "leave out --k and --measures",
    "sweep vl --pictures pictures.csv --nesting tokens=2": "granularity is tokens=1 or tokens=4",
    "sweep vl --pictures pictures.csv --columns image=x": "x",
    "sweep minilm --pictures pictures.csv": "--pictures is for a model that nestling train made",
    "sweep gone --pictures pictures.csv": "there is no such folder",
    "extract vl --at tokens=2 -o v": "the nearest valid granularity is tokens=1 or tokens=4",
    "extract vl --at 4 -o small": "small holds a text encoder",
    "sweep minilm --pairs none.csv": "none.csv does not exist",
    "sweep minilm --scored none.csv": "none.csv",
    "sweep minilm --beir none": "none",
    "sweep minilm": "give the data to measure on",
    "sweep ./none --pairs pairs.csv": "there is no such folder",
    "sweep minilm --pairs pairs.csv --nesting dim=x": "is not a nesting",
    "sweep minilm --pairs pairs.csv -o texts.csv": "is no folder",
    "extract ./none --at dim=8 -o v": "there is no such folder",
    "extract minilm --at 64x -o v": "is not a granularity",
    "extract minilm --at dim=64 -o texts.csv": "exists and was not written by nestling",
    "extract small --at dim=100 -o v": "nearest valid granularity is dim=64",
    "index build none.csv --encoder minilm -o v": "none.csv does not exist",
    "index build texts.csv --encoder minilm --column titel -o v": "titel",
    "index build texts.txt --encoder ./none -o v": "there is no such folder",
    "index build none.npy -o v": "none.npy does not exist",
    "index build texts.txt --encoder minilm --queries none.npy -o v": "none.npy does not exist",
    "index build texts.txt --encoder minilm --queries none.txt -o v": "none.txt does not exist",
    "index build texts.txt --encoder minilm --recall 1.5 -o v": "--recall 1.5 must be a number above 0",
    "index build texts.txt --encoder minilm --plan bogus -o v": "the stage 'bogus' cannot be read",
    "index build v.npy --recall 1.5 -o v": "--recall 1.5 must be a number above 0",
    "index add collection none.csv": "none.csv does not exist",
    "sweep collection --pairs pairs.csv": "collection holds a collection, not a text encoder",
    "extract collection --at dim=8 -o v": "collection holds a collection, not a text encoder",
    "index export collection --to lancedb://tmp/x": "a lancedb URL has three slashes",
    "index export none --to redis://tmp/x": "unknown kind of store 'redis'",
    "search none words": "there is no index at none",
    "search collection words --at dim=100": "nearest valid granularity is dim=64",
    "search collection words --point nprobe=x": "nprobe",
    "bench none.npy": "none.npy does not exist",
    "compare none.npy other.npy": "none.npy does not exist",
    "compare --layers none.toml": "none.toml cannot be read",
    "compare --layers layers.toml": "none.csv does not exist",
    "demo --pairs none.csv": "none.csv does not exist",
    "demo --encoder ./none": "there is no such folder",
    "reproduce none": "unknown paper",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, str]]:
    """Exit code and words of every command, one after the other in one process."""
    folder = tmp_path_factory.mktemp("checks")
    (folder / "texts.csv").write_text("title,year\nread a file,2001\n")
    (folder / "texts.txt").write_text("read a file\n")
    (folder / "pairs.csv").write_text("query,document\n" + "".join(f"q{i},d{i}\n" for i in range(20)))
    (folder / "wrong.toml").write_text("[train]\nlearning_rate = 0.1\n")
    (folder / "layers.toml").write_text('[model]\nencoder = "minilm"\n[data]\ntexts = "none.csv"\n')
    (folder / "task.toml").write_text('task = "speach"\n')
    (folder / "speech.csv").write_text("audio,text\nnone.wav,hello\n")
    (folder / "speech.toml").write_text('task = "speech"\n[data]\nrecordings = "speech.csv"\n')
    with wave.open(str(folder / "0.wav"), "wb") as sound:
        sound.setparams((1, 2, 8_000, 0, "NONE", ""))
        sound.writeframes(bytes(1_600))
    (folder / "sound.csv").write_text("audio,text\n0.wav,hello\n")
    (folder / "sound.toml").write_text('task = "speech"\n[data]\nrecordings = "sound.csv"\n')
    (folder / "llava").mkdir()
    vision = {"image_size": 16, "patch_size": 4}
    (folder / "llava" / "config.json").write_text(
        json.dumps({"model_type": "llava", "vision_config": vision})
    )
    (folder / "0.png").write_bytes(b"opened later")
    for name, picture in (("pictures", "0.png"), ("no-pictures", "none.png")):
        (folder / f"{name}.csv").write_text(f"image,question,answer\n{picture},what,this\n")
        (folder / f"{name}.toml").write_text(
            f'task = "vision-language"\n[data]\npictures = "{name}.csv"\n'
            '[model]\nbase = "llava"\ntokens = [9]\n'
        )
    (folder / "no-model.toml").write_text('task = "vision-language"\n[data]\npictures = "pictures.csv"\n')
    for name, base in (("vl", "llava"), ("gone", "./none")):
        settings = {"prompt": "", "base": base}
        with write_folder(folder / name, "answerer", nesting=Nesting.parse("tokens=1,4"), settings=settings):
            pass
    encoder = open_encoder("wordllama").extract("dim=64")
    encoder.save(folder / "small")
    Collection.create(
        folder / "collection",
        encoder,
        ["read a file", "sort a list"],
        plan="flat@full",
    ).close()
    command = [sys.executable, "-c", RUN, *REFUSED]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert not (folder / "v").exists()
    found: dict[str, tuple[object, str]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_said_before_torch_is_imported(
    line: str, told: dict[str, tuple[object, str]]
) -> None:
    code, words = told[line]
    assert code in (1, 3), (code, words)
    assert REFUSED[line] in words


def test_a_collection_of_static_vectors_is_searched_and_filled_without_torch(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("read a file\nsort a list\nplay a song\n")
    lines = (
        "encode wordllama texts.txt --at dim=64 -o v.npy",
        "index build texts.txt --encoder wordllama --plan flat@full -o made",
        "index add made texts.txt",
        "search made music --k 1",
        "extract wordllama --at dim=64 -o small",
    )
    command = [sys.executable, "-c", RUN, *lines]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    told = json.loads(ran.stdout)
    assert [code for code, _ in told.values()] == [0] * len(lines), told
    assert "play a song" in told["search made music --k 1"][1]
