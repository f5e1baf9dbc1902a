"""A recogniser transcribes at any rate, does without a stream, and refuses recordings that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from nestling.domains.prefix import PrefixLM
from nestling.domains.speech.connectors import connector
from nestling.domains.speech.encoders import LipEncoder, SoundEncoder
from nestling.domains.speech.recogniser import Recogniser
from nestling.domains.speech.recordings import recordings
from nestling.errors import ConfigError, DataError, GranularityError, UntrainedGranularityWarning
from nestling.testing import check_elastic
from nestling.training import TrainConfig, fit

WORDS = ["<unk>", "<s>", "</s>", "bin", "blue", "now", "red", "set", "speech", "to", "text", "transcribe"]
RATES = {"audio": [4, 16], "video": [2, 5]}


def tokenizer(words: list[str] = WORDS) -> Any:
    found = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=found, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=12,
        max_position_embeddings=200, initializer_range=0.5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def encoders(*streams: str) -> list[Any]:
    torch.manual_seed(1)
    made = {"audio": SoundEncoder(8, depth=0), "video": LipEncoder(6, channels=2, depth=0)}
    return [made[stream].eval() for stream in streams or made]


def recogniser(*streams: str, **settings: Any) -> Recogniser:
    torch.manual_seed(2)
    rates = {stream: RATES[stream] for stream in streams or RATES}
    settings = {"rank": 2, "alpha": 2.0, "hidden": 8, **settings}
    return Recogniser.around(llama(), tokenizer(), encoders(*rates), rates, **settings)


def sound(*seconds: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(round(16_000 * each), generator=generator) for each in seconds]


def mouths(*seconds: float) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(256, (round(25 * each), 24, 48), generator=generator, dtype=torch.uint8)
        for each in seconds
    ]


def test_tokens_are_counted_by_rate() -> None:
    model = recogniser()
    g = model.at_rates(audio=16, video=5)
    assert str(g) == "audio=31,video=50"
    assert model.at_rates(audio=4) == model.model.nesting.full
    batch = model.batch(audio=sound(1.0), video=mouths(1.0))
    counts = {stream: len(model.model.encode(batch)[stream].values[0]) for stream in RATES}
    assert counts == {"audio": 50, "video": 25}
    tokens = model.model.streams.tokens(model.model.encode(batch), [g])
    assert [each.values.shape[1] for by in tokens.values() for each in by.values()] == [50 // 16, 25 // 5]


def test_a_batch_gives_what_each_recording_gives_alone() -> None:
    model = recogniser()
    audio, video = sound(1.0, 0.64), mouths(1.0, 0.64)
    together = model.transcribe(audio=audio, video=video, max_new_tokens=5)
    alone = [
        model.transcribe(audio=[a], video=[v], max_new_tokens=5)[0] for a, v in zip(audio, video, strict=True)
    ]
    assert together == alone


def test_each_recording_may_have_its_own_rate() -> None:
    model = recogniser("audio")
    coarse, fine = (model.at_rates(audio=rate) for rate in (16, 4))
    audio = sound(1.0, 0.2)  # the second is too short for rate 16
    apart = [
        model.transcribe(audio=[a], at=g, max_new_tokens=3)[0]
        for a, g in zip(audio[:1] * 2, (coarse, fine), strict=True)
    ]
    assert model.transcribe(audio=audio[:1] * 2, at=[coarse, fine], max_new_tokens=3) == apart
    assert len(model.transcribe(audio=audio, max_new_tokens=3)) == 2
    with pytest.raises(DataError, match="rate 16"):
        model.transcribe(audio=audio, at=[fine, coarse])


def test_a_stream_may_be_left_out() -> None:
    model = recogniser(prompts={"audio": "speech", "video": "text", "audio+video": "speech to text"})
    for given in ({"audio": sound(1.0)}, {"video": mouths(1.0)}, {"audio": sound(1.0), "video": mouths(1.0)}):
        batch = model.batch(**given)
        assert (batch.ids < 0).sum() == len(given)
        assert (batch.ids == WORDS.index("speech")).sum() == (0 if "audio" not in given else 1)
        assert len(model.transcribe(**given, max_new_tokens=2)) == 1


def test_training_learns_two_sentences_at_every_rate_and_survives_saving(tmp_path: Path) -> None:
    model = recogniser("audio", decoding={"max_new_tokens": 4}, hidden=16, strategy=None)
    model.model.lm.requires_grad_(True)  # adapters alone take longer
    audio = [torch.zeros(16_000), *sound(1.0)]
    texts = ["Bin blue now", "set red now"]
    config = TrainConfig(max_steps=40, batch_size=2, lr=0.02)
    collate = model.collate(texts, audio=audio)
    fit(model.model, model.model.objective(reduction="mean"), range(2), config, collate=collate)
    for rate in (4, 16):
        found = model.transcribe(audio=audio, at=model.at_rates(audio=rate))
        assert found == ["bin blue now", "set red now"]
    model.save(tmp_path / "saved")
    loaded = Recogniser.load(tmp_path / "saved", encoders("audio"), llama(), tokenizer())
    assert loaded.model.decoding["max_new_tokens"] == 4
    assert loaded.prompts == model.prompts
    assert loaded.transcribe(audio=audio) == found


def test_streams_are_dropped_in_their_share_of_batches() -> None:
    model = recogniser()
    given = {"audio": sound(1.0), "video": mouths(1.0)}
    torch.manual_seed(0)
    for drop, expected in ((0.0, {2}), (1.0, {1})):
        collate = model.collate(["now"], drop=drop, **given)
        assert {int((collate([0]).ids < 0).sum()) for _ in range(5)} == expected


def test_recordings_that_do_not_fit_are_refused() -> None:
    model = recogniser()
    with pytest.raises(
        DataError, match=r"row 1 has 0.10 seconds of audio, .* rate 16: at least 0.32 seconds"
    ):
        model.batch(audio=sound(1.0, 0.1), at=model.at_rates(audio=16))
    model.batch(audio=sound(1.0, 0.1), at=model.at_rates(audio=4))
    with pytest.raises(DataError, match="trim=True"):
        model.batch(audio=sound(1.0), video=mouths(0.72))
    trimmed = model.batch(audio=sound(1.0), video=mouths(0.72), trim=True)
    assert trimmed.items["audio"]["lengths"].tolist() == [11_520]
    model.batch(audio=sound(1.0), video=mouths(0.96))  # half a token apart
    with pytest.raises(DataError, match="sample_rate=8000 was given, and the encoder takes 16000"):
        model.batch(audio=sound(1.0), sample_rate=8000)
    with pytest.raises(DataError, match="2 of audio, 1 of video"):
        model.batch(audio=sound(1.0, 1.0), video=mouths(1.0))
    with pytest.raises(DataError, match="nothing to transcribe"):
        model.transcribe()
    with pytest.raises(DataError, match="leave video out"):
        recogniser("audio").batch(video=mouths(1.0))
    with pytest.raises(DataError, match="text of row 1 is empty"):
        model.batch(["now", " "], audio=sound(1.0, 1.0))
    for texts in ("now", [None]):
        with pytest.raises(DataError, match="texts must be a list with a text for each recording"):
            model.batch(texts, audio=sound(1.0))
    for given in ("a.wav", 3):
        with pytest.raises(DataError, match="audio must be a list of recordings as arrays"):
            model.batch(audio=given)
    with pytest.raises(DataError, match=r"'a\.wav'; read its file first"):
        model.batch(audio=["a.wav"])
    with pytest.raises(DataError, match="row 0 of the sound hold NaN"):
        model.transcribe(audio=[torch.full((16_000,), torch.nan)])
    with pytest.raises(DataError, match="2 texts need as many audio, not 1"):
        model.collate(["now", "red"], audio=sound(1.0))
    with pytest.raises(DataError, match="unknown stream 'lips'"):
        model.collate(["now"], lips=mouths(1.0))
    with pytest.raises(ConfigError, match="prompts has none for 'video'"):
        Recogniser(model.model, {"audio": "speech"}).transcribe(video=mouths(1.0))
    with pytest.raises(DataError, match="at least one"):
        recordings([], "audio")
    with pytest.raises(DataError, match="one shape"):
        recordings([np.zeros((3, 2)), np.zeros((3, 4))], "video")


def test_rates_and_settings_that_do_not_fit_are_refused() -> None:
    model = recogniser()
    with pytest.raises(GranularityError, match="rate=8 is not among"):
        model.at_rates(audio=8)
    with pytest.raises(ConfigError, match="unknown stream 'vidio'; did you mean 'video'"):
        model.at_rates(vidio=5)
    with pytest.raises(GranularityError):
        model.transcribe(audio=sound(1.0), at="layer=2")
    with pytest.raises(ConfigError, match="projection='shared'"):
        connector(encoders("audio")[0], [4, 16], 16, mode="stack", projection="shared")
    with pytest.raises(ConfigError, match="strategy='mss'"):
        recogniser("audio", strategy="mss", nesting="audio=125")
    with pytest.raises(ConfigError, match="each stream needs one encoder"):
        Recogniser.around(llama(), tokenizer(), encoders("audio"), RATES)
    words = tokenizer([*WORDS, "<audio>"])
    with pytest.raises(ConfigError, match="13 tokens and the language model 12"):
        Recogniser.around(llama(), words, encoders("audio"), {"audio": [4]})
    with pytest.raises(ConfigError, match="do_sample"):
        model.transcribe(audio=sound(1.0), num_beams=3, do_sample=True)


def test_a_model_for_one_rate_may_be_pooled_at_test_time() -> None:
    model = recogniser("audio", strategy="ms", projection="shared", nesting="audio=125")
    g = model.pool("audio").at_rate(16)
    batch = model.batch(audio=sound(1.0))
    for use in (model.transcribe, model.batch):
        with pytest.raises(GranularityError, match="audio=31 was not trained; trained are audio=125"):
            use(audio=sound(1.0), at=g)
    with pytest.warns(UntrainedGranularityWarning, match="audio=31 was not trained"):
        found = model.transcribe(audio=sound(1.0), at=g, strict=False, max_new_tokens=2)
    model.batch(audio=sound(1.0), at=g, strict=False)  # a second warning would fail
    tokenizer = model.model.template.tokenizer
    ids = model.model.generate(batch, g, strict=False, max_new_tokens=2)
    assert found == [tokenizer.decode(ids[0], skip_special_tokens=True).strip()]


def test_recordings_of_one_batch_may_have_sizes_that_are_no_pair() -> None:
    """The coarsest of both streams together is not trained, and only the lengths are checked at it."""
    nesting = "audio=31,video=125; audio=125,video=50; audio=125,video=125"
    model = recogniser(nesting=nesting)
    given = {"audio": sound(1.0, 1.0), "video": mouths(1.0, 1.0)}
    at = ["audio=31,video=125", "audio=125,video=50"]
    assert len(model.transcribe(**given, at=at, max_new_tokens=1)) == 2


@pytest.mark.parametrize("mode", ["mean", "stack"])
def test_both_ways_of_compression_run_at_every_rate(mode: Any) -> None:
    model = recogniser("audio", mode=mode)
    for g in model.model.nesting:
        assert torch.isfinite(model.model.loss(model.batch(["now"], audio=sound(1.0)), g))
    widths = {g: model.pool("audio").out_width(g) for g in model.model.nesting}
    assert list(widths.values()) == ([8, 8] if mode == "mean" else [16 * 8, 4 * 8])


def test_the_model_of_both_streams_obeys_the_laws() -> None:
    model = recogniser(strategy="mss").model
    for weight in model.adapters.parameters():
        weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(4))
    batch = Recogniser(model).batch(audio=sound(0.4, 0.8), video=mouths(0.4, 0.8))

    def load(folder: Path) -> PrefixLM:
        made = encoders()
        return PrefixLM.load(folder, {each.stream: each for each in made}, llama(), tokenizer=tokenizer())

    check_elastic(model, batch, load=load, tolerance=1e-4)
