"""Plans of fidelity: encoders, layers, vector files, pairs; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.domains.fidelity import measure_fidelity, read_fidelity_plan
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.measure import Fidelity, sweep

TEXTS = [
    f"a {thing} in the {place}"
    for thing in ("cat", "dog", "car")
    for place in ("garden", "city", "forest", "sea")
]


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*TEXTS, TEXTS[0]]) + "\n", encoding="utf-8")
    return path


def test_sizes_of_an_encoder(tmp_path: Path, texts: Path) -> None:
    plan = read_fidelity_plan(
        write(
            tmp_path,
            f'[model]\nencoder = "wordllama"\nnesting = "dim=8..256"\n[data]\ntexts = "{texts}"\n'
            "[fidelity]\nk = 3\nresamples = 20\nseed = 2\n[fidelity.thresholds]\nnear = [0, 0.2]\n",
        )
    )
    report = measure_fidelity(plan)
    assert report.layers == ()
    assert report.curve.metrics == ("near", "neighbours@3")
    assert report.curve.examples == 12  # a text that is repeated counts once
    encoder = TextEncoder.open("wordllama", device="cpu")
    task = Fidelity(TEXTS, thresholds={"near": (0, 0.2)}, k=3, seed=2)
    expected = sweep(encoder, task, Nesting.parse("dim=8..256"), resamples=20, seed=2)
    assert [row.value for row in report.curve.rows] == [row.value for row in expected.rows]


def test_layers_and_dims_of_an_encoder(tmp_path: Path, texts: Path, tiny_bert_folder: Path) -> None:
    model = f'[model]\nencoder = "{tiny_bert_folder}"\nnesting = "layer=1,2 x dim=8,32"\n'
    plan = write(tmp_path, f'{model}[data]\ntexts = "{texts}"\n[fidelity]\nk = 3\nresamples = 20\n')
    curve = measure_fidelity(read_fidelity_plan(plan)).curve
    assert curve.nesting == Nesting.parse("layer=1,2 x dim=8,32")
    assert curve.row().value == pytest.approx(1)
    assert curve.row("layer=1,dim=32").value < 1


def test_named_layers_of_an_encoder(tmp_path: Path, texts: Path, tiny_bert_folder: Path) -> None:
    named = f'[model]\nencoder = "{tiny_bert_folder}"\nlayers = ["0.*.embeddings", "0.*.encoder.layer.*"]\n'
    plan = write(tmp_path, f'{named}[data]\ntexts = "{texts}"\n[fidelity]\nk = 3\nresamples = 20\n')
    report = measure_fidelity(read_fidelity_plan(plan))
    assert [name.rpartition("model.")[2] for name in report.layers] == [
        "embeddings", "encoder.layer.0", "encoder.layer.1",
    ]  # fmt: skip
    values = [row.value for row in report.curve.column()]
    assert values[0] < values[1] < values[2] == pytest.approx(1)


def test_vectors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32))
    plan = write(tmp_path, f'[model]\nvectors = "{path}"\n[fidelity]\nresamples = 20\nlimit = 30\n')
    curve = measure_fidelity(read_fidelity_plan(plan)).curve
    assert curve.examples == 30
    assert str(curve.nesting) == "dim=8,16"


def test_pairs_and_docstrings_give_texts(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    rows = [f"what is number {n},the text of document {n}" for n in range(20)]
    pairs.write_text("\n".join(["query,document", *rows]) + "\n", encoding="utf-8")
    plan = read_fidelity_plan(write(tmp_path, f'[data]\npairs = "{pairs}"\n'))
    assert plan.data.read() == [f"the text of document {n}" for n in range(20)]
    source = tmp_path / "package"
    source.mkdir()
    nouns = ("area", "colour", "height", "weight", "title", "author", "length", "order", "age")
    functions = [
        f'def get_{noun}(thing):\n    """Look up the {noun} of a thing by its number.\n\n    It is read '
        f'from the file of the {noun} that was opened first, and kept.\n    """\n'
        for noun in nouns
    ]
    (source / "module.py").write_text("\n".join(functions), encoding="utf-8")
    plan = read_fidelity_plan(write(tmp_path, f'[data]\ndocstrings = "{source}"\n'))
    assert len(plan.data.read()) == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model\n", "is not TOML"),
        ("[modle]\n", "did you mean 'model'"),
        ("[model]\nencodr = 'x'\n", "did you mean 'encoder'"),
        ("[model]\nlimit = 3\n", r"'limit' is a key of \[fidelity\]"),
        ("model = 3\n", "must be a table"),
        ("[model]\nvectors = 'a.npy'\nencoder = 'minilm'\n", "give one of them"),
        ("[model]\nvectors = 'a.npy'\n[data]\ntexts = 'x'\n", "leave out"),
        ("[model]\nlayers = ['a']\nnesting = 'dim=8'\n", "leave out layers, or nesting and vectors"),
        ("[model]\nlayers = []\n", r"\[model\] layers"),
        ("[model]\npool = 'mean'\n", "give layers too"),
        ("[model]\nlayers = ['a']\npool = 'middle'\n", r"\[model\] pool.*'middle'"),
        ("[model]\nnesting = 'dims'\n", "is not a nesting"),
        ("[data]\ntexts = 'a'\npairs = 'b'\n", "give one source"),
        ("[fidelity]\nk = 'many'\n", r"\[fidelity\] k"),
        ("[fidelity]\nresamples = 0\n", r"\[fidelity\] resamples"),
    ],
)
def test_plans_that_cannot_be_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_fidelity_plan(write(tmp_path, text))


def test_what_a_plan_names_must_be_there(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_fidelity_plan(tmp_path / "none.toml")
    plan = write(tmp_path, f'[model]\nlayers = ["0.embeddings"]\n[data]\ntexts = "{texts}"\n')
    with pytest.raises(ConfigError, match=r"no layer is called '0\.embeddings'; near are '0\.embedding'"):
        measure_fidelity(read_fidelity_plan(plan))
    with pytest.raises(DataError, match=r"none\.npy does not exist"):
        measure_fidelity(read_fidelity_plan(write(tmp_path, '[model]\nvectors = "none.npy"\n')))
