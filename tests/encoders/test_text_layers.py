"""Text encoders cut in layers and dims: the laws, exactly so many layers, stock exports, files that lie."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

from nestling.cut import RAW, CutRule
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.nn.early_exit import LayerStack
from nestling.testing import check_elastic
from samples import letters

TEXTS = ["read a csv file into an array", "x", "sort a list of numbers in place", "a quick brown fox"]
GRID = Nesting.parse("layer=1,2,4 x dim=8,32")
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "Bert": SIZES,
    "MPNet": SIZES,
    "DistilBert": {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64},
    "ModernBert": SIZES,
    "Llama": GROUPED,
    "Qwen3": GROUPED,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of each family with four layers, saved for transformers."""
    tokenizer, found = letters(), {}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    for family, sizes in FAMILIES.items():
        config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **sizes, **ids)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(transformers, f"{family}Model")(config)
        for name, weight in model.named_parameters():  # a norm of ones would hide that it is missing
            if "norm" in name.lower() and weight.ndim == 1:
                weight.data.add_(torch.linspace(0, 1, len(weight)))
        found[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(found[family])
        tokenizer.save_pretrained(found[family])
    return found


def encoder_of(
    folder: Path, nesting: Nesting = GRID, rule: CutRule | None = None, pooling: str = "mean"
) -> TextEncoder:
    transformer = Transformer(str(folder))
    width = transformer.get_embedding_dimension()
    model = SentenceTransformer(modules=[transformer, Pooling(width, pooling)], device="cpu")
    return TextEncoder(model, nesting, CutRule() if rule is None else rule)


@contextmanager
def counted_layers(encoder: TextEncoder) -> Iterator[list[int]]:
    calls: list[int] = []
    layers = LayerStack(encoder.model[0].auto_model).layers
    hooks = [
        layer.register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, layer in enumerate(layers, 1)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_laws(family: str, folders: dict[str, Path]) -> None:
    nesting = GRID if family == "Bert" else Nesting.parse("layer=2,4 zip dim=8,32")
    check_elastic(encoder_of(folders[family], nesting), TEXTS, tolerance=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "lasttoken", "weightedmean", "max"])
def test_every_pooling_sees_the_layer_that_is_asked_for(pooling: str, folders: dict[str, Path]) -> None:
    encoder = encoder_of(folders["Qwen3"], rule=RAW, pooling=pooling)
    each = encoder.forward_each(TEXTS)
    for g in GRID:
        stock = encoder.extract(g).model.encode(TEXTS)
        np.testing.assert_allclose(each[g].detach().numpy(), stock, atol=1e-6)


def test_exactly_so_many_layers_run(folders: dict[str, Path]) -> None:
    encoder = encoder_of(folders["Bert"])
    for depth in (1, 2, 4):
        with counted_layers(encoder) as calls:
            encoder(TEXTS, at={"layer": depth, "dim": 8})
        assert calls == list(range(1, depth + 1))
        with counted_layers(encoder) as calls:
            encoder.encode(TEXTS, {"layer": depth}, batch_size=2)
        assert calls == 2 * list(range(1, depth + 1))
    with counted_layers(encoder) as calls:
        encoder.forward_each(TEXTS, ["layer=1,dim=8", "layer=2,dim=8", "layer=2,dim=32"])
    assert calls == [1, 2]


def test_the_layers_of_a_training_step_come_from_one_pass(folders: dict[str, Path]) -> None:
    encoder = encoder_of(folders["ModernBert"], rule=RAW)
    with counted_layers(encoder) as calls:
        views = encoder.views(TEXTS, [Granularity(layer=depth) for depth in (1, 2, 4)])
    assert calls == [1, 2, 3, 4]
    for rest, vectors in views.items():
        torch.testing.assert_close(vectors, encoder(TEXTS, at=rest))
    torch.testing.assert_close(encoder.views(TEXTS)[Granularity()], views[Granularity(layer=4)])
    torch.stack(list(views.values())).sum().backward()
    assert next(encoder.model[0].auto_model.layers[0].parameters()).grad is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extract_is_a_stock_model_of_fewer_layers(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = encoder_of(folders[family])
    wanted = encoder.encode(TEXTS, "layer=2,dim=8")
    encoder.extract("layer=2,dim=8").save(tmp_path / "small")
    stock = SentenceTransformer(str(tmp_path / "small"), device="cpu", trust_remote_code=False)
    np.testing.assert_allclose(stock.encode(TEXTS), wanted, atol=1e-6)
    assert stock[0].auto_model.config.num_hidden_layers == len(LayerStack(stock[0].auto_model)) == 2
    plain = transformers.AutoModel.from_pretrained(tmp_path / "small")
    assert len(LayerStack(plain)) == 2
    with safe_open(tmp_path / "small" / "model.safetensors", "numpy") as weights:
        names = list(weights.keys())
    assert names
    assert not any(f".{layer}." in name for name in names for layer in (2, 3))
    assert encoder.model[0].auto_model.config.num_hidden_layers == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_layers_that_are_asked_for_are_loaded(
    family: str, folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = encoder_of(folders[family])
    encoder.save(tmp_path / "whole")
    loaded = TextEncoder.load(tmp_path / "whole", at="layer=2,dim=8")
    assert loaded.nesting == Nesting.parse("layer=1,2 x dim=8")
    np.testing.assert_allclose(loaded.encode(TEXTS), encoder.encode(TEXTS, "layer=2,dim=8"), atol=1e-6)
    assert loaded.cost().parameters == encoder.cost("layer=2,dim=8").parameters
    assert sum(p.numel() for p in loaded.parameters()) == loaded.cost().parameters
    assert "UNEXPECTED" not in caplog.text


def test_a_dense_and_a_normalisation_follow_every_layer(folders: dict[str, Path]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = Dense(32, 16)
    transformer = Transformer(str(folders["Bert"]))
    modules = [transformer, Pooling(32, "mean"), dense, Normalize()]
    nesting = Nesting.parse("layer=1,3,4 x dim=4,16")
    encoder = TextEncoder(SentenceTransformer(modules=modules, device="cpu"), nesting)
    check_elastic(encoder, TEXTS, tolerance=1e-6)


def test_threads_may_use_different_depths_at_once(folders: dict[str, Path]) -> None:
    encoder, found = encoder_of(folders["MPNet"]), {}
    wanted = {g: encoder.encode(TEXTS, g) for g in GRID}

    def use(g) -> None:
        found[g] = [encoder.encode(TEXTS, g) for _ in range(5)]

    threads = [threading.Thread(target=use, args=(g,)) for g in GRID]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for g in GRID:
        for each in found[g]:
            np.testing.assert_allclose(each, wanted[g], atol=1e-6)


def test_real_minilm_keeps_the_laws_and_is_cut_as_the_full_pass_gives_it() -> None:
    encoder = TextEncoder.open("minilm", Nesting.parse("layer=1,3,6 x dim=64,384"))
    plain = TextEncoder.open("minilm", Nesting.parse("dim=64,384"))
    np.testing.assert_allclose(encoder.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)
    for g in ("layer=1,dim=64", "layer=3,dim=384"):
        np.testing.assert_allclose(encoder.extract(g).encode(TEXTS), encoder.encode(TEXTS, g), atol=1e-6)
    flops = [encoder.cost({"layer": depth}).flops for depth in (1, 3, 6)]
    assert flops[2] == pytest.approx(6 * flops[0], rel=0.02)
    check_elastic(encoder, TEXTS, tolerance=1e-6)


def test_a_config_that_says_more_layers_than_there_are_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for family in ("Bert", "DistilBert", "Llama"):
        stock = encoder_of(folders[family]).extract("layer=2,dim=32").model
        stock.save(str(tmp_path / family), create_model_card=False)
        path = tmp_path / family / "config.json"
        config = json.loads(path.read_text())
        name = "n_layers" if family == "DistilBert" else "num_hidden_layers"
        assert config[name] == 2
        path.write_text(json.dumps({**config, name: 4, "layer_types": None}))
        with pytest.raises(DataError, match="says 4 layers, but its weights are of 2"):
            TextEncoder.open(tmp_path / family)


def test_what_cannot_be_cut_in_layers_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(GranularityError, match="the text encoder has 4; end it at 4"):
        encoder_of(folders["Bert"], Nesting.parse("layer=2,5 x dim=8,32"))
    with pytest.raises(ConfigError, match="StaticEmbedding, which has no layers"):
        TextEncoder.open("wordllama", Nesting.parse("layer=1,2 x dim=8,32"))
    encoder = encoder_of(folders["Bert"])
    with pytest.raises(
        GranularityError, match="nearest valid granularity is dim=32,layer=2 or dim=32,layer=4"
    ):
        encoder(TEXTS, at="layer=3")
    with pytest.raises(GranularityError, match="layers 1 to 4"):
        encoder.views(TEXTS, [Granularity(layer=5)])
    with pytest.raises(GranularityError, match="the axis layer, not tokens"):
        encoder.views(TEXTS, [Granularity(tokens=5)])
    with pytest.raises(GranularityError, match="add dim, in full"):
        encoder_of(folders["Bert"], Nesting.parse("layer=1,2"))
