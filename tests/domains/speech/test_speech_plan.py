"""From a plan to a recogniser that transcribes with fewer tokens, measured from the command line."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import HubertConfig, HubertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import commands
from nestling.data import Transcripts, read_transcripts
from nestling.domains.speech import Recogniser
from nestling.domains.speech.sweep import Transcription, WordAccuracy, sweep_transcripts
from nestling.domains.speech.train_plan import TrainPlan
from nestling.domains.speech.training import check_plan, train
from nestling.errors import ArtifactError, DataError
from nestling.measure import Curve
from nestling.measure.bootstrap import bootstrap

WORDS = ["<unk>", "<s>", "</s>", "high", "low", "tone", "transcribe", "speech", "to", "text", "."]
RATE = 8_000


def save_language_model(folder: Path) -> None:
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=len(WORDS), max_position_embeddings=200, initializer_range=0.5, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def save_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((samples * 30_000).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, and a table of tones."""
    folder = tmp_path_factory.mktemp("sound")
    save_language_model(folder / "lm")
    lines = ["audio,text"]
    for number in range(8):
        seconds = np.arange(int(RATE * (0.5 + 0.03 * number))) / RATE
        save_wav(folder / f"{number}.wav", 0.5 * np.sin(2 * np.pi * (300, 2000)[number % 2] * seconds))
        lines.append(f"{number}.wav,{('low', 'High')[number % 2]} tone")
    (folder / "tones.csv").write_text("\n".join(lines) + "\n")
    return folder


def plan_text(place: Path, folder: Path, **model: Any) -> str:
    settings = {
        "language_model": str(place / "lm"), "rates": [16, 4], "tune": "language_model", "hidden": 16,
        "max_new_tokens": 3, **model,
    }  # fmt: skip
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return (
        f'task = "speech"\n[data]\nrecordings = "{place / "tones.csv"}"\n[model]\n{keys}'
        f'[train]\nmax_steps = 30\nbatch_size = 8\nlr = 0.01\n[output]\nfolder = "{folder}"\n'
    )


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    (place / "plan.toml").write_text(plan_text(place, place / "run"))
    found = commands.answer("train", place / "plan.toml", "--seed", 1)
    assert found == {"model": str(place / "run" / "model"), "nesting": "audio=31,125"}
    return place / "run" / "model"


def test_a_sweep_over_tokens_is_saved_chosen_from_and_extracted(trained: Path, place: Path) -> None:
    report = place / "report"
    shown = commands.run("sweep", trained, "--recordings", place / "tones.csv", "--latency", "-o", report)
    assert shown.exception is None, shown.output
    curve = Curve.load(report / "curve.json")
    assert (curve.metrics, str(curve.nesting)) == (("word_accuracy",), "audio=31,125")
    assert [row.value for row in curve.column()] == [1, 1]
    assert [row.tokens for row in curve.column()] == [31, 125]
    assert all(row.latency_ms for row in curve.column())
    assert "audio=31 is one for every 16 vectors" in shown.stdout
    assert "bytes a item" not in (report / "report.html").read_text()
    assert commands.run("choose", report / "curve.json", "--max-tokens", 50).stdout.strip() == "audio=31"
    small = commands.answer("extract", trained, "--at", 31, "-o", place / "small")
    assert small["nesting"] == "audio=31"
    recordings = read_transcripts(place / "tones.csv")
    assert sweep_transcripts(Recogniser.open(place / "small"), recordings).row().value == 1


def test_adapters_of_a_single_rate_are_saved_in_the_weights(place: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    HubertModel(HubertConfig(**small, **convolutions)).save_pretrained(tmp_path / "hubert")
    text = plan_text(place, tmp_path / "run", encoder=str(tmp_path / "hubert"), tune="adapters", rank=2)
    (tmp_path / "plan.toml").write_text(text)
    plan = TrainPlan.read(tmp_path / "plan.toml", {"max_steps": 2})
    with pytest.raises(DataError, match=r"have 8000 samples a second, and .*hubert takes 16000"):
        train(plan)
    tones = read_transcripts(place / "tones.csv").audio(range(8))
    lines = ["audio,text"]
    for number, samples in enumerate(tones):
        save_wav(tmp_path / f"{number}.wav", samples.repeat(2), 16_000)
        lines.append(f"{number}.wav,low tone")
    (tmp_path / "tones.csv").write_text("\n".join(lines) + "\n")
    overrides = {"max_steps": 2, "recordings": str(tmp_path / "tones.csv")}
    model = train(TrainPlan.read(tmp_path / "plan.toml", overrides))
    model.extract("audio=31").save(tmp_path / "small")
    opened = Recogniser.open(tmp_path / "small")
    audio = read_transcripts(tmp_path / "tones.csv").audio([0, 3])
    batch = model.batch(audio=audio)
    torch.testing.assert_close(opened.model(batch), model.model(batch, "audio=31"), rtol=1e-4, atol=1e-4)


def test_an_interrupted_training_ends_as_if_it_was_not(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(folder: str) -> dict[str, torch.Tensor]:
        settings = {"max_steps": 4, "batch_size": 4, "folder": str(tmp_path / folder), "draw": "random_some"}
        plan = TrainPlan.read(place / "plan.toml", {**settings, "draw_count": 1})
        return train(plan).model.state_dict()

    (place / "plan.toml").write_text(plan_text(place, place / "run"))
    expected = weights("whole")
    read, left = Transcripts.audio, iter([True, True, False])

    def interrupted(self: Transcripts, rows: Any) -> Any:
        if not next(left):
            raise KeyboardInterrupt
        return read(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Transcripts, "audio", interrupted)
        with pytest.raises(KeyboardInterrupt, match="step 2 of 4"):
            weights("parts")
    for name, weight in weights("parts").items():
        assert torch.equal(weight, expected[name]), name


def test_a_recogniser_without_names_is_opened_in_python(trained: Path, tmp_path: Path) -> None:
    model = Recogniser.open(trained)
    model.parts = None
    model.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="names no encoder"):
        Recogniser.open(tmp_path / "model")


def test_word_accuracy_is_one_minus_the_word_error_rate() -> None:
    texts = ["low tone", "high tone", "low low tone"]
    said = np.array([["low tone", "tone", "low tone high"], texts])[:, :, None]
    task = Transcription(range(3), texts)
    scores = task.score({"x": said}, (0, 1), None)
    assert isinstance(scores, WordAccuracy)
    assert scores.errors.tolist() == [[0, 1, 2], [0, 0, 0]]
    found = bootstrap(scores, resamples=50)
    assert found.value[:, 0] == pytest.approx([1 - 3 / 7, 1])


def test_the_wrong_recordings_are_named(place: Path, tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", np.zeros(800))
    save_wav(tmp_path / "b.wav", np.zeros(800), 16_000)
    (tmp_path / "mixed.csv").write_text("audio,text\na.wav,low tone\nb.wav,low tone\n")
    with pytest.raises(DataError, match=r"b\.wav has 16000 samples a second, and .*a\.wav 8000"):
        read_transcripts(tmp_path / "mixed.csv")
    (tmp_path / "short.csv").write_text("audio,text\na.wav,low tone\n")
    plan = TrainPlan.read(None, {"recordings": str(tmp_path / "short.csv"), "rates": [4, 16]})
    with pytest.raises(DataError, match=r"a\.wav has 0\.10 seconds of sound, too short for a token of 16"):
        check_plan(plan)
    (tmp_path / "none.csv").write_text("audio,text\nc.wav,low tone\n")
    with pytest.raises(DataError, match=r"line 2 that do not exist, such as .*c\.wav"):
        read_transcripts(tmp_path / "none.csv")
    (tmp_path / "text.csv").write_text("audio,text\ntext.csv,low tone\n")
    with pytest.raises(DataError, match="is not a wav file"):
        read_transcripts(tmp_path / "text.csv")
