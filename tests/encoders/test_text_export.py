"""Saved text encoders: verified by us, loaded by plain sentence-transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch import nn

from nestling.cut import RAW, CutRule
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ArtifactError, ConfigError, UntrainedGranularityWarning
from nestling.granularity import Nesting

TEXTS = ["read a csv file into an array", "the cat sat on the mat", "x", "sort a list of numbers"]


def encoders(bert):
    yield TextEncoder(bert, Nesting.parse("dim=4,16,32"))
    modules = [*bert, Normalize()]
    yield TextEncoder(SentenceTransformer(modules=modules, device="cpu"), Nesting.parse("dim=4,16"))
    rule = CutRule("layer_norm", "l2")
    yield TextEncoder(bert, Nesting.parse("dim=4,16,32"), rule)
    yield TextEncoder(bert, Nesting.parse("dim=4,16,32"), RAW)


def load_plainly(folder):
    """As somebody does who has never heard of nestling; nothing in the folder may ask for more."""
    kinds = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    assert all(kind.startswith("sentence_transformers.") for kind in kinds)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt"}
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def assert_loads_plainly(encoder, folder):
    """The full model and every granularity extracted from it."""
    for g in encoder.nesting:
        small = encoder.extract(g)
        small.save(folder / str(g))
        plain = load_plainly(folder / str(g))
        np.testing.assert_allclose(plain.encode(TEXTS), encoder.encode(TEXTS, at=g), atol=1e-6)
        config = json.loads((folder / str(g) / "config.json").read_text())
        assert config["is_matryoshka"] is True
        assert config["matryoshka_dimensions"] == [h["dim"] for h in encoder.nesting if h <= g]
        assert plain.get_embedding_dimension() == g["dim"]
    encoder.save(folder / "whole")
    plain = load_plainly(folder / "whole")
    np.testing.assert_allclose(plain.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


@pytest.mark.filterwarnings("ignore::nestling.errors.ServingWarning")
@pytest.mark.parametrize("kind", range(4), ids=["pooled", "narrow", "layer-norm", "raw"])
def test_bert_loads_plainly_at_every_granularity(kind, bert, tmp_path):
    assert_loads_plainly(list(encoders(bert))[kind], tmp_path)


def test_wordllama_loads_plainly_at_every_granularity(tmp_path):
    assert_loads_plainly(TextEncoder.open("wordllama", device="cpu"), tmp_path)
    sizes = [(tmp_path / f"dim={dim}" / "model.safetensors").stat().st_size for dim in (64, 128, 256)]
    assert np.allclose(np.divide(sizes[1:], sizes[:-1]), 2, atol=1e-3)


def test_minilm_loads_plainly_at_every_granularity(tmp_path):
    encoder = TextEncoder.open("minilm", Nesting.parse("dim=32,384"), device="cpu")
    assert_loads_plainly(encoder, tmp_path)


def test_prompts_and_similarity_travel(bert, tmp_path):
    model = SentenceTransformer(
        modules=[*bert], device="cpu", prompts={"query": "find: "}, similarity_fn_name="dot"
    )
    TextEncoder(model, Nesting.parse("dim=8,32")).extract(8).save(tmp_path / "small")
    plain = load_plainly(tmp_path / "small")
    assert plain.prompts["query"] == "find: "
    assert plain.similarity_fn_name == "dot"
    assert TextEncoder.load(tmp_path / "small", device="cpu").rule == RAW


def test_saved_loaded_and_saved_again_changes_nothing(bert, tmp_path):
    encoder = TextEncoder(bert, Nesting.parse("dim=4,16"), CutRule("layer_norm", "l2"))
    for turn in range(3):
        encoder.save(tmp_path / str(turn))
        again = TextEncoder.open(tmp_path / str(turn), device="cpu")
        assert again.nesting == encoder.nesting
        for g in encoder.nesting:
            np.testing.assert_allclose(again.encode(TEXTS, at=g), encoder.encode(TEXTS, at=g), atol=1e-6)
        encoder = again
    assert len(encoder.model) == len(bert) + 1  # a slice that centres, and not three of them


def test_open_takes_another_nesting_for_a_saved_encoder(bert, tmp_path):
    TextEncoder(bert, Nesting.parse("dim=8,32")).save(tmp_path / "e")
    encoder = TextEncoder.open(tmp_path / "e", Nesting.parse("dim=4,8,16,32"), device="cpu")
    assert encoder.nesting.sizes("dim") == (4, 8, 16, 32)


def test_an_assumed_nesting_is_not_declared_to_others(bert, tmp_path):
    TextEncoder(bert).save(tmp_path / "e")
    assert "is_matryoshka" not in json.loads((tmp_path / "e" / "config.json").read_text())
    encoder = TextEncoder.load(tmp_path / "e", device="cpu")
    with pytest.warns(UntrainedGranularityWarning):
        encoder.encode(TEXTS, at=8)


def test_sizes_declared_on_disk_are_read_by_open(bert, tmp_path):
    encoder = TextEncoder(bert, Nesting.parse("dim=4,16,32"))
    encoder.save(tmp_path / "e")
    (tmp_path / "e" / "nestling.json").unlink()  # as if another tool had written the folder
    assert TextEncoder.open(tmp_path / "e", device="cpu").nesting == encoder.nesting
    static = TextEncoder.open("wordllama", device="cpu").extract(64)
    static.save(tmp_path / "s")
    (tmp_path / "s" / "nestling.json").unlink()
    again = TextEncoder.open(tmp_path / "s", device="cpu")
    assert (again.nesting, again.nesting_is_assumed) == (static.nesting, False)


def test_what_was_altered_is_refused_before_anybody_reads_it(bert, tmp_path, monkeypatch):
    TextEncoder(bert, Nesting.parse("dim=8,32")).save(tmp_path / "e")
    weights = tmp_path / "e" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(
        "nestling.encoders.text.encoder.read_model", lambda *_: pytest.fail("read before verified")
    )
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not the file that was saved"):
        TextEncoder.open(tmp_path / "e")


class Foreign(nn.Module):
    def forward(self, features):
        return features


def test_what_plain_sentence_transformers_would_not_load_is_not_saved(bert, tmp_path):
    def save(*modules):
        model = SentenceTransformer(modules=[*bert, *modules], device="cpu")
        TextEncoder(model, Nesting.parse("dim=8,32")).save(tmp_path / "e")

    with pytest.raises(ConfigError, match=r"Foreign .* not a module of sentence-transformers"):
        save(Foreign())
    # Its slope would come back as the default one, and the vectors with it.
    with pytest.raises(ConfigError, match="keeps only the class of an activation"):
        save(Dense(32, 32, activation_function=nn.LeakyReLU(0.3)))
    with pytest.raises(ConfigError, match="keeps only the class"):
        save(Dense(32, 32, activation_function=torch.tanh))
    assert not (tmp_path / "e").exists()
    save(Dense(32, 32, activation_function=nn.Tanh()))


def test_a_trained_encoder_is_saved_as_it_is_now(bert, tmp_path):
    encoder = TextEncoder(bert, Nesting.parse("dim=8,32")).train()
    before = encoder.encode(TEXTS)
    encoder(TEXTS, at=8).sum().backward()
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    encoder.save(tmp_path / "e")
    after = TextEncoder.load(tmp_path / "e", device="cpu").encode(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, encoder.encode(TEXTS), atol=1e-6)
