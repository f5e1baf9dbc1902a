"""Nested losses in a real run of sentence-transformers' trainer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer import losses as st
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers

from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Nesting
from nestling.losses import AlignScores, CoSENT, InfoNCE, Nested
from nestling.losses.bridge import NestedLoss

KINDS = ["cat", "dog", "bird", "fish", "car", "train", "boat", "plane", "sun", "moon", "rain", "snow"]
DOING = ["sleeps", "runs", "waits", "shines", "moves", "stays"]
WORDS = ["the", "a", "is", *KINDS, *DOING]
NESTING = Nesting.parse("dim=4,16,32")


def pairs(count=96):
    """A question and its answer share the kind of thing they are about."""
    generator = np.random.default_rng(0)
    kinds = [KINDS[i] for i in generator.integers(len(KINDS), size=count)]
    return {
        "anchor": [f"the {kind} {generator.choice(DOING)}" for kind in kinds],
        "positive": [f"{generator.choice(DOING)} is a {kind}" for kind in kinds],
    }


def static_model():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    table = np.random.default_rng(0).normal(size=(len(WORDS), 32)).astype(np.float32)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu")


@pytest.fixture
def train(tmp_path):
    def run(model, loss, data, steps=8, **settings):
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=steps,
            per_device_train_batch_size=12,
            learning_rate=settings.pop("learning_rate", 5e-3),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=4,
            seed=0,
            **settings,
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_dict(data), loss=loss
        )
        trainer.train()
        return trainer

    return run


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("kind", ["static", "bert"])
def test_a_trained_model_is_better_at_every_size_and_loads_plainly(kind, bert, train, tmp_path):
    model, data = (static_model() if kind == "static" else bert), pairs()
    encoder = TextEncoder(model, NESTING)

    def found(at):
        """Share of anchors whose nearest positive is about the same kind of thing."""
        u, v = (encoder.encode(data[column], at=at) for column in ("anchor", "positive"))
        about = np.array([text.split()[1] for text in data["anchor"]])
        return (about[(u @ v.T).argmax(1)] == about).mean()

    before = {g: found(g) for g in NESTING}
    loss = NestedLoss(model, st.MultipleNegativesRankingLoss(model), list(NESTING.sizes("dim")))
    trainer = train(model, loss, data, steps=40, learning_rate=2e-2 if kind == "static" else 5e-3)
    assert losses_of(trainer)[-1] < 0.8 * losses_of(trainer)[0]
    assert all(found(g) > before[g] for g in NESTING)

    trainer.save_model(str(tmp_path / "by-trainer"))
    encoder.save(tmp_path / "by-us")
    texts = data["anchor"][:8]
    by_trainer = SentenceTransformer(str(tmp_path / "by-trainer"), device="cpu", local_files_only=True)
    by_us = SentenceTransformer(str(tmp_path / "by-us"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(
        by_trainer.encode(texts, normalize_embeddings=True), by_us.encode(texts), atol=1e-6
    )
    np.testing.assert_allclose(by_us.encode(texts), encoder.encode(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "labelled"),
    [
        (lambda model: st.CoSENTLoss(model), True),
        (lambda model: st.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4), False),
        (lambda model: InfoNCE(learn_temperature=True), False),
        (lambda model: CoSENT(), True),
    ],
    ids=["CoSENTLoss", "cached", "InfoNCE", "CoSENT"],
)
def test_the_trainer_takes_losses_of_both_houses(make, labelled, bert, train):
    data = pairs(24)
    if labelled:
        data["score"] = np.linspace(0, 1, 24).tolist()
    base = make(bert)
    loss = NestedLoss(bert, base, NESTING)
    before = [weight.detach().clone() for weight in loss.parameters()]
    trainer = train(bert, loss, data)
    assert all(np.isfinite(losses_of(trainer)))
    changed = [not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    if isinstance(base, InfoNCE):
        assert base.temperature != pytest.approx(0.05, abs=1e-6)


def test_the_run_equals_that_with_matryoshka_loss(train, tiny_bert_folder):
    """Step for step, on a loss of cosines: the same weights, to the float32 of eight steps of Adam."""
    found = {}
    for wrap in (st.MatryoshkaLoss, NestedLoss):
        model = SentenceTransformer(str(tiny_bert_folder), device="cpu", local_files_only=True)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loss = wrap(model, st.CoSENTLoss(model), [32, 16, 4], [1, 1, 2])
        data = pairs(24) | {"score": np.linspace(0, 1, 24).tolist()}
        trainer = train(model, loss, data, learning_rate=1e-4)
        found[wrap] = losses_of(trainer)
    np.testing.assert_allclose(found[NestedLoss], found[st.MatryoshkaLoss], rtol=1e-3)


def test_the_model_card_tells_of_the_loss(bert, train, tmp_path):
    loss = NestedLoss(bert, st.MultipleNegativesRankingLoss(bert), NESTING)
    trainer = train(bert, loss, pairs(24), steps=2)
    card = trainer.model.model_card_data
    assert any("2205.13147" in citation for citation in card.citations.values())
    assert any("NestedLoss" in names for names in card.citations)


@pytest.mark.parametrize("cached", [False, True])
def test_layers_are_trained_by_the_trainer_from_one_pass(cached, bert, train):
    data, nesting = pairs(), Nesting.parse("layer=1,2 zip dim=8,32")
    encoder = TextEncoder(bert, nesting)
    kind = st.CachedMultipleNegativesRankingLoss if cached else st.MultipleNegativesRankingLoss
    base = kind(bert, mini_batch_size=5) if cached else kind(bert)
    calls = []
    hook = bert[0].auto_model.encoder.layer[0].register_forward_hook(lambda *_: calls.append(1))
    loss = NestedLoss(bert, base, nesting, align=AlignScores())
    value = loss([bert.preprocess(data[column][:5]) for column in ("anchor", "positive")])
    hook.remove()
    assert len(calls) == 2  # once a column, whatever the layers
    columns = [encoder.views(data[column][:5], nesting.rests) for column in ("anchor", "positive")]
    wanted = Nested(InfoNCE(1 / 20), nesting, align=AlignScores())(*columns)
    torch.testing.assert_close(value, wanted)
    trainer = train(bert, loss, data, steps=30)
    assert losses_of(trainer)[-1] < 0.9 * losses_of(trainer)[0]


def test_losses_for_texts_see_every_layer(bert):
    nesting = Nesting.parse("layer=1,2 x dim=8,32")
    features = [bert.eval().preprocess(pairs()[column][:6]) for column in ("anchor", "positive")]
    scores = torch.linspace(0, 1, 6)
    value = NestedLoss(bert, st.CoSENTLoss(bert), nesting)(features, scores)
    columns = [
        TextEncoder(bert, nesting).views(pairs()[c][:6], nesting.rests) for c in ("anchor", "positive")
    ]
    wanted = Nested(CoSENT(), nesting)(*columns, scores=scores)
    torch.testing.assert_close(value, wanted)
