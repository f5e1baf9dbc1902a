"""Transformers cut in depth, for every family in the table: exact, shared, and the same after saving."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import transformers
from torch import nn

from nestling.errors import ConfigError, GranularityError
from nestling.nn.early_exit import LayerStack

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
}
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED = {**SIZES, **IDS, "num_key_value_heads": 2, "head_dim": 8}
DISTILLED = {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, "vocab_size": 100}
T5 = {"d_model": 32, "num_layers": 4, "num_heads": 4, "d_kv": 8, "d_ff": 64, "vocab_size": 100}
MODERN = {**SIZES, **IDS, "cls_token_id": 1, "sep_token_id": 2}
FAMILIES = {
    "Bert": SIZES,
    "Roberta": SIZES,
    "MPNet": SIZES,
    "Electra": {**SIZES, "embedding_size": 32},
    "DebertaV2": SIZES,
    "DistilBert": DISTILLED,
    "ModernBert": MODERN,
    "Llama": GROUPED,
    "Mistral": GROUPED,
    "Qwen3": GROUPED,
    "Gemma3Text": GROUPED,
    "T5Encoder": T5,
}
PRE_NORM = {"ModernBert", "Llama", "Mistral", "Qwen3", "Gemma3Text", "T5Encoder"}


def make(family: str) -> nn.Module:
    config = getattr(transformers, family.removesuffix("Encoder") + "Config")(**FAMILIES[family])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}Model")(config).eval()
        for name, weight in model.named_parameters():  # norms of ones and zeros would hide their absence
            if "norm" in name.lower():
                weight.data.uniform_(0.5, 1.5)
    return model


def tokens() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 99, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def states(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**tokens()).last_hidden_state


@pytest.mark.parametrize("family", FAMILIES)
def test_every_depth_is_the_same_recorded_cut_and_saved(family: str, tmp_path) -> None:
    model = make(family)
    stack, before = LayerStack(model), states(model)
    shell, given = stack.recorded(4)
    assert torch.equal(states(shell), before)
    for depth in (1, 2, 3, 4):
        cut = stack.first(depth)
        with torch.no_grad():
            recorded = stack.normed(given[depth - 1])
        assert torch.equal(states(cut), recorded)
        copy.deepcopy(cut).save_pretrained(tmp_path / str(depth))
        again, report = type(model).from_pretrained(tmp_path / str(depth), output_loading_info=True)
        assert torch.equal(states(again.eval()), recorded)
        assert len(LayerStack(again)) == again.config.num_hidden_layers == depth
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.num_hidden_layers == len(stack) == 4
    assert torch.equal(states(model), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_norm_is_part_of_what_a_layer_gives(family: str) -> None:
    stack = LayerStack(make(family))
    shell, given = stack.recorded(2)
    states(shell)
    with torch.no_grad():
        differs = float((stack.normed(given[1]) - given[1]).abs().max())
    assert (differs > 1e-3) == (family in PRE_NORM)


def test_exactly_so_many_layers_run_and_gradients_reach_the_shared_weights() -> None:
    model = make("Bert").train()
    stack, calls = LayerStack(model), []
    hooks = [
        layer.register_forward_hook(lambda *_, n=n: calls.append(n)) for n, layer in enumerate(stack.layers)
    ]
    stack.first(3)(**tokens()).last_hidden_state.sum().backward()
    for hook in hooks:
        hook.remove()
    assert calls == [0, 1, 2]
    reached = [next(layer.parameters()).grad is not None for layer in stack.layers]
    assert reached == [True, True, True, False]


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = make("Bert").train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        if checkpointed:
            # transformers 5.0 knows only the older name
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        stack = LayerStack(model)
        shell, given = stack.recorded(3)
        shell(**tokens())
        assert len(given) == 3
        sum((each**2).sum() for each in given).backward()
        gradients.append([p.grad for p in stack.layers[:3].parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_threads_record_each_their_own() -> None:
    stack = LayerStack(make("Bert"))
    found: dict[int, list[torch.Tensor]] = {}

    def use(depth: int) -> None:
        shell, given = stack.recorded(depth)
        states(shell)
        found[depth] = given

    threads = [threading.Thread(target=use, args=(depth,)) for depth in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {depth: len(given) for depth, given in found.items()} == {1: 1, 2: 2, 3: 3, 4: 4}
    assert all(torch.equal(given[0], found[1][0]) for given in found.values())


def test_a_wrapped_model_is_cut_inside() -> None:
    wrapped = nn.ModuleDict({"inner": make("Qwen3")})
    stack = LayerStack(wrapped)
    assert len(stack.first(2)["inner"].layers) == 2
    assert len(wrapped["inner"].layers) == 4


@pytest.mark.parametrize("depth", [0, -1, 5])
def test_depths_that_the_model_does_not_have_are_refused(depth: int) -> None:
    stack = LayerStack(make("DistilBert"))
    uses: list[Callable[[int], object]] = [stack.first, stack.recorded]
    for use in uses:
        with pytest.raises(GranularityError, match="layers 1 to 4"):
            use(depth)


def test_a_model_without_known_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match="ModernBERT"):
        LayerStack(nn.Sequential(nn.Linear(2, 2)))
    shared = transformers.AlbertModel(transformers.AlbertConfig(**SIZES, embedding_size=8))
    with pytest.raises(ConfigError, match="AlbertModel"):
        LayerStack(shared)


def test_a_forward_that_was_patched_and_put_back_is_cut_too() -> None:
    model = make("Bert")
    wanted = states(LayerStack(model).first(2))
    model.forward = model.forward  # as a wrapper leaves it when it restores the method
    assert torch.equal(states(LayerStack(model).first(2)), wanted)
    assert len(LayerStack(model).recorded(2)[1]) == 0
