"""Encoders of token vectors: the laws, what they give, their sweep over tokens, dims and bits, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from nestling.cut import cut
from nestling.encoders.text import TextEncoder, TokenEncoder
from nestling.errors import ConfigError, DataError, GranularityError, UntrainedGranularityWarning
from nestling.granularity import Nesting
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.nn.tokens.ward import ward_clusters
from nestling.search.max_sim import max_sim
from nestling.testing import check_elastic

TEXTS = [
    "read a csv file into an array",
    "x",
    "the cat sat on the mat while the dog ran round the house",
    "sort a list of numbers in place",
    "a quick brown fox",
]
GRID = Nesting.parse("tokens=1,3,64 x dim=8,32")


@pytest.fixture
def tokens_of(bert: SentenceTransformer) -> list[np.ndarray]:
    """The token vectors of each text, as sentence-transformers gives them."""
    found = bert.encode(TEXTS, output_value="token_embeddings")
    return [cut(each.cpu().numpy().astype(np.float32), 32) for each in found]


@pytest.mark.parametrize("mode", ["cluster", "mean", "stride"])
@pytest.mark.parametrize("nesting", [GRID, Nesting.parse("tokens=1,3,64")])
def test_the_laws(bert: SentenceTransformer, mode: str, nesting: Nesting) -> None:
    check_elastic(TokenEncoder(bert, nesting, mode=mode), TEXTS)


def test_vectors_are_those_of_the_tokens_pooled_and_cut(
    bert: SentenceTransformer, tokens_of: list[np.ndarray]
) -> None:
    encoder = TokenEncoder(bert, GRID)
    found = encoder.encode_each(TEXTS, batch_size=2)
    queries = encoder.queries.encode_each(TEXTS)
    assert list(found) == list(queries) == list(GRID)
    for g in GRID:
        for x, document, query in zip(tokens_of, found[g].items(), queries[g].items(), strict=True):
            count = min(g["tokens"], len(x))
            groups = ward_clusters(x, [count])[count]
            pooled = np.stack([x[groups == j].mean(axis=0) for j in range(count)])
            np.testing.assert_allclose(document, cut(pooled, g["dim"]), atol=1e-5)
            np.testing.assert_allclose(query, cut(x, g["dim"]), atol=1e-5)
    alone = encoder.encode(TEXTS, "tokens=3,dim=8")
    np.testing.assert_allclose(alone.values, found[GRID.resolve("tokens=3,dim=8")].values, atol=1e-6)


def test_one_token_a_text_is_the_mean_of_its_tokens(bert: SentenceTransformer) -> None:
    one = TokenEncoder(bert, "tokens=1,64", mode="mean").encode(TEXTS, 1)
    whole = TokenEncoder(bert, "tokens=1,64").encode(TEXTS)
    means = np.stack([x.mean(axis=0) for x in whole.items()])
    np.testing.assert_allclose(one.values, cut(means, 32), atol=1e-5)


def test_a_sweep_measures_tokens_dims_and_bits(bert: SentenceTransformer) -> None:
    encoder, task = TokenEncoder(bert, "tokens=1,3,64"), Retrieval(TEXTS, TEXTS, range(5), k=3)
    curve = sweep(encoder, task, "tokens=1,3,64 x dim=8,32", latency=True)
    assert curve.row().value == 1
    assert curve.choose(max_tokens=3)["tokens"] in (1, 3)
    assert curve.choose(max_tokens=1, max_bytes=32) == curve.nesting.resolve("tokens=1,dim=8")
    for g in curve.nesting:  # queries keep all their tokens
        documents, queries = encoder.encode(TEXTS, f"tokens={g['tokens']}"), encoder.queries.encode(TEXTS)
        scores = max_sim(*(type(x)(cut(x.values, g["dim"]), x.starts) for x in (queries, documents)))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
        assert curve.row(g, "recall@3").value == (order == np.arange(5)[:, None]).any(axis=1).mean()
        assert curve.row(g).vector_bytes == round(4 * g["dim"] * documents.counts.mean())
    bits = sweep(encoder, task, bits=(8, 32))
    assert bits.row("tokens=3,bits=8").vector_bytes == round(bits.row("tokens=3,bits=32").vector_bytes / 4)
    assert bits.row("tokens=64,bits=8").value == pytest.approx(1)


def test_it_is_opened_by_name_and_saved(bert: SentenceTransformer, tmp_path: Path) -> None:
    bert.save(str(tmp_path / "model"))
    encoder = TokenEncoder.open(tmp_path / "model", "tokens=2,4", mode="mean", device="cpu")
    encoder.save(tmp_path / "saved")
    again = TokenEncoder.open(tmp_path / "saved", device="cpu")
    assert (again.nesting, again.mode) == (encoder.nesting, "mean")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(plain.encode(TEXTS), bert.encode(TEXTS), atol=1e-6)


def test_what_it_cannot_do_is_refused(bert: SentenceTransformer) -> None:
    with pytest.raises(GranularityError, match="add tokens"):
        TokenEncoder(bert, [8, 16])
    with pytest.raises(GranularityError, match="has 32; end it at 32"):
        TokenEncoder(bert, "tokens=1,2 x dim=8,64")
    with pytest.raises(ConfigError, match="mode='wrad'"):
        TokenEncoder(bert, "tokens=1,2", mode="wrad")
    with pytest.raises(ConfigError, match="StaticEmbedding, which gives no token vectors"):
        TokenEncoder(TextEncoder.open("wordllama", device="cpu").model)
    encoder = TokenEncoder(bert, "tokens=1,2")
    for use in (encoder, encoder.encode, encoder.queries.encode):
        with pytest.raises(DataError, match="row 1"):
            use(["a", ""])
    with pytest.raises(ConfigError, match="batch_size"):
        encoder.encode(TEXTS, batch_size=0)


def test_untrained_sizes_are_refused_or_warned_of_once(bert: SentenceTransformer) -> None:
    encoder, wider = TokenEncoder(bert, "tokens=1,4 x dim=8,32"), TokenEncoder(bert, "tokens=2,4 x dim=16,32")
    at = "tokens=2,dim=16"
    for use in (encoder, encoder.encode, encoder.queries.encode):
        with pytest.raises(
            GranularityError, match=r"was not trained; trained are dim=8,32 x tokens=1,4\. Use"
        ):
            use(TEXTS, at)
    with pytest.warns(UntrainedGranularityWarning, match="dim=16,tokens=2 was not trained"):
        found = encoder.encode(TEXTS, at, strict=False)
    queries = encoder.queries.encode(TEXTS, at, strict=False)  # a second warning would fail
    assert np.array_equal(found.values, wider.encode(TEXTS, at).values)
    assert np.array_equal(queries.values, wider.queries.encode(TEXTS, at).values)
    with pytest.raises(GranularityError, match="has 32; end it at 32"):
        encoder.encode(TEXTS, "dim=64", strict=False)


def test_gradients_reach_the_weights(bert: SentenceTransformer) -> None:
    encoder = TokenEncoder(bert, "tokens=2,64").train()
    with torch.random.fork_rng():
        encoder(TEXTS, at=2).values.square().sum().backward()
    weights = next(encoder.model.parameters())
    assert weights.grad is not None
    encoder.zero_grad(set_to_none=True)
