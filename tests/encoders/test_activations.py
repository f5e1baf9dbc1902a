"""Activations of layers: names, hooks that are removed, inputs and outputs of any form, pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nestling.compare import rdm
from nestling.encoders.activations import ModuleLayers, activations, layer_names
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError
from nestling.measure import Fidelity, sweep
from nestling.storage.artifact import read_folder

TEXTS = ["a cat", "the dog runs through the garden", "rivers", "bread and butter for breakfast"] * 3


class Net(nn.Module):
    """Convolutions with a ReLU that works in place, dropout, and blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(48, 48), nn.ReLU()) for _ in range(3)])
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)).flatten(1)
        for block in self.blocks:
            x = self.drop(block(x))
        return x


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(11, 1, 4, 4))


def hooks_of(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


def modes_of(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


def test_layers_say_what_they_say(net: Net, pictures: np.ndarray) -> None:
    net.blocks[1].eval()
    modes, before, state = modes_of(net), pictures.copy(), torch.get_rng_state()
    found = activations(net, pictures, ["conv", "blocks.*"], batch_size=4)
    assert list(found) == ["conv", "blocks.0", "blocks.1", "blocks.2"]
    assert (modes_of(net), hooks_of(net)) == (modes, 0)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(pictures, before)
    net.eval()
    with torch.no_grad():
        x = net.conv(torch.from_numpy(pictures).float())
        # Not what the ReLU that follows in place made of it.
        np.testing.assert_allclose(found["conv"], x.flatten(1).numpy(), atol=1e-6)
        assert found["conv"].min() < 0
        x = x.relu().flatten(1)
        for number, block in enumerate(net.blocks):
            x = block(x)
            np.testing.assert_allclose(found[f"blocks.{number}"], x.numpy(), atol=1e-6)
    assert all(each.dtype == np.float32 and each.shape == (11, 48) for each in found.values())


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, lambda x: list(torch.from_numpy(x))])
def test_inputs_of_any_kind(net: Net, pictures: np.ndarray, kind: Callable[[Any], Any]) -> None:
    expected = activations(net, pictures, "blocks.2")["blocks.2"]
    np.testing.assert_allclose(activations(net, kind(pictures), "blocks.2")["blocks.2"], expected, atol=1e-6)


def test_an_input_that_is_changed_in_place_is_a_copy(pictures: np.ndarray) -> None:
    flat = pictures.reshape(11, 16).astype(np.float32)
    before, tensor = flat.copy(), torch.from_numpy(flat.copy())
    for given in (flat, tensor):
        activations(nn.Sequential(nn.ReLU(inplace=True)), given, "0")
        np.testing.assert_array_equal(np.asarray(given), before)


def test_names_are_patterns_part_by_part(net: Net) -> None:
    assert layer_names(net, "blocks.*") == ("blocks.0", "blocks.1", "blocks.2")
    assert layer_names(net, ["blocks.*.0", "conv"]) == ("conv", "blocks.0.0", "blocks.1.0", "blocks.2.0")
    assert layer_names(net, "") == ("",)
    assert activations(net, np.zeros((1, 1, 4, 4)), "")[""].shape == (1, 48)


@pytest.mark.parametrize(
    ("layers", "message"),
    [("block.0", "near are 'blocks.0'"), ("zzz", "near are 'conv', 'relu'"), ([], "at least one layer")],
)
def test_unknown_layers_are_refused(net: Net, layers: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        activations(net, np.zeros((1, 1, 4, 4)), layers)


def test_hooks_go_and_modes_stay_when_a_pass_fails(net: Net) -> None:
    net.train()
    with pytest.raises(RuntimeError):
        activations(net, np.zeros((2, 7, 4, 4)), ["conv", "relu"])
    assert hooks_of(net) == 0
    assert all(modes_of(net))
    with pytest.raises(DataError, match="'unused' did not run"):
        activations(net, np.zeros((2, 1, 4, 4)), ["conv", "unused"])
    assert hooks_of(net) == 0


@dataclass
class Answer:
    note: str
    last_hidden_state: Tensor


class Structured(nn.Module):
    """Gives whatever it was built with."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.form = nn.Identity(), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.inner(x))


@pytest.mark.parametrize(
    "form",
    [
        lambda x: (x.long(), x, x + 1),
        lambda x: {"input_ids": x.long(), "states": x},
        lambda x: {"first": x + 1, "sentence_embedding": x},
        lambda x: Answer("a note", x),
        lambda x: [(None, [x])],
    ],
)
def test_outputs_with_parts(form: Callable[[Tensor], Any]) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(activations(Structured(form), x, "")[""], x)


def test_outputs_that_are_no_rows_are_refused() -> None:
    x = np.zeros((5, 3), np.float32)
    with pytest.raises(DataError, match=r"gives \(3, 5\) for 5 inputs"):
        activations(Structured(lambda x: x.T), x, "")
    with pytest.raises(DataError, match="no floating tensor but a str"):
        activations(Structured(lambda x: "nothing"), x, "")
    with pytest.raises(DataError, match='3 features for some inputs and 2 for others; pool="mean"'):
        activations(Structured(lambda x: x[:, : 1 + len(x)]), x, "", batch_size=4, pool="flatten")
    with pytest.raises(DataError, match="there are no inputs"):
        activations(nn.Identity(), x[:0], "")
    with pytest.raises(DataError, match=r"\[2, 5\] rows"):
        activations(nn.Identity(), {"a": x, "b": x[:2]}, "")
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        activations(nn.Identity(), x, "", pool="means")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size"):
        activations(nn.Identity(), x, "", batch_size=0)
    with pytest.raises(DataError, match="takes no texts"):
        activations(nn.Identity(), ["a text"], "")


def test_pools() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    pictures = x.reshape(5, 3, 2, 2)

    def pooled(given: np.ndarray, pool: Any) -> np.ndarray:
        return activations(nn.Identity(), given, "", pool=pool, batch_size=2)[""]

    np.testing.assert_array_equal(pooled(x, None), x.reshape(5, 12))
    np.testing.assert_allclose(pooled(x, "mean"), x.mean(1), atol=1e-6)
    np.testing.assert_array_equal(pooled(x, "first"), x[:, 0])
    np.testing.assert_allclose(pooled(pictures, "mean"), pictures.mean((2, 3)), atol=1e-6)
    np.testing.assert_array_equal(pooled(x, lambda y: y[:, -1]), x[:, -1])
    np.testing.assert_array_equal(pooled(x[:, 0], "mean"), x[:, 0])


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.embed(input_ids)


def test_padding_counts_for_nothing() -> None:
    ids = np.random.default_rng(0).integers(0, 50, (6, 5))
    mask = np.array([[1] * 5, [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0], [1] * 5, [0, 1, 1, 1, 1]])
    module = Masked()
    table = module.embed.weight.detach().numpy()
    inputs = {"input_ids": ids, "attention_mask": mask}
    found = activations(module, inputs, "embed", batch_size=4)["embed"]
    expected = [table[row[kept > 0]].mean(0) for row, kept in zip(ids, mask, strict=True)]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)
    first = activations(module, inputs, "embed", pool="first")["embed"]
    np.testing.assert_array_equal(first, table[ids[np.arange(6), mask.argmax(1)]])
    assert activations(module, inputs, "embed", pool="flatten")["embed"].shape == (6, 20)


def test_half_precision_is_met_and_answered_in_single(pictures: np.ndarray) -> None:
    module = nn.Linear(16, 4).bfloat16()
    found = activations(module, pictures.reshape(11, 16), "")[""]
    assert found.dtype == np.float32


def test_a_folder_holds_what_memory_would(net: Net, pictures: np.ndarray, tmp_path: Path) -> None:
    held = activations(net, pictures, ["conv", "blocks.*"], batch_size=4)
    folder = tmp_path / "said"
    found = activations(net, pictures, ["conv", "blocks.*"], batch_size=4, folder=folder)
    assert list(found) == list(held)
    for name, each in found.items():
        assert isinstance(each, np.memmap)
        np.testing.assert_array_equal(each, held[name])
    assert list(read_folder(folder, "activations").settings["layers"]) == list(held)
    (folder / "000-conv.npy").write_bytes(b"torn")
    with pytest.raises(ArtifactError, match="truncated or altered"):
        read_folder(folder, "activations")


def test_nothing_is_left_of_a_folder_when_a_pass_fails(net: Net, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unused"):
        activations(net, np.zeros((2, 1, 4, 4)), ["conv", "unused"], folder=tmp_path / "said")
    assert not list(tmp_path.iterdir())


def test_sentence_transformers_take_texts(tiny_bert_folder: Path) -> None:
    encoder = TextEncoder.open(tiny_bert_folder, device="cpu")
    (layers,) = {
        name.rpartition(".")[0] for name, _ in encoder.model.named_modules() if name.endswith("layer.0")
    }
    found = activations(encoder.model, TEXTS, [f"{layers}.*", ""], batch_size=5)
    assert [each.shape for each in found.values()] == [(12, 32)] * 3
    # The mean of the last layer's tokens is what the model pools; padding would show.
    whole = encoder.encode(TEXTS)
    last = found[f"{layers}.1"]
    np.testing.assert_allclose(last / np.linalg.norm(last, axis=1, keepdims=True), whole, atol=1e-5)
    matrices = rdm(found, "correlation")
    assert len(matrices) == 3
    assert matrices.labels["name"] == tuple(found)


def test_layers_are_swept_like_any_elastic_thing(net: Net, pictures: np.ndarray) -> None:
    layers = ModuleLayers(net, ["conv", "blocks.*"], batch_size=4)
    assert str(layers.nesting) == "layer=1,2,3,4"
    assert layers.layers == ("conv", "blocks.0", "blocks.1", "blocks.2")
    again = activations(net, pictures, "blocks.0", batch_size=4)["blocks.0"]
    np.testing.assert_array_equal(layers(pictures, at=2), again)
    with pytest.raises(GranularityError, match="layer=4"):
        layers(pictures, at=5)
    curve = sweep(layers, Fidelity(pictures, k=3), resamples=50)
    assert curve.row().value == pytest.approx(1)
    assert curve.row(1).value < curve.row(3).value < 1
