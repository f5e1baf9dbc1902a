"""Static encoders without torch: the laws, and the same vectors and folders as with torch."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    LayerNorm,
    Normalize,
    StaticEmbedding,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from nestling.cut import RAW, CutRule
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.opening import open_encoder
from nestling.encoders.text.static.encoder import StaticEncoder
from nestling.encoders.text.static.layers import ACTIVATIONS
from nestling.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    GranularityError,
    MissingExtraError,
    UntrainedGranularityWarning,
)
from nestling.granularity import Granularity, Nesting
from nestling.testing import check_elastic
from nestling.vectors.stored import StoredVectors

TEXTS = ["read a csv file", "the cat sat on the mat while the dog ran", "cat", "sort a list of numbers"]
WIDTH = 16


def embedding(dtype=np.float32):
    """Vectors of letters; a text without a letter has no tokens."""
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(ascii_lowercase)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.random.default_rng(0).normal(size=(len(ascii_lowercase), WIDTH)).astype(dtype)
    return StaticEmbedding(tokenizer, embedding_weights=table)


def dense(inputs, outputs, activation=None, bias=True, **settings):
    torch.manual_seed(outputs)
    return Dense(inputs, outputs, bias=bias, activation_function=activation, **settings)


def layer_norm():
    module = LayerNorm(WIDTH)
    torch.manual_seed(3)
    nn.init.normal_(module.norm.weight)
    nn.init.normal_(module.norm.bias)
    return module


KINDS = {
    "table": ([], None, "dim=4,8,16"),
    "normalised": ([Normalize()], None, "dim=4,16"),
    "narrower": ([Normalize()], None, "dim=4,8"),
    "raw": ([], RAW, "dim=4,16"),
    "layer-norm": ([layer_norm()], CutRule("layer_norm", "l2"), "dim=4,16"),
    "normalised-and-not-cut-by-l2": ([Normalize()], RAW, "dim=4,16"),
    "normalised-first": ([Normalize(), dense(16, 12, bias=False)], None, "dim=4,12"),
    "adapter": ([dense(16, 40, nn.GELU()), dense(40, 12, bias=False), Normalize()], None, "dim=4,8,12"),
    **{
        name: ([dense(16, 12, getattr(nn, name)()), Normalize()], None, "dim=8,12")
        for name in ("Identity", "Tanh", "ReLU", "Sigmoid", "GELU")
    },
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def stock(kind):
    return SentenceTransformer(modules=[embedding(), *KINDS[kind][0]], device="cpu")


def text_encoder(kind):
    _, rule, nesting = KINDS[kind]
    return TextEncoder(stock(kind), Nesting.parse(nesting), rule)


@pytest.fixture
def both(kind, tmp_path):
    """The same model with torch and without."""
    text_encoder(kind).save(tmp_path / "model")
    return TextEncoder.load(tmp_path / "model"), open_encoder(tmp_path / "model")


def test_it_keeps_the_laws(both):
    static = both[1]
    assert isinstance(static, StaticEncoder)
    check_elastic(static, TEXTS, counted=[(static, "_tokens")])


def test_views_are_the_vectors_that_torch_has_before_the_cut(both):
    with_torch, static = both
    whole = Granularity()
    with torch.no_grad():
        expected = with_torch.views(TEXTS)[whole].numpy()
    np.testing.assert_allclose(static.views(TEXTS)[whole], expected, atol=1e-5)  # float32, another order
    with pytest.raises(GranularityError, match="has no axis layer, so it has no view at layer=2"):
        static.views(TEXTS, [Granularity(layer=2)])


def test_it_gives_the_vectors_that_torch_gives(both):
    with_torch, static = both
    assert (static.nesting, static.rule) == (with_torch.nesting, with_torch.rule)
    for g, found in static.encode_each(TEXTS).items():
        assert found.dtype == np.float32
        # Some roundings of float32, of entries of about one.
        np.testing.assert_allclose(found, with_torch.encode(TEXTS, at=g), atol=2e-6)
        np.testing.assert_allclose(found, static.encode(TEXTS, at=g, batch_size=1), atol=1e-6)


def test_what_it_saves_is_read_by_torch_and_by_plain_sentence_transformers(both, tmp_path):
    with_torch, static = both
    smallest = static.nesting[0]
    static.extract(smallest).save(tmp_path / "small")
    expected = with_torch.encode(TEXTS, at=smallest)
    again = TextEncoder.load(tmp_path / "small")
    assert again.nesting == static.nesting.up_to(smallest)
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=2e-6)
    plain = SentenceTransformer(str(tmp_path / "small"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(plain.encode(TEXTS), expected, atol=2e-6)
    declared = json.loads((tmp_path / "small" / "config.json").read_text())["matryoshka_dimensions"]
    assert declared == [smallest["dim"]]


def test_a_saved_folder_holds_what_torch_would_save(kind, both, tmp_path):
    static = both[1]
    static.save(tmp_path / "again")
    files = {path.relative_to(tmp_path / "again").as_posix() for path in (tmp_path / "again").rglob("*")}
    assert files == {
        path.relative_to(tmp_path / "model").as_posix() for path in (tmp_path / "model").rglob("*")
    }
    modules = [json.loads((tmp_path / name / "modules.json").read_text()) for name in ("model", "again")]
    assert modules[0] == modules[1]


def test_its_costs_are_those_with_torch_but_for_columns_that_are_not_read(both):
    with_torch, static = both
    for g in static.nesting:
        ours, theirs = static.cost(g), with_torch.cost(g)
        assert ours.output_bytes == theirs.output_bytes
        assert ours.flops <= theirs.flops
        assert ours.size_bytes == theirs.size_bytes
        assert ours.parameters == theirs.parameters
    assert static.cost().flops == with_torch.cost().flops


@pytest.mark.parametrize(
    "modules",
    [
        [dense(16, 16, use_residual=True)],
        [dense(16, 12, nn.Softmax(dim=-1))],
        [dense(16, 16, module_output_name="other")],
    ],
    ids=["residual", "softmax", "another-output"],
)
def test_what_needs_torch_is_opened_with_torch(modules, tmp_path):
    SentenceTransformer(modules=[embedding(), *modules], device="cpu").save(str(tmp_path / "model"))
    assert isinstance(open_encoder(tmp_path / "model"), TextEncoder)


def test_a_transformer_is_opened_with_torch(tiny_bert_folder):
    assert isinstance(open_encoder(tiny_bert_folder, Nesting.parse("dim=8,32")), TextEncoder)


def test_a_folder_that_nestling_did_not_save_is_read_as_torch_reads_it(tmp_path):
    stock("adapter").save(str(tmp_path / "model"))
    static, with_torch = open_encoder(tmp_path / "model"), TextEncoder.open(tmp_path / "model")
    assert isinstance(static, StaticEncoder)
    assert (static.nesting, static.rule) == (with_torch.nesting, with_torch.rule)
    np.testing.assert_allclose(static.encode(TEXTS), with_torch.encode(TEXTS), atol=2e-6)
    with pytest.warns(UntrainedGranularityWarning, match="plain truncation") as caught:
        static.encode(TEXTS, at=8)
    assert caught[0].filename == __file__
    normalised = stock("adapter").encode(TEXTS)
    known = open_encoder(tmp_path / "model", Nesting.parse("dim=6,12"), RAW)
    np.testing.assert_allclose(known.encode(TEXTS, at=6), normalised[:, :6], atol=2e-6)


def test_half_floats_are_summed_as_floats(tmp_path):
    SentenceTransformer(modules=[embedding(np.float16)], device="cpu").save(str(tmp_path / "model"))
    table = embedding(np.float16).embedding.weight.detach().numpy().astype(np.float32)
    static = open_encoder(tmp_path / "model", rule=RAW)
    tokens = static.parts.tokenizer.encode(TEXTS[1]).ids
    np.testing.assert_allclose(static.encode(TEXTS)[1], table[tokens].mean(axis=0), rtol=1e-6, atol=1e-6)


def test_a_table_of_model2vec_is_folded_as_sentence_transformers_folds_it(tmp_path):
    from safetensors.numpy import save_file

    stock("table").save(str(tmp_path / "model"))
    rng = np.random.default_rng(0)
    tokens = embedding().num_embeddings
    folded = {
        "embeddings": rng.normal(size=(5, 8)).astype(np.float32),
        "mapping": rng.integers(5, size=tokens),
        "weights": rng.random(tokens).astype(np.float32),
    }
    save_file(folded, tmp_path / "model" / "model.safetensors")
    expected = TextEncoder.open(tmp_path / "model").encode(TEXTS)
    np.testing.assert_allclose(open_encoder(tmp_path / "model").encode(TEXTS), expected, atol=2e-6)


def test_prompts_are_those_of_the_model(tmp_path):
    model = SentenceTransformer(
        modules=[embedding()], device="cpu", prompts={"query": "cat ", "other": "dog "}
    )
    sizes = Nesting.parse("dim=8,16")
    model.save(str(tmp_path / "model"))
    static = open_encoder(tmp_path / "model", sizes, RAW)
    for name in ("query", "other"):
        expected = model.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(static.encode(TEXTS, prompt_name=name), expected, atol=2e-6)
    np.testing.assert_array_equal(
        static.encode(TEXTS, prompt="dog "), static.encode(TEXTS, prompt_name="other")
    )
    model.default_prompt_name = "other"
    model.save(str(tmp_path / "other"))
    other = open_encoder(tmp_path / "other", sizes, RAW)
    np.testing.assert_allclose(other(TEXTS), model.encode(TEXTS), atol=2e-6)
    assert other.extract(8).default_prompt_name == "other"
    assert other.fingerprint() != static.fingerprint()
    with pytest.raises(ConfigError, match="did you mean 'query'"):
        static.encode(TEXTS, prompt_name="qery")


@pytest.fixture
def static(tmp_path):
    text_encoder("table").save(tmp_path / "model")
    return open_encoder(tmp_path / "model")


def test_texts_that_have_no_vector_are_named(static):
    with pytest.raises(DataError, match=r"2 rows \(11, 13\) of the texts have no tokens"):
        static.encode(["cat", "1", "dog", "?"], first_row=10)
    with pytest.raises(DataError, match="blank in row 1"):
        static.encode(["cat", " "])
    with pytest.raises(DataError, match="write"):
        static.encode("cat")
    with pytest.raises(ConfigError, match="batch_size"):
        static.encode(["cat"], batch_size=0)


def test_the_row_is_named_that_stands_in_a_later_batch(static):
    with pytest.raises(DataError, match="row 3 of the texts"):
        static.encode(["cat", "cat", "cat", "1"], batch_size=2)


def test_nestings_that_do_not_fit_are_refused(static, tmp_path):
    with pytest.raises(GranularityError, match="the axis dim, not layer"):
        open_encoder(tmp_path / "model", Nesting.parse("layer=1,2 x dim=4,8"))
    with pytest.raises(GranularityError, match="vectors has 16; end it at 16"):
        open_encoder(tmp_path / "model", Nesting.parse("dim=4,32"))
    with pytest.raises(GranularityError, match="dim=8"):
        static.encode(["cat"], at=9)


def test_a_torn_folder_is_refused(static, tmp_path):
    with (tmp_path / "model" / "model.safetensors").open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(ArtifactError, match="truncated or altered"):
        open_encoder(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_named(name, tmp_path):
    stock("table").save(str(tmp_path / "model"))
    (tmp_path / "model" / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"model.*cannot be read"):
        open_encoder(tmp_path / "model")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    stock("table").save(str(tmp_path / "model"))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"nestling\[static\]"):
        open_encoder(tmp_path / "model")


def test_a_long_text_takes_no_more_memory_than_its_tokens(static):
    long = "cat dog " * 200_000
    static.encode([long])
    tracemalloc.start()
    found = static.encode([long])
    assert tracemalloc.get_traced_memory()[1] < 50e6  # the vectors of its tokens would take 26 MB each way
    tracemalloc.stop()
    np.testing.assert_allclose(found, static.encode(["cat dog"]), atol=1e-4)


def test_the_activations_are_those_of_torch():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-20]]).astype(np.float32)
    for name, ours in ACTIVATIONS.items():
        exact = getattr(nn, name)()(torch.from_numpy(x.astype(np.float64))).numpy()
        # The error function is right to 1.2e-7; what is below 1e-7 comes from a sum with one.
        np.testing.assert_allclose(ours(x), exact, rtol=2e-6, atol=1e-7)


def test_wordllama_is_encoded_without_torch(tmp_path):
    code = (
        "import sys; from nestling.encoders.text.opening import open_encoder\n"
        "encoder = open_encoder('wordllama')\n"
        "encoder.extract('dim=64').save('small')\n"
        "print(open_encoder('small').encode(['read a csv file']).sum(), 'torch' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    total, torch_was_imported = told.stdout.split()
    assert torch_was_imported == "False"
    expected = TextEncoder.open("wordllama").encode(["read a csv file"], at=64)
    assert float(total) == pytest.approx(float(expected.sum()), abs=1e-4)


def test_the_code_of_a_saved_model_knows_where_it_was_opened(tmp_path: Path) -> None:
    """So that the vectors of another model are refused, and those of a moved one are not."""
    encoder = open_encoder("wordllama").extract("dim=64")
    draw = np.random.default_rng(0)
    encoder.rule = encoder.rule.calibrated(draw.normal(size=(300, 64)))
    encoder.save(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "moved")
    name = str(tmp_path / "moved")
    rule, vectors = open_encoder(name).rule, draw.normal(size=(300, 64))
    assert rule == encoder.rule
    for same in (name, "", "sha256:" + 64 * "0"):
        StoredVectors(vectors, "dim=64", rule, encoder=same)
    with pytest.raises(DataError, match="moved', and these are of 'minilm'"):
        StoredVectors(vectors, "dim=64", rule, encoder="minilm")
