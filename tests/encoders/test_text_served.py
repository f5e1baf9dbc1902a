"""Vectors of inference servers from saved text encoders, against plain readers that follow their sources."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, Pooling
from torch import nn
from transformers import AutoModel, AutoTokenizer

from nestling.cut import RAW, CutRule
from nestling.encoders.maps import PCARotation
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.serving_compatibility import Served, in_words, served_by
from nestling.errors import ServingWarning
from nestling.granularity import Nesting

TEXTS = ["read a csv file", "the cat sat on the mat", "x", "a long text " * 12]
OLD = "sentence_transformers.models."


class StopsError(Exception):
    """The server does not start."""


def tokens(folder, max_length):
    """Hidden states and mask of the texts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer(TEXTS, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state, given["attention_mask"]


def pooled(hidden, mask, mode):
    if mode == "CLS":
        return hidden[:, 0]
    if mode == "LAST":
        return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def through(x, folder, dense, activations):
    """One Dense, of which a server reads matrix, bias and activation."""
    config = json.loads((folder / dense / "config.json").read_text())
    weights = load_file(folder / dense / "model.safetensors")
    y = nn.functional.linear(x, weights["linear.weight"], weights["linear.bias"] if config["bias"] else None)
    name = config["activation_function"].removeprefix("torch.nn.modules.").rpartition(".")[2]
    if name not in activations:
        raise KeyError(name)
    return activations[name](y)


def text_embeddings_inference(folder, *, normalize=True):
    """As TEI reads a folder (July 2026): router/src/lib.rs, backends/src/lib.rs, models/dense.rs."""
    assert (folder / "tokenizer.json").is_file()
    about = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert all(isinstance(prompt, str) for prompt in about["prompts"].values())
    config = json.loads((folder / "config.json").read_text())
    assert all(config[key] for key in ("architectures", "model_type", "max_position_embeddings"))
    length = json.loads((folder / "sentence_bert_config.json").read_text()).get("max_seq_length")
    assert type(length) is int
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    required = ("pooling_mode_cls_token", "pooling_mode_mean_tokens")  # PoolConfig
    if not all(key in pooling for key in required):
        raise StopsError
    modes = dict(zip([*required, "pooling_mode_lasttoken"], ["CLS", "MEAN", "LAST"], strict=True))
    mode = next((modes[key] for key in modes if pooling.get(key)), None)
    if mode is None:
        raise StopsError
    x = pooled(*tokens(folder, length), mode)
    modules = json.loads((folder / "modules.json").read_text())
    known = [OLD + kind for kind in ("Dense", "Normalize", "Pooling", "Transformer")]  # ModuleType
    if all(module["type"] in known for module in modules):  # else a warning, and no Dense is read
        for module in modules:
            if module["type"] == OLD + "Dense":
                try:
                    x = through(x, folder, module["path"], {"Tanh": torch.tanh, "Identity": lambda y: y})
                except KeyError as error:
                    raise StopsError from error
    return (nn.functional.normalize(x) if normalize else x).numpy()  # infer.rs


def vllm(folder, **_):
    """As vLLM reads one (0.24): get_pooling_config, try_get_dense_modules, EmbeddingPoolerHead."""
    length = json.loads((folder / "sentence_bert_config.json").read_text())
    assert {"max_seq_length", "do_lower_case"} <= length.keys()
    modules = json.loads((folder / "modules.json").read_text())
    kinds = [module["type"].removeprefix(OLD) for module in modules]
    path = folder / modules[kinds.index("Pooling")]["path"] / "config.json"
    mode = "CLS"  # the fallback of its BERT
    for key, value in json.loads(path.read_text()).items():
        named = value if key == "pooling_mode" and isinstance(value, str) else key if value is True else ""
        found = named.removeprefix("pooling_mode_").split("_")[0].replace("lasttoken", "last").upper()
        mode = found if found in ("CLS", "MEAN", "LAST") else mode
    whole = x = pooled(*tokens(folder, length["max_seq_length"]), mode)
    activations = {"Identity": nn.Identity(), "Tanh": nn.Tanh(), "ReLU": nn.ReLU(), "GELU": nn.GELU()}
    activations |= {"SiLU": nn.SiLU(), "Sigmoid": nn.Sigmoid()}
    try:
        for kind, module in zip(kinds, modules, strict=True):
            x = through(x, folder, module["path"], activations) if kind == "Dense" else x
    except (KeyError, RuntimeError):  # "ST projector loading failed", and it serves without
        x = whole
    return (nn.functional.normalize(x) if "Normalize" in kinds else x).numpy()


SERVERS = {"TEI": text_embeddings_inference, "vLLM": vllm}


@pytest.fixture
def bert(bert):
    """Its states have neither mean zero nor length one, so that nothing may be left out unseen."""
    bert.max_seq_length = 24
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for weight in bert[0].auto_model.encoder.layer[-1].output.LayerNorm.parameters():
            weight.normal_(0.5)
    return bert


def dense(width=16, *, bias=False, activation=None, residual=False, inputs=32):
    with torch.random.fork_rng():
        torch.manual_seed(width)
        made = Dense(inputs, width, bias, activation, use_residual=residual)
        for weight in made.parameters():
            nn.init.normal_(weight, std=0.3)
    return made


L2 = CutRule()
# modules after the transformer, rule, and what TEI and vLLM make of it
CHAINS = {
    "mean": ([Pooling(32, "mean")], L2, "same same"),
    "cls": ([Pooling(32, "cls")], L2, "same same"),
    "last": ([Pooling(32, "lasttoken")], L2, "same same"),
    "raw": ([Pooling(32, "mean")], RAW, "same same"),
    "max": ([Pooling(32, "max")], L2, "none other"),
    "weighted": ([Pooling(32, "weightedmean")], L2, "none other"),
    "two poolings": ([Pooling(32, ("cls", "mean"))], L2, "none other"),
    "root": ([Pooling(32, "mean_sqrt_len_tokens")], L2, "none same"),
    "root, raw": ([Pooling(32, "mean_sqrt_len_tokens")], RAW, "none other"),
    "root, bias": ([Pooling(32, "mean_sqrt_len_tokens"), dense(bias=True)], L2, "none other"),
    "linear": ([Pooling(32), dense()], L2, "same same"),
    "tanh": ([Pooling(32), dense(bias=True, activation=nn.Tanh())], L2, "same same"),
    "gelu": ([Pooling(32), dense(bias=True, activation=nn.GELU())], L2, "none same"),
    "elu": ([Pooling(32), dense(activation=nn.ELU())], L2, "none other"),
    "two": ([Pooling(32), dense(24), dense(16, inputs=24)], L2, "same same"),
    "unit, linear": ([Pooling(32), Normalize(), dense()], L2, "same same"),
    "unit, relu": ([Pooling(32), Normalize(), dense(activation=nn.ReLU())], L2, "none same"),
    "unit, bias": ([Pooling(32), Normalize(), dense(bias=True)], L2, "other other"),
    "unit, tanh": ([Pooling(32), Normalize(), dense(activation=nn.Tanh())], L2, "other other"),
    "unit, raw": ([Pooling(32), Normalize(), dense()], RAW, "other other"),
    "residual": ([Pooling(32), dense(residual=True)], L2, "other other"),
    "layer norm": ([Pooling(32)], CutRule("layer_norm"), "other other"),
    "layer norm, linear": ([Pooling(32), LayerNorm(32), dense()], L2, "other other"),
}


@pytest.mark.parametrize("name", CHAINS)
def test_servers_give_what_served_by_says(name, bert, tmp_path):
    modules, rule, expected = CHAINS[name]
    model = SentenceTransformer(modules=[bert[0], *modules], device="cpu")
    encoder = TextEncoder(model, Nesting.chain(dim=(8, model.get_embedding_dimension())), rule)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ServingWarning)
        encoder.save(tmp_path / "e")
    served = served_by(tmp_path / "e")
    assert " ".join(each.vectors for each in served) == expected
    assert bool([w for w in caught if w.category is ServingWarning]) == ("other" in expected)
    whole = encoder.encode(TEXTS)
    stock = SentenceTransformer(str(tmp_path / "e"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(stock.encode(TEXTS), whole, atol=1e-6)
    for each in served:
        asked = '"normalize": false' not in each.reason
        if each.vectors == "none":
            with pytest.raises(StopsError):
                SERVERS[each.server](tmp_path / "e", normalize=asked)
            continue
        found = SERVERS[each.server](tmp_path / "e", normalize=asked)
        # Rounding of float32 in other orders lies near 1e-6; what is left out shows from 1e-3 on.
        same = found.shape == whole.shape and np.abs(found - whole).max() < 1e-5 * np.abs(whole).max()
        assert same == (each.vectors == "same"), each
        if found.shape == whole.shape and not same:
            assert np.abs(found - whole).max() > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize("dim", [8, 24])
def test_a_layer_norm_becomes_part_of_a_cut_and_is_served(dim, bert, tmp_path):
    encoder = TextEncoder(bert, Nesting.chain(dim=(8, 24, 32)), CutRule("layer_norm"))
    encoder.extract(dim).save(tmp_path / "small")  # no warning
    for serve in SERVERS.values():
        np.testing.assert_allclose(serve(tmp_path / "small"), encoder.encode(TEXTS, at=dim), atol=1e-5)


def test_the_form_for_servers_changes_no_bit(bert, tmp_path):
    encoder = TextEncoder(bert, Nesting.chain(dim=(8, 32)))
    encoder.save(tmp_path / "ours")
    SentenceTransformer(modules=[*bert, Normalize()], device="cpu").save(
        str(tmp_path / "theirs"), create_model_card=False
    )
    ours, theirs = (
        SentenceTransformer(str(tmp_path / name), device="cpu", local_files_only=True)
        for name in ("ours", "theirs")
    )
    assert np.array_equal(ours.encode(TEXTS), theirs.encode(TEXTS))
    assert ours.max_seq_length == theirs.max_seq_length == 24
    tei, other = served_by(tmp_path / "theirs")
    assert (tei.vectors, other.vectors) == ("none", "same")
    assert "form of TEI" in tei.reason


def test_a_centred_rotation_is_told_and_a_plain_one_is_served(bert, tmp_path):
    plain = TextEncoder(bert, Nesting.chain(dim=(8, 32)))
    words = [f"{a} {b}" for a in ("cat", "dog", "csv", "list", "mat", "sat") for b in "abcdefgh"]
    vectors = plain.encode(words)
    straight = plain.with_adapter(PCARotation("dim=8,32", center=False).fit(vectors))
    straight.save(tmp_path / "straight")
    for serve in SERVERS.values():
        np.testing.assert_allclose(serve(tmp_path / "straight"), straight.encode(TEXTS), atol=1e-5)
    centred = plain.with_adapter(PCARotation("dim=8,32", center=True).fit(vectors))
    with pytest.warns(ServingWarning, match="TEI and vLLM: other vectors .a Normalize before a bias"):
        centred.save(tmp_path / "centred")
    cosines = (vllm(tmp_path / "centred") * centred.encode(TEXTS)).sum(1)
    assert cosines.min() < 0.99


def test_prompts_are_asked_for(bert, tmp_path):
    prompts = {"query": "find ", "document": ""}
    model = SentenceTransformer(modules=[*bert], device="cpu", prompts=prompts, default_prompt_name="query")
    TextEncoder(model, Nesting.chain(dim=(8, 32)), L2).save(tmp_path / "asked")
    reason = "with the prompt 'query' before texts"
    assert served_by(tmp_path / "asked") == (Served("TEI", "same", reason), Served("vLLM", "same", reason))
    model[1].include_prompt = False
    with pytest.warns(ServingWarning, match="tokens of prompts are pooled"):
        TextEncoder(model, Nesting.chain(dim=(8, 32)), L2).save(tmp_path / "left")


def test_static_vectors_are_not_served(tmp_path):
    TextEncoder.open("wordllama", device="cpu").extract(64).save(tmp_path / "words")  # and nobody is warned
    said = in_words(served_by(tmp_path / "words"))
    assert said.startswith("TEI and vLLM: not served")
    assert "StaticEmbedding" in said


def test_positions_that_padding_takes_are_not_promised(tiny_bert_folder, tmp_path):
    from transformers import XLMRobertaConfig, XLMRobertaModel

    size = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
    config = XLMRobertaConfig(vocab_size=64, max_position_embeddings=66, pad_token_id=1, **size)
    XLMRobertaModel(config).save_pretrained(tmp_path / "roberta")
    AutoTokenizer.from_pretrained(tiny_bert_folder, model_max_length=66).save_pretrained(tmp_path / "roberta")
    encoder = TextEncoder.open(tmp_path / "roberta", Nesting.chain(dim=(8, 32)), device="cpu")
    encoder.save(tmp_path / "e")
    assert json.loads((tmp_path / "e" / "sentence_bert_config.json").read_text())["max_seq_length"] == 64
