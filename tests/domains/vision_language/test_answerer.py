"""From a plan to a model that answers with fewer tokens, measured and extracted from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

import commands
from nestling.data import read_questions
from nestling.domains.vision_language.answerer import Answerer
from nestling.domains.vision_language.sweep import sweep_answers
from nestling.domains.vision_language.train_plan import ModelPlan, TrainPlan
from nestling.domains.vision_language.training import train
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.measure import Curve

# Processors of pictures without torchvision; before transformers 5.1 they have the plain names.
CLIPImageProcessorPil, LlavaNextImageProcessorPil = (
    getattr(transformers, f"{name}Pil", getattr(transformers, name))
    for name in ("CLIPImageProcessor", "LlavaNextImageProcessor")
)
WORDS = ["<pad>", "<s>", "</s>", "<image>", "what", "is", "this", "bright", "dark", "red", "blue"]
SIZE = 16
PROMPT = "<image> {question}"


def save_llava(folder: Path) -> None:
    """A LLaVA of 4 x 4 vectors a picture, with random weights, as transformers saves one."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=SIZE, patch_size=4, projection_dim=16),
        text_config=LlamaConfig(
            **small, vocab_size=len(WORDS), max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, initializer_range=0.3,
        ),
        image_token_id=WORDS.index("<image>"),
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        pictures, tokenizer, patch_size=4, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, bright and dark pictures, and tables of questions about them."""
    folder = tmp_path_factory.mktemp("pictures")
    save_llava(folder / "llava")
    draw = np.random.default_rng(0)
    rows = []
    for number in range(12):
        answer = ("dark", "bright")[number % 2]
        pixels = draw.integers(0, 60, (20, 24, 3)) + (0, 190)[number % 2]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "what is this", "answer": answer})
    (folder / "free.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{row['image']},what is this,{row['answer']},bright|dark" for row in rows]
    (folder / "choices.csv").write_text("\n".join(["image,question,answer,choices", *lines]) + "\n")
    return folder


def plan_text(place: Path, folder: Path, **model: Any) -> str:
    settings = {"base": str(place / "llava"), "tokens": [1, 4, 16], "prompt": PROMPT, "rank": 4, **model}
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return (
        f'task = "vision-language"\n[data]\npictures = "{place / "free.jsonl"}"\n[model]\n{keys}'
        f"max_new_tokens = 2\n[train]\nmax_steps = 30\nbatch_size = 12\nlr = 0.03\n"
        f'[output]\nfolder = "{folder}"\n'
    )


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The folder of a model that the command line has trained."""
    (place / "plan.toml").write_text(plan_text(place, place / "run"))
    found = commands.answer("train", place / "plan.toml")
    assert found == {"model": str(place / "run" / "model"), "nesting": "tokens=1,4,16"}
    return place / "run" / "model"


def test_the_resolved_plan_can_be_trained_again(trained: Path, place: Path) -> None:
    plan = TrainPlan.read(place / "run" / "plan.toml")
    assert plan == TrainPlan.read(place / "plan.toml")
    assert commands.answer("train", place / "run" / "plan.toml")["model"] == str(
        trained
    )  # resumes at the end


def test_a_sweep_over_tokens_is_saved_chosen_from_and_extracted(trained: Path, place: Path) -> None:
    report = place / "report"
    shown = commands.run("sweep", trained, "--pictures", place / "choices.csv", "-o", report)
    assert shown.exception is None, shown.output
    curve = Curve.load(report / "curve.json")
    assert (curve.task, curve.metrics, str(curve.nesting)) == (
        "multiple choice",
        ("accuracy",),
        "tokens=1,4,16",
    )
    assert [row.value for row in curve.column()] == [1, 1, 1]
    assert [row.tokens for row in curve.column()] == [1, 4, 16]
    flops = [row.flops for row in curve.column()]
    assert flops == pytest.approx([flops[0] * n for n in (1, 4, 16)])  # the language model reads that many
    assert [row.vector_bytes for row in curve.column()] == [4 * 16 * n for n in (1, 4, 16)]
    assert "If an oracle chose" in curve.verdict
    assert curve.verdict in shown.stdout
    assert {path.name for path in report.iterdir()} >= {"curve.png", "report.html"}
    chosen = commands.run("choose", report / "curve.json", "--max-tokens", 4).stdout.strip()
    assert chosen == "tokens=1"  # of equally good ones the cheapest
    small = commands.answer("extract", trained, "--at", "tokens=4", "-o", place / "small")
    assert small == {"model": str(place / "small"), "nesting": "tokens=1,4"}


def test_answers_must_match_and_survive_saving_and_extraction(trained: Path, place: Path) -> None:
    model, questions = Answerer.open(trained), read_questions(place / "free.jsonl")
    curve = sweep_answers(model, questions, batch_size=5, resamples=50)
    assert (curve.task, [row.value for row in curve.column()]) == ("exact match", [1, 1, 1])
    pictures = questions.pictures(range(4))
    asked = list(questions.questions[:4])
    assert model.answer(pictures, asked, [1, 4, 16, 1]) == ["dark", "bright", "dark", "bright"]
    one = model.extract("tokens=1")  # its adapters are in the weights, which are saved with it
    one.save(place / "one")
    opened = Answerer.open(place / "one")
    batch = opened.inputs(pictures, asked)
    torch.testing.assert_close(opened.nested(batch), model.nested(batch, 1), rtol=1e-4, atol=1e-4)


def test_the_labels_are_the_answer_and_its_end(trained: Path, place: Path) -> None:
    model, questions = Answerer.open(trained), read_questions(place / "free.jsonl")
    batch = model.inputs(questions.pictures([0, 1]), ["what is this", "what"], ["dark", "bright blue"])
    kept = [row[row >= 0].tolist() for row in batch["labels"]]
    assert kept == [[WORDS.index("dark"), 2], [WORDS.index("bright"), WORDS.index("blue"), 2]]
    with pytest.raises(DataError, match="each question needs a picture"):
        model.inputs(questions.pictures([0]), ["what", "what"])


@pytest.mark.parametrize("tune", ["projector", "all"])
def test_what_is_tuned_changes_and_the_rest_does_not(place: Path, tmp_path: Path, tune: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(plan_text(place, tmp_path / "run", tune=tune))
    before = dict(LlavaForConditionalGeneration.from_pretrained(place / "llava").named_parameters())
    model = train(TrainPlan.read(path, {"max_steps": 2}))
    changed = {
        name.split(".")[1]
        for name, weight in model.nested.model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert changed == {"multi_modal_projector", *(["language_model", "weight"] if tune == "all" else [])}
    model.save(tmp_path / "model")
    opened = Answerer.open(tmp_path / "model")
    for name, weight in opened.nested.model.named_parameters():
        assert torch.equal(weight, model.nested.model.get_parameter(name)), name


def test_pictures_in_tiles_are_answered_too(place: Path, tmp_path: Path) -> None:
    grids = [[16, 32], [32, 16], [32, 32]]
    plain = LlavaForConditionalGeneration.from_pretrained(place / "llava").config
    config = LlavaNextConfig(
        vision_config=plain.vision_config, text_config=plain.text_config, image_token_id=3,
        image_grid_pinpoints=grids,
    )  # fmt: skip
    LlavaNextForConditionalGeneration(config).save_pretrained(tmp_path)
    size = {"height": SIZE, "width": SIZE}
    LlavaNextProcessor(
        LlavaNextImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size, image_grid_pinpoints=grids),
        LlavaProcessor.from_pretrained(place / "llava").tokenizer, patch_size=4,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    ).save_pretrained(tmp_path)  # fmt: skip
    model = Answerer.planned(ModelPlan(base=str(tmp_path), tokens=[1, 4], prompt=PROMPT, rank=2))
    pictures = [Image.new("RGB", (40, 20), "red"), Image.new("RGB", (20, 44), "blue")]
    found = model.probabilities(
        pictures, ["what", "what"], [["red", "blue"], ["red", "blue", "dark"]], [1, 4]
    )
    for chances in found.values():
        torch.testing.assert_close(chances.sum(dim=1), torch.ones(2))
        assert chances[0, 2] == 0
    assert len(model.answer(pictures, ["what", "what"], 1, max_new_tokens=1)) == 2


def test_a_base_that_is_gone_is_named(trained: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(plan_text(place, tmp_path / "run", tune="projector"))
    model = train(TrainPlan.read(tmp_path / "plan.toml", {"max_steps": 1}))
    model.base = str(tmp_path / "gone")
    model.save(tmp_path / "model")
    with pytest.raises(DataError, match="gone"):
        Answerer.open(tmp_path / "model")
    assert Answerer.open(tmp_path / "model", base=str(place / "llava")).nesting == model.nesting
    with pytest.raises(GranularityError, match="tokens=2"):
        commands.answer("extract", trained, "--at", "tokens=2", "-o", tmp_path / "small")


def test_a_prompt_needs_a_picture_and_a_question(trained: Path) -> None:
    model = Answerer.open(trained)
    for prompt, part in (("{question}", "<image>"), ("<image>", "{question}")):
        with pytest.raises(ConfigError, match=part):
            Answerer(model.nested, model.processor, prompt=prompt)
    with pytest.raises(ConfigError, match="base="):
        Answerer(model.nested, model.processor, prompt=PROMPT).save("none")
