"""Masked auto-encoding: masks by hand, losses against a plain form, a run that learns and resumes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from nestling.data.masking import IGNORED, MaskedTexts
from nestling.domains.text.pretraining import pretrain
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.nn.masked_autoencoder import MaskedAutoEncoder
from nestling.training import TrainConfig
from samples import examples

PAIRS = Nesting.parse("layer=1,2 zip dim=8,32")
TEXTS = ["abc abd cab", "a b c d e f g h", "bad cab dab abba", "feed a bee", "cabbage bead face"] * 6


@pytest.fixture
def tokenizer(tiny_bert_folder: Path):
    return transformers.AutoTokenizer.from_pretrained(tiny_bert_folder)


@pytest.fixture
def encoder(tiny_bert_folder: Path) -> TextEncoder:
    return TextEncoder(SentenceTransformer(str(tiny_bert_folder), device="cpu"), PAIRS)


@settings(max_examples=examples(40))
@given(
    seed=st.integers(0, 1000),
    rates=st.tuples(st.floats(0.05, 0.9), st.floats(0.05, 0.9)).map(sorted),
    words=st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=12),
    max_length=st.integers(12, 40),
)
def test_masks_hold_whole_words_and_the_decoder_sees_less(
    seed: int, rates: list[float], words: list[str], max_length: int, tiny_bert_folder: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert_folder)
    text = " ".join(words)
    masks = MaskedTexts(tokenizer, *rates, max_length=max_length)
    batch = masks.batch([text, "ab"], np.random.default_rng(seed))
    again = masks.batch([text, "ab"], np.random.default_rng(seed))
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert {rows.shape for rows in batch.values()} == {batch["input_ids"].shape}
    length = int(batch["attention_mask"][0].sum())
    whole = tokenizer(text)["input_ids"]
    assert length == min(len(whole), max_length)
    for prefix in ("", "decoder_"):
        shown, labels = batch[f"{prefix}input_ids"][0][:length], batch[f"{prefix}labels"][0][:length]
        told = np.where(labels == IGNORED, shown, labels)
        assert told[0] == tokenizer.cls_token_id
        assert told[-1] == tokenizer.sep_token_id
        if length == len(whole):
            assert told.tolist() == whole
            hidden = {tokenizer(text).word_ids()[place] for place in np.flatnonzero(labels != IGNORED)}
            assert None not in hidden
            every = [place for place, word in enumerate(tokenizer(text).word_ids()) if word in hidden]
            assert np.flatnonzero(labels != IGNORED).tolist() == every
    assert set(np.flatnonzero(batch["labels"][0] != IGNORED)) <= set(
        np.flatnonzero(batch["decoder_labels"][0] != IGNORED)
    )
    assert (batch["labels"] != IGNORED).any(axis=1).all()


def test_the_shares_of_masked_tokens_are_those_of_bert(tokenizer) -> None:
    text = " ".join("abcdef"[i % 6] for i in range(4000))
    batch = MaskedTexts(tokenizer, 0.5, 0.6, max_length=5000).batch([text], np.random.default_rng(0))
    chosen = batch["labels"][0] != IGNORED
    shown, labels = batch["input_ids"][0][chosen], batch["labels"][0][chosen]
    assert chosen.sum() == 2000
    assert (shown == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.04)
    assert (shown == labels).mean() == pytest.approx(0.1, abs=0.03)


def test_losses_are_those_of_all_positions_told_at_once(encoder: TextEncoder) -> None:
    transformer = encoder.model[0]
    model = MaskedAutoEncoder(transformer.auto_model, PAIRS).double().eval()
    masks = MaskedTexts(transformer.tokenizer)
    batch = {n: torch.from_numpy(x) for n, x in masks.batch(TEXTS[:5], np.random.default_rng(0)).items()}
    found = model(**batch)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    states = model.model(**given, output_hidden_states=True).hidden_states
    table = model.model.get_input_embeddings().weight

    def tell(x: torch.Tensor) -> torch.Tensor:
        dense = F.linear(x, model.dense.weight[:, : x.shape[-1]], model.dense.bias)
        return model.norm(F.gelu(dense))

    def loss(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = x @ table.T + model.bias
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    weak = copy.deepcopy(model.model)
    weak.encoder.layer = torch.nn.ModuleList([model.decoder_layer])
    for g in PAIRS:
        x = states[g["layer"]][..., : g["dim"]]
        torch.testing.assert_close(found[g][0], loss(tell(x), batch["labels"]))
        words = torch.cat([tell(x[:, :1]), table[batch["decoder_input_ids"][:, 1:]]], dim=1)
        decoded = weak(inputs_embeds=words, attention_mask=batch["attention_mask"]).last_hidden_state
        torch.testing.assert_close(found[g][1], loss(tell(decoded), batch["decoder_labels"]))


@pytest.mark.parametrize("family", ["Bert", "Roberta", "MPNet", "DistilBert"])
def test_the_head_of_a_masked_model_is_taken_over(family: str) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if family == "DistilBert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    with torch.random.fork_rng():
        config = getattr(transformers, f"{family}Config")(vocab_size=60, **sizes)
        head = getattr(transformers, f"{family}ForMaskedLM")(config).eval()
        head.get_output_embeddings().bias.data.normal_()
    model = MaskedAutoEncoder(head.base_model, PAIRS, head).eval()
    ids = torch.randint(5, 59, (2, 6), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, 2] = ids[:, 2]
    mask = torch.ones_like(ids)
    own, _ = model(ids, mask, labels, ids, labels)[PAIRS.full]
    wanted = head(input_ids=ids, attention_mask=mask, labels=labels).loss
    torch.testing.assert_close(own, wanted)


def test_a_run_learns_at_every_granularity_and_goes_on_where_it_stopped(
    encoder: TextEncoder, tiny_bert_folder: Path, tmp_path: Path
) -> None:
    config = TrainConfig(max_steps=40, batch_size=10, lr=3e-3, log_every=10, checkpoint_every=10)
    whole = copy.deepcopy(encoder)
    model = pretrain(whole, TEXTS, config, folder=tmp_path / "whole")
    log = (tmp_path / "whole" / "log.csv").read_text()
    values = {
        (metric, at): [
            float(line.rsplit(",", 1)[1])
            for line in log.splitlines()
            if f",loss@{metric}," in line and at in line
        ]
        for metric in ("masked", "decoded")
        for at in ("layer=1", "layer=2")
    }
    assert all(len(series) == 4 and series[-1] < series[0] for series in values.values())
    assert next(model.decoder_layer.parameters()).grad is None

    stopped = copy.deepcopy(encoder)
    with pytest.raises(KeyboardInterrupt):
        pretrain(stopped, _Interrupting(TEXTS, after=150), config, folder=tmp_path / "part")
    resumed = copy.deepcopy(encoder)
    pretrain(resumed, TEXTS, config, folder=tmp_path / "part")
    np.testing.assert_array_equal(whole.encode(TEXTS[:5]), resumed.encode(TEXTS[:5]))


class _Interrupting(list):
    """Texts that are interrupted when so many have been read."""

    def __init__(self, texts: list[str], after: int) -> None:
        super().__init__(texts)
        self.after = after

    def __getitem__(self, row):
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt
        return super().__getitem__(row)


def test_what_cannot_be_masked_is_refused(tokenizer, encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        MaskedTexts(tokenizer, 0.0)
    with pytest.raises(ConfigError, match="below encoder_rate"):
        MaskedTexts(tokenizer, 0.4, 0.2)
    with pytest.raises(ConfigError, match="no mask token"):
        MaskedTexts(transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer))
    with pytest.raises(DataError, match="row 1 have no words"):
        MaskedTexts(tokenizer).batch(["ab", "  "], np.random.default_rng(0))
    with pytest.raises(DataError, match="row 1 holds an int"):
        MaskedTexts(tokenizer).batch(["ab", 3], np.random.default_rng(0))
    with pytest.raises(GranularityError, match="dim and layer"):
        MaskedAutoEncoder(encoder.model[0].auto_model, Nesting.parse("dim=8,32"))
    with pytest.raises(GranularityError, match="layers 1 to 2"):
        MaskedAutoEncoder(encoder.model[0].auto_model, Nesting.parse("layer=1,3 x dim=8,32"))
