"""Adapters a scale: gradients as an explicit low-rank sum gives them, traps of peft, saving and export."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from nestling.errors import ArtifactError, ConfigError, GranularityError
from nestling.nn.lora import ScaleAdapters
from nestling.testing.laws import random_state

SCALES = "tokens=4,16"
TARGETS = ("q_proj", "v_proj")


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=30,
    )
    return LlamaForCausalLM(config).double()


def made(strategy: Any = "mss", model: nn.Module | None = None, **settings: Any) -> ScaleAdapters:
    """Adapters whose second matrices are not zero, so that each changes the output."""
    model = language_model() if model is None else model
    adapters = ScaleAdapters(model, SCALES, strategy, **{"rank": 3, "alpha": 1.5, **settings})
    generator = torch.Generator().manual_seed(1)
    for weight in adapters.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return adapters


def batch() -> Tensor:
    return torch.randint(30, (2, 7), generator=torch.Generator().manual_seed(2))


def loss_of(model: Any) -> Tensor:
    return model(input_ids=batch(), labels=batch()).loss


def explicit(adapters: ScaleAdapters, at: str) -> dict[str, Tensor]:
    """Gradients of the adapters with plain weights ``W + s * sum B A`` in a model without peft."""
    plain = language_model()
    weights = {name: w.clone().requires_grad_() for name, w in adapters.state_dict().items()}
    changed = dict(plain.named_parameters())
    for path, _ in plain.named_modules():
        if path.endswith(TARGETS):
            for name in adapters.names(at):
                product = weights[f"{name}.{path}.lora_B"] @ weights[f"{name}.{path}.lora_A"]
                changed[f"{path}.weight"] = changed[f"{path}.weight"] + 0.5 * product
    found = torch.func.functional_call(plain, changed, kwargs={"input_ids": batch(), "labels": batch()})
    found.loss.backward()
    return {name: w.grad for name, w in weights.items() if w.grad is not None}


def gradients(adapters: ScaleAdapters) -> dict[str, Tensor]:
    names = adapters.state_dict()
    pairs = zip(names, adapters.parameters(), strict=True)
    return {name: weight.grad for name, weight in pairs if weight.grad is not None}


@pytest.mark.parametrize("strategy", ["ms", "ss", "mss"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_are_those_of_an_explicit_low_rank_sum(strategy: Any, checkpointed: bool) -> None:
    adapters = made(strategy)
    if checkpointed:
        getattr(
            adapters.model, "activation_checkpointing_enable", adapters.model.gradient_checkpointing_enable
        )()
    adapters.model.train()
    for at in ("tokens=4", "tokens=16"):
        with adapters.at(at):
            loss_of(adapters.model).backward()
        expected = explicit(adapters, at)
        found = gradients(adapters)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient)
        adapters.model.zero_grad(set_to_none=True)


def test_gradients_of_scales_add_up_in_the_shared_adapter_alone() -> None:
    adapters = made()
    for at in ("tokens=4", "tokens=16"):
        with adapters.at(at):
            loss_of(adapters.model).backward()
    one, other = explicit(adapters, "tokens=4"), explicit(adapters, "tokens=16")
    for name, gradient in gradients(adapters).items():
        parts = [each[name] for each in (one, other) if name in each]
        assert len(parts) == (2 if name.startswith("shared.") else 1)
        torch.testing.assert_close(gradient, sum(parts))


def test_one_backward_of_the_sum_is_right_without_checkpointing() -> None:
    """peft's own switch freezes the adapters that are not active, and they got no gradient."""
    adapters, losses = made(), []
    for at in ("tokens=4", "tokens=16"):
        with adapters.at(at):
            losses.append(loss_of(adapters.model))
    sum(losses).backward()  # type: ignore[union-attr]
    assert gradients(adapters).keys() == adapters.state_dict().keys()
    own = next(name for name in adapters.state_dict() if name.startswith("scale_4."))
    torch.testing.assert_close(gradients(adapters)[own], explicit(adapters, "tokens=4")[own])


def test_a_late_backward_of_checkpointed_activations_is_refused() -> None:
    adapters = made()
    getattr(adapters.model, "activation_checkpointing_enable", adapters.model.gradient_checkpointing_enable)()
    adapters.model.train()
    with pytest.raises(ConfigError, match=r"call loss.backward\(\) inside of the block"), adapters.at(4):
        loss_of(adapters.model)
    with torch.no_grad(), adapters.at(4):
        loss_of(adapters.model)
    with (
        pytest.raises(RuntimeError, match="scalar"),
        adapters.at(4),
    ):  # the first error is the one that counts
        torch.stack([loss_of(adapters.model)] * 2).backward()
    with adapters.at(4):
        loss_of(adapters.model).backward()


def test_all_adapters_are_trained_and_the_model_is_not() -> None:
    adapters = made()
    with adapters.at(4):
        inside = {id(p) for p in adapters.model.parameters() if p.requires_grad}
    assert inside == {id(p) for p in adapters.parameters()}
    assert len(inside) == 3 * 2 * 2 * 2  # adapters, layers, targets, matrices
    assert len(list(adapters.parameters(at=4))) == 16
    frozen = next(adapters.parameters()).requires_grad_(False)
    with adapters.at(16):
        assert not frozen.requires_grad


def test_outside_of_a_block_the_full_scale_is_active() -> None:
    adapters = made()
    with adapters.at("tokens=16"):
        full = loss_of(adapters.model)
    with adapters.at("tokens=4"):
        small = loss_of(adapters.model)
    assert torch.equal(loss_of(adapters.model), full)
    assert not torch.allclose(small, full)
    with pytest.raises(RuntimeError, match="stop"), adapters.at("tokens=4"):
        raise RuntimeError("stop")
    assert torch.equal(loss_of(adapters.model), full)


def test_new_adapters_change_nothing_and_take_no_global_random_numbers() -> None:
    model = language_model()
    before, state = loss_of(model), random_state()
    adapters = ScaleAdapters(model, SCALES, "mss", rank=3, alpha=1.0)
    assert random_state() == state
    for at in adapters.scales:
        with adapters.at(at):
            torch.testing.assert_close(loss_of(model), before)
    again = ScaleAdapters(language_model(), SCALES, "mss", rank=3, alpha=1.0)
    other = ScaleAdapters(language_model(), SCALES, "mss", rank=3, alpha=1.0, seed=1)
    first = next(iter(adapters.state_dict()))
    assert torch.equal(adapters.state_dict()[first], again.state_dict()[first])
    assert not torch.equal(adapters.state_dict()[first], other.state_dict()[first])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("strategy", ["ms", "ss", "mss"])
def test_a_merged_copy_and_an_exported_adapter_are_the_model_at_one_scale(
    strategy: Any, tmp_path: Path
) -> None:
    adapters = made(strategy)
    with adapters.at(4):
        expected = adapters.model(input_ids=batch()).logits
    merged = adapters.merged(at=4)
    assert {*merged.state_dict()} == {*language_model().state_dict()}
    torch.testing.assert_close(merged(input_ids=batch()).logits, expected)
    adapters.export(tmp_path / "adapter", at=4)
    plain = PeftModel.from_pretrained(
        language_model(), str(tmp_path / "adapter"), autocast_adapter_dtype=False
    )
    torch.testing.assert_close(plain(input_ids=batch()).logits, expected, rtol=1e-6, atol=1e-6)
    assert plain.peft_config["default"].r == (6 if strategy == "mss" else 3)


def test_saved_adapters_are_the_same(tmp_path: Path) -> None:
    adapters = made()
    adapters.save(tmp_path / "adapters")
    loaded = ScaleAdapters.load(tmp_path / "adapters", language_model())
    assert (loaded.adapters, loaded.strategy) == (adapters.adapters, "mss")
    for at in (4, 16):
        with adapters.at(at), loaded.at(at):
            torch.testing.assert_close(loss_of(loaded.model), loss_of(adapters.model))
    wider = LlamaForCausalLM(LlamaConfig(**{**language_model().config.to_dict(), "hidden_size": 32}))
    with pytest.raises(ArtifactError, match="this model needs"):
        ScaleAdapters.load(tmp_path / "adapters", wider)
    state = adapters.state_dict()
    state["scale_9.x"] = state.pop(next(iter(state)))
    with pytest.raises(ArtifactError, match="weights of other adapters"):
        loaded.load_state_dict(state)


def test_pairs_and_adapters_that_several_pairs_share() -> None:
    pairs = "audio=31,125 x video=50,125"
    each = ScaleAdapters(language_model(), pairs, "ss", rank=2, alpha=1.0)
    assert each.adapters == ("scale_31_50", "scale_31_125", "scale_125_50", "scale_125_125")
    audio = ScaleAdapters(language_model(), pairs, "ss", rank=2, alpha=1.0, key=lambda g: str(g["audio"]))
    assert audio.adapters == ("scale_31", "scale_125")
    assert audio.names("audio=31,video=50") == audio.names("audio=31,video=125")


def test_half_precision_models_have_adapters_in_float32() -> None:
    adapters = ScaleAdapters(language_model().bfloat16(), SCALES, "ss", rank=2, alpha=1.0)
    assert {weight.dtype for weight in adapters.parameters()} == {torch.float32}


def test_any_module_with_linear_layers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    adapters = made("ss", copy.deepcopy(model), target_modules=["0"])
    x, at = torch.ones(1, 4), "tokens=4"
    state = adapters.state_dict(at)
    weight = model[0].weight + 0.5 * state["scale_4.0.lora_B"] @ state["scale_4.0.lora_A"]
    with adapters.at(at):
        torch.testing.assert_close(adapters.model(x), model[1:](F.linear(x, weight, model[0].bias)))


def test_bad_input_is_refused() -> None:
    adapters = made()
    with pytest.raises(ConfigError, match=r"inside of adapters\.at"), adapters.at(4), adapters.at(16):
        pass
    with pytest.raises(GranularityError, match="nearest"), adapters.at(9):
        pass
    next(iter(adapters._layers.values())).merge(adapter_names=["shared"])
    for use in (lambda: adapters.at(4).__enter__(), adapters.merged, lambda: adapters.save("nowhere")):
        with pytest.raises(ConfigError, match="adapters are merged into the weights"):
            use()
    for settings, message in (
        ({"scales": "tokens=4"}, "strategy='mss' adds an adapter .* there is one scale"),
        ({"target_modules": ["q_prj"]}, r"unknown target module 'q_prj'; did you mean 'q_proj' or 'v_proj'"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": "q_proj"}, r"target_modules must be a list of names, such as \['q_proj'\]"),
        ({"target_modules": ["input_layernorm"]}, "is a LlamaRMSNorm, and adapters are for linear layers"),
        ({"key": lambda g: g["tokens"]}, "key must return the name of an adapter, not 4"),
        ({"strategy": "sms"}, "strategy='sms' must be one of ms, ss, mss"),
        ({"rank": 0}, "rank=0 must be"),
        ({"alpha": 0.0}, "alpha=0.0 must be"),
        ({"model": adapters.model}, "the model has adapters of peft already"),
    ):
        given: dict[str, Any] = {"scales": SCALES, "rank": 2, "alpha": 1.0, **settings}
        with pytest.raises(ConfigError, match=message):
            ScaleAdapters(given.pop("model", None) or language_model(), **given)
