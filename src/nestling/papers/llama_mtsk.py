"""Llama-MTSK (Cappellazzo, Kim and Petridis 2025, arXiv 2503.06362), and its claims.

A language model reads tokens of sound and of lips. One model is trained at every pair of compression rates,
with a projector for each rate and low-rank adapters: one for all pairs (MS), one for each pair (SS), or both
(MSS). The baseline is one model for each pair. The paper recognises LRS2 and LRS3 with Whisper, AV-HuBERT and
Llamas of billions of weights. Here small encoders, trained on the words of each moment and then frozen, and a
frozen Llama of 260,000 weights recognise GRID: one speaker and a closed grammar, in minutes on a CPU. So the
claims compare methods, and say nothing of error rates elsewhere.

The margins are those of the specification, set before anything was measured.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nestling.domains.prefix import prefill_flops
from nestling.errors import require
from nestling.measure.machine import versions
from nestling.nn.lora import ScaleAdapters, Strategy
from nestling.papers.claims.checks import Checks, Run, Tour, measure_checks
from nestling.papers.claims.report import Claim
from nestling.papers.claims.speech_study import Method, Rates, Study
from nestling.storage.resumable import ResumableValues

TITLE = "Llama-MTSK: nested audio and visual tokens (arXiv 2503.06362), claims at small scale"

CHECKS: Checks[Study] = Checks()
_ON = ("grid",)
AUDIO, VIDEO = (4, 16), (2, 5)
PAIRS: tuple[Rates, ...] = tuple((a, v) for a in AUDIO for v in VIDEO)
_LOSS = 2.0
_TIMES_WORSE = 2.0
_STEP_BACK = 2.0  # a rate of word errors may fall by this much by chance
_GAIN_IN_NOISE, _HARM_WHEN_CLEAN = 3.0, 1.0
_SECONDS, _FRAMES = 3, (150, 75)  # of a sentence of GRID
_TABLE = {
    (1, 1): (757, 11.40),
    (4, 2): (257, 3.87),
    (4, 5): (182, 2.74),
    (16, 2): (163, 2.46),
    (16, 5): (88, 1.33),
}
_TEXT_TOKENS, _CLIP = 7, (500, 250)  # of the published table: a clip of ten seconds
_LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False,
}  # fmt: skip
_LORA_8B = 32 * 64 * (2 * 4096 + 4096 + 1024)  # rank 64 on queries and values


def nested(strategy: Strategy = "ss", *, one_projector: bool = False) -> Method:
    """Sound and lips, at all pairs of rates."""
    name = f"{strategy.upper()}{', one projector' if one_projector else ''}"
    rates = {"audio": AUDIO, "video": VIDEO}
    return Method(name, rates, strategy=strategy, projection="shared" if one_projector else "scale")


def separate(pair: Rates) -> Method:
    """Sound and lips, at one pair of rates."""
    return Method(f"alone at {pair}", {"audio": pair[:1], "video": pair[1:]}, strategy="ms")


def sound(mode: Literal["mean", "stack"] = "mean") -> Method:
    """Sound without lips, at both rates."""
    return Method("sound" if mode == "mean" else "sound, stacked", {"audio": AUDIO}, mode=mode)


def sound_pooled_at_test_time() -> Method:
    """Sound without lips, trained at rate 4 and pooled to 16 at test time."""
    rates = {"audio": AUDIO[:1]}
    return Method("sound at 4", {"audio": AUDIO}, rates, "ms", projection="shared")


@CHECKS.claim(
    "MTSK-1", "One model with an adapter a pair (SS) loses at most 2 points to a model for each pair", _ON
)
def like_separate_models(study: Study, seed: int) -> Run:
    """Word error rates, the mean over the four pairs; MS and MSS beside it, without a promise."""
    alone = {pair: study.errors(separate(pair), seed)["clean"][pair] for pair in PAIRS}
    figures = {"separate": _mean([each.rate for each in alone.values()])}
    for strategy in ("ss", "ms", "mss"):
        found = study.errors(nested(strategy), seed)["clean"]
        name = strategy.upper()
        figures[name] = _mean([found[pair].rate for pair in PAIRS])
        paired = [found[pair].minus(alone[pair], seed=seed) for pair in PAIRS]
        for pair, (difference, low, high) in zip(PAIRS, paired, strict=True):
            figures |= {
                f"{name} - separate at {pair}": difference,
                f"{name} at {pair}, 2.5 %": low,
                f"{name} at {pair}, 97.5 %": high,
            }
    return figures["separate"] + _LOSS - figures["SS"], figures


@CHECKS.claim("MTSK-2", "Pooling at test time alone makes at least twice the errors of nested training", _ON)
def beats_pooling_at_test_time(study: Study, seed: int) -> Run:
    """Sound alone at rate 16."""
    pooled = study.rates_of(sound_pooled_at_test_time(), seed)
    ours = study.rates_of(sound(), seed)
    figures = {"trained at 4, at 4": pooled[4,], "trained at 4, pooled to 16": pooled[16,]}
    figures |= {"nested at 4": ours[4,], "nested at 16": ours[16,]}
    return pooled[16,] - _TIMES_WORSE * ours[16,], figures


@CHECKS.claim("MTSK-3", "Errors rise gently with the rates, and tokens are counted exactly", _ON)
def rises_gently(study: Study, seed: int) -> Run:
    """No step from (4, 2) to (16, 5) improves by more than chance; SS."""
    found = study.rates_of(nested(), seed)
    figures = {f"at {pair}": found[pair] for pair in PAIRS}
    steps = [found[after] - found[before] for before, after in pairwise(PAIRS)]
    model = study.recogniser(nested())
    for pair in PAIRS:
        at = model.at_rates(audio=pair[0], video=pair[1])
        counted = sum(
            model.pool(stream).lengths(frames, model.model.streams.own(stream, at))
            for stream, frames in zip(("audio", "video"), _FRAMES, strict=True)
        )
        figures[f"tokens at {pair}"] = counted
        if counted != _tokens(pair, _FRAMES):
            return -100.0, figures
    return min(steps) + _STEP_BACK, figures


@CHECKS.claim(
    "MTSK-4", "Lips save 3 points under babble at 0 and -5 dB, and cost at most 1 on clean sound", _ON
)
def lips_help_in_noise(study: Study, seed: int) -> Run:
    """Errors of sound alone less those with lips, the mean over the pairs; SS."""
    figures = {f"encoder, {name}": value for name, value in study.accuracies().items()}
    clearance, margins = np.inf, {"clean": -_HARM_WHEN_CLEAN, "0 dB": _GAIN_IN_NOISE, "-5 dB": _GAIN_IN_NOISE}
    for condition, needed in margins.items():
        heard, seen = (study.rates_of(method, seed, condition) for method in (sound(), nested()))
        figures[f"sound, {condition}"] = _mean([heard[pair[:1]] for pair in PAIRS])
        figures[f"sound and lips, {condition}"] = _mean([seen[pair] for pair in PAIRS])
        gain = figures[f"sound, {condition}"] - figures[f"sound and lips, {condition}"]
        clearance = min(clearance, gain - needed)
    return float(clearance), figures


@CHECKS.claim("MTSK-5", "Counts of tokens, and the published FLOPs of Llama 3.1-8B within 1 %", _ON)
def costs_are_those_published(study: Study, seed: int) -> Run:
    """The table of a clip of ten seconds."""
    config, figures, clearance = require("transformers", "lora").LlamaConfig(**_LLAMA_8B), {}, np.inf
    for pair, (published, teraflops) in _TABLE.items():
        tokens = _tokens(pair, _CLIP) + _TEXT_TOKENS
        figures[f"TFLOPs at {pair}"] = found = prefill_flops(config, tokens, adapters=_LORA_8B) / 1e12
        off = abs(found / teraflops - 1) + (0 if tokens == published else np.inf)
        clearance = min(clearance, 0.01 - off)
    return float(clearance), figures


@CHECKS.claim("MTSK-6", "Adapters compute, and get the gradients of, an explicit low-rank sum", _ON)
def adapters_are_right(study: Study, seed: int) -> Run:
    """Largest relative error of losses and gradients in float64, also with gradient checkpointing."""
    figures = {}
    for strategy in ("ms", "ss", "mss"):
        for checkpointing in (False, True):
            name = f"{strategy.upper()}{', checkpointing' if checkpointing else ''}"
            figures[name] = _largest_error(strategy, checkpointing, seed)
    return 1e-9 - max(figures.values()), figures


@CHECKS.claim("MTSK-7", "Pooling and stacking both run at every rate (no promise which is better)", _ON)
def pooling_and_stacking_run(study: Study, seed: int) -> Run:
    """Error rates and weights of the projectors, sound alone."""
    figures = {}
    for mode in ("mean", "stack"):
        method: Method = sound(mode)
        connector = study.recogniser(method).model.streams.connector("audio")
        for (rate,), errors in study.rates_of(method, seed).items():
            figures[f"{mode} at {rate}"] = errors
            scale: Any = connector.parts[1]
            at = study.recogniser(method).at_rates(audio=rate)
            figures[f"{mode} at {rate}, weights"] = scale.projector(at).cost().parameters
    return 0.0 if np.isfinite(list(figures.values())).all() else -1.0, figures


@CHECKS.claim("MTSK-8", "A projector for each rate beside one for all (ablation, no promise)", _ON)
def one_projector_or_several(study: Study, seed: int) -> Run:
    """Error rates by pair, SS."""
    figures: dict[str, float] = {}
    for name, method in (("a projector a rate", nested()), ("one projector", nested(one_projector=True))):
        found = study.rates_of(method, seed)
        figures |= {f"{name} at {pair}": found[pair] for pair in PAIRS}
    return 0.0 if np.isfinite(list(figures.values())).all() else -1.0, figures


NOT_TESTED = {
    "MTSK-9": "The figures of LRS2 and LRS3, with Whisper, AV-HuBERT and Llamas of billions: need both",
}
CLAIMS = (*dict.fromkeys(check.id for check in CHECKS), *NOT_TESTED)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _tokens(pair: Rates, frames: Rates) -> int:
    return sum(n // rate for n, rate in zip(frames, pair, strict=True))


def _largest_error(strategy: Strategy, checkpointing: bool, seed: int) -> float:
    """Of losses and gradients at each scale, against plain weights ``W + s * sum U D``."""
    transformers = require("transformers", "lora")
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, vocab_size=30
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        plain = transformers.LlamaForCausalLM(config).double().train()
    model = copy.deepcopy(plain)
    adapters = ScaleAdapters(model, "audio=31,125 x video=50,125", strategy, rank=3, alpha=1.5)
    for weight in adapters.parameters():
        weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    if checkpointing:
        # transformers renames it in version 6
        (getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable)()
    ids = torch.randint(30, (2, 7), generator=generator)
    worst, expected = 0.0, {name: w.clone().requires_grad_() for name, w in adapters.state_dict().items()}
    for g in adapters.scales:
        with adapters.at(g):
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        explicit = _explicit_loss(plain, expected, adapters.names(g), ids)
        explicit.backward()  # type: ignore[no-untyped-call]
        worst = max(worst, abs(float(loss.detach() / explicit.detach()) - 1))
    for theirs, ours in zip(expected.values(), adapters.parameters(), strict=True):
        wanted, gradient = theirs.grad, ours.grad
        assert wanted is not None
        assert gradient is not None
        worst = max(worst, float((gradient - wanted).abs().max() / wanted.abs().max()))
    return worst


def _explicit_loss(
    plain: nn.Module, adapters: dict[str, Tensor], names: tuple[str, ...], ids: Tensor
) -> Tensor:
    """The loss with the low-rank sums of some adapters in the weights."""
    changed = {name: w.detach() for name, w in plain.named_parameters()}
    for key, first in adapters.items():
        adapter, _, path = key.removesuffix(".lora_A").partition(".")
        if key.endswith(".lora_A") and adapter in names:
            second = adapters[f"{adapter}.{path}.lora_B"]
            changed[f"{path}.weight"] = changed[f"{path}.weight"] + 0.5 * second @ first
    found: Tensor = functional_call(plain, changed, (), {"input_ids": ids, "labels": ids}).loss
    return found


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure the wanted claims; also the learning rates that were picked."""
    path = None if tour.folder is None else tour.folder / "llama-mtsk.interrupted.json"
    notes = ResumableValues(path, {"tour": "llama-mtsk", "quick": tour.quick, **versions()})
    study = Study(tour, notes, {True: sound(), False: sound_pooled_at_test_time()})
    measured = measure_checks(tour.checks(CHECKS), {"grid": study}, tour.seeds)
    notes.remove()
    study.speech.forget()
    return [*measured, *tour.untested(NOT_TESTED)], {"learning rates": study.learning_rates.chosen}
