"""Models like LLaVA, tiny and with random weights: they answer as before in full, and with fewer tokens."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from nestling.domains.vision_language import nest_llava
from nestling.domains.vision_language.llava import NestedLlava, answers_only
from nestling.errors import ConfigError, DataError, GranularityError, UntrainedGranularityWarning
from nestling.nn.lora import ScaleAdapters
from nestling.nn.tokens import Connector, GridPool, Projector
from nestling.testing import check_elastic
from nestling.training import TrainConfig, fit

IMAGE, PAD = 31, 0
VISION = {
    "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 4,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 32, "max_position_embeddings": 128,
}  # fmt: skip
SIZES = [1, 4, 16]


def llava(config: Any = LlavaConfig, model: Any = LlavaForConditionalGeneration, **settings: Any) -> Any:
    torch.manual_seed(0)
    return (
        model(
            config(
                vision_config=CLIPVisionConfig(**VISION),
                text_config=LlamaConfig(**TEXT, pad_token_id=PAD, eos_token_id=2),
                image_token_id=IMAGE,
                **settings,
            )
        )
        .double()
        .eval()
    )


def paligemma() -> Any:
    torch.manual_seed(0)
    config = PaliGemmaConfig(
        vision_config={**VISION, "model_type": "siglip_vision_model", "projection_dim": 16},
        text_config={**TEXT, "model_type": "gemma", "head_dim": 4, "pad_token_id": PAD},
        projection_dim=16,
        image_token_id=IMAGE,
    )
    return PaliGemmaForConditionalGeneration(config).double().eval()


def pixels(n: int) -> Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


def inputs(places: int = 16) -> dict[str, Tensor]:
    """As a processor gives them: two rows, padded on the left, with one picture and with two."""
    first = [1, 5, *[IMAGE] * places, 6, 7]
    second = [1, *[IMAGE] * places, 8, *[IMAGE] * places, 9, 10]
    length = max(len(first), len(second))
    rows = [[PAD] * (length - len(row)) + row for row in (first, second)]
    masks = [[0] * (length - len(row)) + [1] * len(row) for row in (first, second)]
    return {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.tensor(masks),
        "pixel_values": pixels(3),
    }


def test_a_newcomer_nests_a_llava() -> None:
    """The ten lines of the guide."""
    model = llava()  # LlavaForConditionalGeneration.from_pretrained(...)
    batch = {**inputs(), "labels": torch.where(inputs()["input_ids"] > 6, inputs()["input_ids"], -100)}

    nested = nest_llava(model, tokens=[1, 4, 16])
    fit(
        nested, nested.objective(), [batch], TrainConfig(epochs=1, batch_size=1), collate=lambda rows: rows[0]
    )
    ids = nested.generate(**inputs(), at=4, max_new_tokens=5)

    assert ids.shape == (2, 5) or (ids == 2).any()


@pytest.mark.parametrize(
    "made", [
        llava,
        partial(llava, VipLlavaConfig, VipLlavaForConditionalGeneration, vision_feature_layers=[-1, -2]),
    ], ids=["llava", "vipllava"],
)  # fmt: skip
def test_in_full_it_answers_as_before(made: Any) -> None:
    model = made()
    expected = model(**inputs()).logits
    ids = model.generate(**inputs(), max_new_tokens=4, do_sample=False, eos_token_id=None)
    nested = nest_llava(model, tokens=SIZES)
    kept = (inputs()["input_ids"] != IMAGE) & inputs()["attention_mask"].bool()
    torch.testing.assert_close(
        nested(inputs())[kept], expected[kept], rtol=1e-5, atol=1e-7
    )  # float32 rotations
    found = nested.generate(**inputs(), max_new_tokens=4, eos_token_id=None)
    assert torch.equal(found, ids[:, ids.shape[1] - 4 :])
    for at in SIZES:
        assert nested.generate(**inputs(), at=at, max_new_tokens=2, eos_token_id=None).shape == (2, 2)


def test_any_number_of_placeholders_is_right() -> None:
    nested = nest_llava(llava(), tokens=SIZES)
    for at in SIZES:
        torch.testing.assert_close(nested(inputs(16), at)[:, -2:], nested(inputs(1), at)[:, -2:])
    mixed = nested(inputs(1), [4, 1])[:, -1]
    torch.testing.assert_close(mixed, torch.stack([nested(inputs(1), 4)[0, -1], nested(inputs(1), 1)[1, -1]]))
    for places in (2, 17):
        with pytest.raises(
            DataError, match=f"hold {3 * places} placeholders for 3 pictures|the class token is"
        ):
            nested(inputs(places))
    for none in ({"pixel_values": pixels(1)}, {"input_ids": [[1, 2]]}, pixels(1)):
        with pytest.raises(DataError, match="no input_ids"):
            nested(none)
    with pytest.raises(DataError, match="there are no pixel_values"):
        nested({**inputs(), "pixel_values": None})
    with pytest.raises(DataError, match="attention_mask has the shape"):
        nested({**inputs(), "attention_mask": torch.ones(2, 3)})
    with pytest.raises(GranularityError, match="tokens=4 or tokens=16"):
        nested(inputs(), at=9)
    with pytest.raises(GranularityError, match="square windows give 1, 4, 16"):
        nest_llava(llava(), tokens=[1, 9])


def test_labels_of_placeholders_do_not_count() -> None:
    """Labels that are a copy of the ids, as many collators make them."""
    nested, ids = nest_llava(llava(), tokens=SIZES), inputs()["input_ids"]
    masked = ids.masked_fill((ids == IMAGE) | (inputs()["attention_mask"] == 0), -100)
    expected = nested.loss({**inputs(), "labels": masked}, 4)
    assert torch.equal(nested.loss({**inputs(), "labels": ids}, 4), expected)


def test_untrained_sizes_are_refused_or_warned_of_once() -> None:
    nested = nest_llava(llava(), tokens=SIZES, nesting="tokens=1,16")
    with pytest.raises(GranularityError, match="tokens=4 was not trained; trained are tokens=1,16"):
        nested(inputs(), at=4)
    with pytest.warns(UntrainedGranularityWarning, match="tokens=4 was not trained"):
        nested(inputs(), at=4, strict=False)
    nested.generate(**inputs(), at=4, strict=False, max_new_tokens=1)  # a second warning would fail


def test_text_alone() -> None:
    nested = nest_llava(llava(), tokens=SIZES)
    given = {"input_ids": torch.tensor([[1, 5, 6]])}
    torch.testing.assert_close(nested(given, at=1), nested.model(**given).logits, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pool", ["after", "before"])
@pytest.mark.parametrize("is_adapted", [False, True])
def test_laws(pool: Any, is_adapted: bool) -> None:
    def load(folder: Path) -> NestedLlava:
        return NestedLlava.load(folder, llava())

    model = llava()
    adapters = ScaleAdapters(model, "tokens=1,4,16", "ss", rank=2, alpha=1) if is_adapted else None
    for weight in adapters.parameters() if adapters else ():
        weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    nested = nest_llava(model, tokens=SIZES, pool=pool, adapters=adapters)
    nested.requires_grad_(False)
    check_elastic(nested, inputs(1), load=load, tolerance=1e-6)  # rotations are float32


def test_the_vision_encoder_has_no_adapters() -> None:
    """It runs once for all sizes, and its layers have the names of those of the language model."""
    model = llava()
    ScaleAdapters(model, "tokens=1,4,16", "ss", rank=2, alpha=1)
    adapted = {path for path, _ in model.named_modules() if path.endswith("_proj.lora_A")}
    assert len(adapted) == 2 * TEXT["num_hidden_layers"]
    assert all("language_model" in path for path in adapted)


def test_pooling_before_the_projector() -> None:
    model = llava()
    expected = model(**inputs()).logits[:, -1]
    nested = nest_llava(model, tokens=SIZES, pool="before")
    torch.testing.assert_close(nested(inputs())[:, -1], expected, rtol=1e-5, atol=1e-7)
    after = nest_llava(llava(), tokens=SIZES)(inputs(), at=1)[:, -1]
    assert not torch.allclose(nested(inputs(), at=1)[:, -1], after)


def test_own_connector_and_refusals() -> None:
    part = Connector(Projector(12, 16), GridPool((4, 4), SIZES, 16)).double()
    nested = nest_llava(llava(), connector=part)
    assert nested(inputs(), at=4).shape == (2, 36, 32)
    with pytest.raises(ConfigError, match="tokens=, or a connector="):
        nest_llava(llava())
    with pytest.raises(ConfigError, match="no model like LLaVA"):
        nest_llava(nn.Linear(1, 1), tokens=[1])
    with pytest.raises(ConfigError, match="in both directions"):
        nest_llava(paligemma(), tokens=SIZES)
    deaf = llava()
    deaf.prepare_inputs_for_generation = lambda input_ids, **_: {"input_ids": input_ids}
    with pytest.raises(ConfigError, match="cannot generate from inputs_embeds"):
        nest_llava(deaf, tokens=SIZES)


def test_labels_of_answers() -> None:
    ids = torch.tensor([[1, 5, 6, 7], [1, 5, 0, 0]])
    whole = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    prompts = {"input_ids": ids[:, :1], "attention_mask": torch.ones(2, 1)}
    assert answers_only(whole, prompts)["labels"].tolist() == [[-100, 5, 6, 7], [-100, 5, -100, -100]]


def llava_next() -> Any:
    points = [[16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]
    return llava(LlavaNextConfig, LlavaNextForConditionalGeneration, image_grid_pinpoints=points)


def tiled_inputs(model: Any) -> dict[str, Tensor]:
    """A square picture, and a wide one with padding above and below, with their usual placeholders."""
    sizes = torch.tensor([[30, 30], [10, 44]])
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randn(2, 5, 3, 16, 16, generator=generator).double()
    counts = [
        len(each) for each in model.get_image_features(pixel_values=pictures, image_sizes=sizes).pooler_output
    ]
    rows = [[1, *[IMAGE] * count, 7, 8] for count in counts]
    ids = [[PAD] * (max(map(len, rows)) - len(row)) + row for row in rows]
    given = torch.tensor(ids)
    return {
        "input_ids": given,
        "attention_mask": (given != PAD).long(),
        "pixel_values": pictures,
        "image_sizes": sizes,
    }


def test_pictures_in_tiles() -> None:
    model = llava_next()
    given = tiled_inputs(model)
    expected = model(**given).logits[:, -2:]
    nested = nest_llava(model, tokens=SIZES)
    torch.testing.assert_close(nested(given)[:, -2:], expected, rtol=1e-5, atol=1e-7)
    alone = {**{k: v[1:] for k, v in given.items()}}
    for at in SIZES:
        torch.testing.assert_close(nested(given, at)[1, -1], nested(alone, at)[0, -1])
    assert nested.generate(**given, at=1, max_new_tokens=2, eos_token_id=None).shape == (2, 2)
    # A square picture of 2 x 2 tiles: 5 views of 4 tokens and 4 rows that end.
    lengths = nested.prefix.streams.connector("image")(nested.prefix.encode(nested.read(given))["image"], 4)
    assert lengths.lengths()[0] == 5 * 4 + 4


def test_laws_of_pictures_in_tiles() -> None:
    model = llava_next()
    given = {**tiled_inputs(model), "input_ids": torch.tensor([[1, IMAGE, 7], [1, IMAGE, 7]])}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    nested = nest_llava(model, tokens=SIZES)
    nested.requires_grad_(False)
    check_elastic(nested, given, load=lambda folder: NestedLlava.load(folder, llava_next()), tolerance=1e-6)


def test_qwen() -> None:
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config={
            **TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1]},
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4},
        image_token_id=IMAGE,
    )
    model = Qwen2VLForConditionalGeneration(config).double().eval()
    patches = torch.randn(2 * 64, 3 * 2 * 4 * 4).double()  # two pictures of 8 x 8 patches, merged 2 x 2
    given = {
        "input_ids": torch.tensor([[1, IMAGE, 7], [1, IMAGE, 8]]),
        "pixel_values": patches,
        "image_grid_thw": torch.tensor([[1, 8, 8]] * 2),
    }
    with pytest.raises(ConfigError, match="give grid="):
        nest_llava(model, tokens=SIZES)
    nested = nest_llava(model, tokens=SIZES, grid=(4, 4))
    for at in SIZES:
        assert nested.generate(**given, at=at, max_new_tokens=2, eos_token_id=None).shape == (2, 2)
    assert nested(given, at=4).isfinite().all()
