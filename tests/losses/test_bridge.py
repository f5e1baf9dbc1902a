"""The bridge to sentence-transformers: its losses, nested, equal MatryoshkaLoss; its trainer runs them."""

from __future__ import annotations

import copy

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses as st
from sentence_transformers.sentence_transformer.modules import Dense
from torch import nn

from nestling.cut import CutRule
from nestling.errors import ConfigError, DataError, GranularityError, UntrainedGranularityWarning
from nestling.granularity import Nesting
from nestling.losses import (
    AnglE,
    CoSENT,
    CosineRegression,
    CrossEntropy,
    InfoNCE,
    Nested,
    Triplet,
)
from nestling.losses.bridge import NestedLoss
from nestling.nn.heads import NestedClassifier

ANCHORS = ["a cat sat", "a dog ran", "the sun is up", "read a csv", "sort it"]
POSITIVES = ["the cat", "a running dog", "bright day today", "load table from file", "put in order"]
NEGATIVES = ["x y z", "a big house", "football", "numpy array", "shuffle"]
SCORES = torch.tensor([0.9, 0.2, 0.5, 0.1, 0.5])
BINARY = torch.tensor([1, 0, 1, 0, 1])
CLASSES = torch.tensor([0, 0, 1, 1, 1])
DIMS, WEIGHTS = [32, 16, 4], [1.0, 2.0, 0.5]
PAIRS, TRIPLES, TEXTS = (ANCHORS, POSITIVES), (ANCHORS, POSITIVES, NEGATIVES), (ANCHORS,)


@pytest.fixture
def model(tiny_bert_folder):
    return SentenceTransformer(str(tiny_bert_folder), device="cpu", local_files_only=True).eval()


def features(model, columns):
    return [model.preprocess(column) for column in columns]


def value_and_gradient(loss, model, columns, labels):
    model.zero_grad()
    value = loss(features(model, columns), labels)
    value.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return value.detach(), torch.cat(gradients)


def all_directions(model):
    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    return st.MultipleNegativesRankingLoss(model, directions=directions)


def both_ways(model, kind=st.MultipleNegativesRankingLoss, **settings):
    directions = ("query_to_doc", "doc_to_query")
    return kind(model, directions=directions, partition_mode="per_direction", **settings)


COSINE_LOSSES = {
    "MNRL": (st.MultipleNegativesRankingLoss, TRIPLES, None),
    "MNRL-scale": (lambda m: st.MultipleNegativesRankingLoss(m, scale=7), PAIRS, None),
    "MNRL-both-ways": (both_ways, PAIRS, None),
    "MNRL-both-ways-negatives": (both_ways, TRIPLES, None),
    "MNRL-all-directions": (all_directions, PAIRS, None),
    "MNRL-hardness": (
        lambda m: st.MultipleNegativesRankingLoss(m, hardness_mode="all_negatives", hardness_strength=3.0),
        TRIPLES,
        None,
    ),
    "Cached": (lambda m: st.CachedMultipleNegativesRankingLoss(m, mini_batch_size=2), TRIPLES, None),
    "Cached-both-ways": (
        lambda m: both_ways(m, st.CachedMultipleNegativesRankingLoss, mini_batch_size=3),
        PAIRS,
        None,
    ),
    "CoSENT": (st.CoSENTLoss, PAIRS, SCORES),
    "AnglE": (st.AnglELoss, PAIRS, SCORES),
    "CosineSimilarity": (st.CosineSimilarityLoss, PAIRS, SCORES),
    "Triplet": (
        lambda m: st.TripletLoss(m, distance_metric=st.TripletDistanceMetric.COSINE, triplet_margin=0.5),
        TRIPLES,
        None,
    ),
    "Contrastive": (st.ContrastiveLoss, PAIRS, BINARY),
    "OnlineContrastive": (st.OnlineContrastiveLoss, PAIRS, BINARY),
    "GIST": (lambda m: st.GISTEmbedLoss(m, copy.deepcopy(m)), TRIPLES, None),
    "MegaBatchMargin": (
        lambda m: st.MegaBatchMarginLoss(m, use_mini_batched_version=False),
        PAIRS,
        None,
    ),
    "MegaBatchMargin-cached": (lambda m: st.MegaBatchMarginLoss(m, mini_batch_size=2), PAIRS, None),
}
LENGTH_LOSSES = {
    "Triplet-euclidean": (st.TripletLoss, TRIPLES, None),
    "BatchAll": (st.BatchAllTripletLoss, TEXTS, CLASSES),
    "BatchHard": (st.BatchHardTripletLoss, TEXTS, CLASSES),
    "BatchHardSoft": (st.BatchHardSoftMarginTripletLoss, TEXTS, CLASSES),
    "BatchSemiHard": (st.BatchSemiHardTripletLoss, TEXTS, CLASSES),
    "MarginMSE": (st.MarginMSELoss, TRIPLES, SCORES),
    "DistillKL": (st.DistillKLDivLoss, TRIPLES, torch.linspace(-1, 1, 10).view(5, 2)),
    "dot": (
        lambda m: st.MultipleNegativesRankingLoss(m, scale=1, similarity_fct=lambda a, b: a @ b.T),
        PAIRS,
        None,
    ),
}


def compare(make, columns, labels, model, rule):
    theirs = st.MatryoshkaLoss(model, make(model), DIMS, WEIGHTS)
    value, gradient = value_and_gradient(theirs, model, columns, labels)
    ours = NestedLoss(model, make(model), DIMS, WEIGHTS, **rule)
    again, slope = value_and_gradient(ours, model, columns, labels)
    torch.testing.assert_close(again, value, rtol=1e-5, atol=1e-5)
    # Float32 through the layers of the encoder, and sums in another order.
    assert (slope - gradient).norm() <= 1e-4 * gradient.norm()


@pytest.mark.parametrize("name", COSINE_LOSSES)
def test_losses_of_cosines_equal_those_of_matryoshka_loss(name, model):
    compare(*COSINE_LOSSES[name], model, {})


@pytest.mark.parametrize("name", [*COSINE_LOSSES, *LENGTH_LOSSES])
def test_with_the_rule_of_matryoshka_loss_all_losses_equal_its(name, model):
    compare(*(COSINE_LOSSES | LENGTH_LOSSES)[name], model, {"rule": CutRule()})


@pytest.mark.parametrize("name", LENGTH_LOSSES)
def test_by_default_lengths_are_left_to_the_loss(name, model):
    make, columns, labels = LENGTH_LOSSES[name]
    embeddings = [model(column)["sentence_embedding"] for column in features(model, columns)]

    class Prefix(nn.Module):
        def forward(self, given):
            return given

    expected = 0.0
    for dim, weight in zip(DIMS, WEIGHTS, strict=True):
        loss = make(model)
        for slot in ("model", "sentence_embedder"):
            if hasattr(loss, slot):
                setattr(loss, slot, Prefix())
        given = [{"sentence_embedding": embedding[:, :dim]} for embedding in embeddings]
        expected = expected + weight * loss(given, labels)
    nested = NestedLoss(model, make(model), DIMS, WEIGHTS)(features(model, columns), labels)
    torch.testing.assert_close(nested, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 32), (5, 2, 32)])
def test_labels_that_are_embeddings_are_cut_by_the_same_rule(shape, model):
    labels = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    columns = PAIRS if len(shape) == 3 else TEXTS
    embeddings = [model(column)["sentence_embedding"] for column in features(model, columns)]
    targets = labels.unbind(1) if len(shape) == 3 else [labels]
    normalise = nn.functional.normalize
    for rule, after in (({}, lambda x: x), ({"rule": CutRule()}, lambda x: normalise(x, dim=-1))):
        expected = sum(
            weight
            * torch.stack(
                [
                    nn.functional.mse_loss(after(x[:, :dim]), after(y[:, :dim]))
                    for x, y in zip(embeddings, targets, strict=True)
                ]
            ).mean()
            for dim, weight in zip(DIMS, WEIGHTS, strict=True)
        )
        loss = NestedLoss(model, st.MSELoss(model), DIMS, WEIGHTS, **rule)
        torch.testing.assert_close(loss(features(model, columns), labels), expected)


def test_losses_made_of_losses_and_losses_in_parts(model):
    class Both(nn.Module):
        """As the documentation of sentence-transformers composes them."""

        def __init__(self, model):
            super().__init__()
            self.model = model
            self.first = st.MultipleNegativesRankingLoss(model)
            self.second = st.GlobalOrthogonalRegularizationLoss(model)

        def forward(self, sentence_features, labels=None):
            found = [self.model(column)["sentence_embedding"] for column in sentence_features]
            parts = self.second.compute_loss_from_embeddings(found, labels)
            return {"first": self.first.compute_loss_from_embeddings(found, labels), **parts}

    nested = NestedLoss(model, Both(model), DIMS, WEIGHTS)(features(model, PAIRS))
    embeddings = [model(column)["sentence_embedding"] for column in features(model, PAIRS)]
    expected = 0.0
    for dim, weight in zip(DIMS, WEIGHTS, strict=True):
        prefixes = [x[:, :dim] for x in embeddings]
        first = st.MultipleNegativesRankingLoss(model).compute_loss_from_embeddings(prefixes, None)
        second = st.GlobalOrthogonalRegularizationLoss(model).compute_loss_from_embeddings(prefixes)
        expected = expected + weight * (first + sum(second.values()))
    torch.testing.assert_close(nested, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["MNRL", "CoSENT", "GIST", "BatchHard", "MNRL-all-directions"])
def test_each_column_is_encoded_once_and_nothing_is_patched(name, model):
    make, columns, labels = (COSINE_LOSSES | LENGTH_LOSSES)[name]
    base = make(model)
    loss = NestedLoss(model, base, DIMS)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    batch = features(model, columns)
    keys, state = [set(column) for column in batch], dict(vars(base))
    loss(batch, labels)
    assert len(calls) == len(columns)
    assert [set(column) for column in batch] == keys
    assert "forward" not in vars(model)
    assert dict(vars(base)) == state


@pytest.mark.parametrize("name", COSINE_LOSSES)
def test_losses_that_are_infonce_get_all_sizes_at_once(name, model, monkeypatch):
    make, columns, labels = COSINE_LOSSES[name]
    calls, original = [], InfoNCE.prefix_losses
    monkeypatch.setattr(InfoNCE, "prefix_losses", lambda *a, **k: (calls.append(name), original(*a, **k))[1])
    NestedLoss(model, make(model), DIMS)(features(model, columns), labels)
    fast = {"MNRL", "MNRL-scale", "MNRL-both-ways", "MNRL-both-ways-negatives", "Cached", "Cached-both-ways"}
    assert bool(calls) == (name in fast)


def test_an_exception_in_the_loss_leaves_the_model_as_it_was(model):
    loss = NestedLoss(model, st.CoSENTLoss(model), DIMS)
    with pytest.raises(ValueError, match="labels"):
        loss(features(model, PAIRS), SCORES[:2])
    value = loss(features(model, PAIRS), SCORES)
    compare(*COSINE_LOSSES["CoSENT"], model, {})
    torch.testing.assert_close(value, loss(features(model, PAIRS), SCORES))


def test_cached_losses_encode_a_chunk_at_a_time(model):
    loss = NestedLoss(model, st.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2), DIMS)
    sizes = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0]["input_ids"])))
    loss(features(model, PAIRS)).backward()
    assert max(sizes) == 2
    with torch.no_grad():
        plain = NestedLoss(model, st.MultipleNegativesRankingLoss(model), DIMS)(features(model, PAIRS))
        torch.testing.assert_close(loss(features(model, PAIRS)), plain, rtol=1e-5, atol=1e-5)


def test_weights_of_the_loss_itself_are_trained_and_not_copied(model):
    class Scaled(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.scale = model, nn.Parameter(torch.tensor(3.0))

        def forward(self, sentence_features, labels):
            a, b = (self.model(column)["sentence_embedding"] for column in sentence_features)
            return self.scale * (a - b).square().mean()

    base = Scaled(model)
    loss = NestedLoss(model, base, DIMS)
    loss(features(model, PAIRS)).backward()
    assert base.scale.grad.abs() > 0
    assert sum(parameter is base.scale for parameter in loss.parameters()) == 1


OURS = {
    "InfoNCE": (lambda: InfoNCE(temperature=0.1), TRIPLES, None, None),
    "CoSENT": (CoSENT, PAIRS, SCORES, "scores"),
    "AnglE": (AnglE, PAIRS, SCORES, "scores"),
    "CosineRegression": (CosineRegression, PAIRS, SCORES, "scores"),
    "Triplet": (Triplet, TRIPLES, None, None),
}


@pytest.mark.parametrize("name", OURS)
def test_our_losses_take_the_place_of_theirs(name, model):
    make, columns, labels, argument = OURS[name]
    embeddings = [model(column)["sentence_embedding"] for column in features(model, columns)]
    nesting = Nesting.parse("dim=4,16,32")
    rest = {} if labels is None else {argument: labels}
    expected = Nested(make(), nesting, weights=WEIGHTS[::-1])(*embeddings, **rest)
    nested = NestedLoss(model, make(), DIMS, WEIGHTS)(features(model, columns), labels)
    torch.testing.assert_close(nested, expected)


def test_a_classifier_and_any_function_take_labels(model):
    nesting = Nesting.parse("dim=4,16,32")
    head = NestedClassifier(nesting, 2)
    loss = NestedLoss(model, CrossEntropy(head), nesting)
    loss(features(model, TEXTS), CLASSES).backward()
    assert all(weight.grad is not None for weight in head.parameters())

    def distance(a, b, labels):
        return (labels * (a - b).square().sum(1)).mean()

    assert NestedLoss(model, distance, nesting)(features(model, PAIRS), BINARY) > 0


def test_our_losses_refuse_labels_they_have_no_use_for(model):
    with pytest.raises(DataError, match="remove that column"):
        NestedLoss(model, InfoNCE(), DIMS)(features(model, PAIRS), SCORES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: st.MatryoshkaLoss(m, st.CoSENTLoss(m), DIMS), "the loss inside it"),
        (lambda m: NestedLoss(m, st.CoSENTLoss(m), DIMS), "the loss inside it"),
        (lambda m: Nested(CoSENT(), Nesting.parse("dim=32")), "the loss inside it"),
        (lambda m: st.SoftmaxLoss(m, num_labels=3, embedding_dimension=32), "CoSENTLoss"),
        (st.ContrastiveTensionLoss, "MultipleNegativesRankingLoss"),
        (lambda m: st.CachedGISTEmbedLoss(m, copy.deepcopy(m)), "GISTEmbedLoss"),
        (lambda m: st.EmbedDistillLoss(m, projection_dim=64), "no projection_dim"),
        (
            lambda m: st.CachedMultipleNegativesRankingLoss(m, mini_batch_num_tokens=100),
            "set mini_batch_size",
        ),
        (lambda m: st.CoSENTLoss(copy.deepcopy(m)), "made for another model"),
    ],
)
def test_losses_that_cannot_be_nested_name_what_to_use(make, message, model):
    loss = make(model)
    with pytest.raises(ConfigError, match=message):
        NestedLoss(model, loss, DIMS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), GranularityError, "names no size"),
        (([16, 16],), GranularityError, "without repeats"),
        (([0, 16],), GranularityError, "at least 1"),
        (([16, 64],), GranularityError, "the model has 32; end it at 32"),
        (([16, 32], [1.0]), ConfigError, "1 matryoshka_weights are given for 2"),
        (([16, 32], [1.0, -1.0]), ConfigError, "at least 0"),
        (([16, 32], None, 0), ConfigError, "n_dims_per_step"),
    ],
)
def test_sizes_and_weights_that_do_not_fit_are_refused(arguments, error, message, model):
    with pytest.raises(error, match=message):
        NestedLoss(model, st.CoSENTLoss(model), *arguments)


def test_a_nesting_without_the_full_size_warns(model):
    loss = NestedLoss(model, st.CoSENTLoss(model), [4, 16])
    with pytest.warns(UntrainedGranularityWarning, match="32 dims"):
        loss(features(model, PAIRS), SCORES)


def test_some_sizes_a_step_keep_the_full_one_and_the_expected_loss(model):
    batch = features(model, PAIRS)
    every = NestedLoss(model, st.CoSENTLoss(model), DIMS)(batch, SCORES)
    some = NestedLoss(model, st.CoSENTLoss(model), DIMS, n_dims_per_step=2, seed=3)
    with torch.no_grad():
        mean = torch.stack([some(batch, SCORES) for _ in range(200)]).mean()
        full_only = NestedLoss(model, st.CoSENTLoss(model), DIMS, n_dims_per_step=1)(batch, SCORES)
    # A step has the full size and one of the two others, which then counts twice.
    torch.testing.assert_close(mean, every.detach(), rtol=0.05, atol=0)
    torch.testing.assert_close(full_only, st.CoSENTLoss(model)(batch, SCORES))


def test_static_embeddings_are_not_cut_in_chunks_without_a_word(model):
    base = st.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
    loss = NestedLoss(model, base, DIMS)
    flat = [{"input_ids": torch.arange(7), "offsets": torch.tensor([0, 3, 5])}] * 2
    with pytest.raises(DataError, match="gradient caching needs one row"):
        loss(flat)


def test_settings_and_citation_are_for_the_model_card(model):
    loss = NestedLoss(model, st.CoSENTLoss(model), DIMS, WEIGHTS, 2)
    assert loss.get_config_dict() == {
        "loss": "CoSENTLoss",
        "matryoshka_dims": [4, 16, 32],
        "matryoshka_weights": [0.5, 2.0, 1.0],
        "n_dims_per_step": 2,
        "rule": {"before": "none", "after": "none"},
    }
    assert "2205.13147" in loss.citation


def test_a_model_that_ends_in_a_dense_under_autocast(model):
    wide = SentenceTransformer(modules=[*model, Dense(32, 48)], device="cpu")
    loss = NestedLoss(wide, st.MultipleNegativesRankingLoss(wide), [8, 48])
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(features(wide, PAIRS))
    value.backward()
    reference = NestedLoss(wide, st.MultipleNegativesRankingLoss(wide), [8, 48])(features(wide, PAIRS))
    torch.testing.assert_close(value.float(), reference, rtol=0.05, atol=0.05)
