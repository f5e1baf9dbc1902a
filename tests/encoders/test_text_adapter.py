"""Maps fitted to the vectors of a text encoder, put on it as stock modules and loaded by others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from nestling.cut import RAW, CutRule, cut
from nestling.encoders.maps import NestedAdapter, PCARotation
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import DataError
from nestling.granularity import Nesting
from nestling.nn.adapter import Adapter
from nestling.testing import check_elastic

TEXTS = ["read a csv file into an array", "the cat sat on the mat", "x", "sort a list of numbers in place"]


def adapter_of(kind, nesting):
    """A module as it comes out of training: no weight is zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapter = Adapter(nesting, 32, hidden=None if kind == "linear" else 20)
        for weight in adapter.parameters():
            nn.init.normal_(weight, std=0.3)
    return adapter


@pytest.mark.filterwarnings("ignore::nestling.errors.ServingWarning")
@pytest.mark.parametrize("kind", ["linear", "hidden"])
def test_an_encoder_with_an_adapter_is_one_of_stock_modules(kind, bert, tmp_path):
    nesting = Nesting.parse("dim=4,12,24")
    plain, adapter = TextEncoder(bert, Nesting.parse("dim=8,32")), adapter_of(kind, nesting)
    encoder = plain.with_adapter(adapter)
    assert encoder.nesting == nesting
    for g in nesting:
        expected = cut(adapter(torch.from_numpy(plain.encode(TEXTS)), at=g).detach().numpy(), g["dim"])
        np.testing.assert_allclose(encoder.encode(TEXTS, at=g), expected, atol=1e-5)
    check_elastic(encoder, TEXTS)
    assert encoder.cost(24).flops - encoder.cost(4).flops == 20 * encoder.model[-1].in_features
    encoder.extract(4).save(tmp_path / "small")
    stock = SentenceTransformer(str(tmp_path / "small"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(stock.encode(TEXTS), encoder.encode(TEXTS, at=4), atol=1e-6)


def test_an_adapter_takes_what_encode_gives_and_keeps_its_own_rule(bert):
    adapter = adapter_of("linear", Nesting.parse("dim=4,12"))
    raw = TextEncoder(bert, Nesting.parse("dim=8,32"), RAW)
    expected = adapter(torch.from_numpy(raw.encode(TEXTS))).detach().numpy()
    np.testing.assert_allclose(raw.with_adapter(adapter).encode(TEXTS), expected, atol=1e-5)
    adapter.rule = CutRule()
    assert raw.with_adapter(adapter).rule == CutRule()
    with pytest.raises(DataError, match="takes vectors of 32 dims, but this encoder gives 16"):
        TextEncoder(bert, Nesting.parse("dim=8,16")).with_adapter(adapter)


@pytest.mark.filterwarnings("ignore::nestling.errors.NoGainWarning")  # after so few steps
@pytest.mark.parametrize(
    "fitted",
    [
        PCARotation("dim=8,32,256"),
        NestedAdapter("dim=8,32,256", max_steps=4, orthogonal=True),
        NestedAdapter("dim=8,32,128", max_steps=4, hidden=16, lr=1e-2),
    ],
    ids=["pca", "orthogonal", "hidden"],
)
def test_maps_fitted_to_wordllama_travel_with_it(fitted, tmp_path):
    words = sorted({word for text in TEXTS for word in text.split()})
    generator = np.random.default_rng(0)
    corpus = [" ".join(generator.choice(words, size=6)) for _ in range(600)]
    plain = TextEncoder.open("wordllama", device="cpu")
    vectors = plain.encode(corpus)
    fitted.fit(vectors)
    encoder = plain.with_adapter(fitted)
    assert (encoder.nesting, encoder.rule) == (fitted.nesting, fitted.rule)
    encoder.save(tmp_path / "whole")
    loaded = TextEncoder.open(tmp_path / "whole", device="cpu")
    for g in fitted.nesting:
        expected = fitted(vectors[:50], at=g)
        np.testing.assert_allclose(encoder.encode(corpus[:50], at=g), expected, atol=2e-5)
        encoder.extract(g).save(tmp_path / str(g))
        stock = SentenceTransformer(str(tmp_path / str(g)), device="cpu", local_files_only=True)
        np.testing.assert_allclose(stock.encode(corpus[:50]), expected, atol=2e-5)
        np.testing.assert_allclose(loaded.encode(corpus[:50], at=g), expected, atol=2e-5)
    declared = json.loads((tmp_path / "whole" / "config.json").read_text())["matryoshka_dimensions"]
    assert declared == list(fitted.nesting.sizes("dim"))
