"""A prefix model: the laws of elastic models, batches of any make-up, training, files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    ViTConfig,
    ViTModel,
)

from nestling.domains.prefix import Features, PrefixBatch, PrefixLM
from nestling.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    GranularityError,
    UntrainedGranularityWarning,
)
from nestling.granularity import Granularity
from nestling.nn.lora import ScaleAdapters
from nestling.nn.tokens import Connector, GridPool, Projector, ScaleProjectors, SequencePool, Tokens
from nestling.nn.tokens.resampler.query_resampler import QueryResampler
from nestling.testing import check_elastic
from nestling.training import TrainConfig, fit

WIDTH, VOCABULARY = 16, 30
SIZES = [1, 4, 16]


def language_model(**settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        **{
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 24,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
            "bos_token_id": None,
            "eos_token_id": None,
            **settings,
        }
    )
    return LlamaForCausalLM(config).double()


def encoder() -> nn.Module:
    """4 x 4 cells of 6 numbers from pictures of 8 x 8."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 6, 2, 2), nn.Tanh()).double()


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).double()


def connector(**settings: Any) -> Connector:
    torch.manual_seed(2)
    return Connector(Projector(6, WIDTH), GridPool((4, 4), SIZES, WIDTH, **settings)).double()


def model(lm: nn.Module | None = None, adapters: str | None = None, **settings: Any) -> PrefixLM:
    lm = language_model() if lm is None else lm
    found = None
    if adapters:
        found = ScaleAdapters(lm, "tokens=1,4,16", adapters, rank=2, alpha=2)
        generator = torch.Generator().manual_seed(3)
        for weight in found.parameters():
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return PrefixLM({"image": encoder()}, {"image": connector()}, lm, adapters=found, **settings)


def mixed(made: PrefixLM, *, answers: bool = False) -> PrefixBatch:
    """A row with a picture, one without, and one with two."""
    given = pictures(3)
    return made.batch(
        [[5, 6, 7], [8, 9], [-1, 3, -1, 4]],
        [[1], [2, 3], [4]] if answers else None,
        image=[given[0], None, [given[1], given[2]]],
    )


@pytest.mark.parametrize("adapters", [None, "ms", "ss", "mss"])
def test_laws(adapters: Any) -> None:
    made = model(adapters=adapters)

    def load(folder: Path) -> PrefixLM:
        return PrefixLM.load(folder, {"image": encoder()}, language_model())

    check_elastic(made, made.batch([[5, 6, 7], [8, 9]], image=pictures(2)), load=load, tolerance=1e-9)


def test_laws_of_two_streams() -> None:
    torch.manual_seed(4)
    audio = SequencePool(6, [4, 8], frames=16, axis="audio")
    video = SequencePool(5, [2, 4], frames=8, axis="video", mode="stack")
    connectors = {
        "audio": Connector(audio, ScaleProjectors.after(audio, WIDTH, hidden=8)).double(),
        "video": Connector(video, ScaleProjectors.after(video, WIDTH, hidden=8)).double(),
    }
    same = {"audio": lambda x: x, "video": lambda x: x}
    made = PrefixLM(same, connectors, language_model())
    sounds = [torch.randn(16, 6).double(), torch.randn(11, 6).double()]
    clips = [torch.randn(8, 5).double(), torch.randn(5, 5).double()]
    batch = made.batch([[5, 6], [7]], audio=sounds, video=clips)
    check_elastic(made, batch, load=lambda f: PrefixLM.load(f, same, language_model()), tolerance=1e-9)
    # A dropped stream leaves no trace.
    alone = PrefixLM({"audio": same["audio"]}, {"audio": connectors["audio"]}, language_model())
    dropped = made.batch([[5, 6], [7]], audio=sounds, video=None)
    kept = alone(alone.batch([[5, 6], [7]], audio=sounds), at="audio=2")
    torch.testing.assert_close(made(dropped, at="audio=2,video=4"), kept)
    removed = batch._replace(items={**batch.items, "video": None})
    torch.testing.assert_close(made(removed, at="audio=2,video=4")[:, [0, 2, 3]], kept)


def by_hand(made: PrefixLM, row: list[int], images: Tensor, at: int) -> Tensor:
    """Logits of the last embedding of one row, without a batch."""
    table = made.lm.get_input_embeddings()
    parts, used = [], 0
    if len(images):
        features = encoder()(images).flatten(2).mT
        tokens = made.streams.connector("image")(features, at=at).values
        tokens = tokens.flip(1) if made.streams.order == "reversed" else tokens
    for each in row:
        parts.append(tokens[used] if each == -1 else table(torch.tensor([each])))
        used += each == -1
    return made.lm(inputs_embeds=torch.cat(parts)[None]).logits[0, -1]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize(("adapters", "order"), [(None, "forward"), ("ss", "forward"), (None, "reversed")])
def test_rows_of_any_kind_equal_rows_alone(padding: Any, adapters: Any, order: Any) -> None:
    made = model(adapters=adapters, padding=padding, order=order)
    batch, given = mixed(made), pictures(3)
    rows = [([-1, 5, 6, 7], given[:1]), ([8, 9], given[:0]), ([-1, 3, -1, 4], given[1:])]
    for at in ([4, 4, 4], [1, 16, 4], [16, 1, 1]):
        logits = made(batch, at)
        for row, (ids, images) in enumerate(rows):
            if adapters:
                with made.adapters.at(at[row]):
                    alone = by_hand(made, ids, images, at[row])
            else:
                alone = by_hand(made, ids, images, at[row])
            torch.testing.assert_close(logits[row, len(ids) - 1], alone)
            assert not logits[row, len(ids) :].any()


def test_reversed_tokens_keep_their_distance_to_the_text() -> None:
    """With prefixes of one another, and places that only distances tell, fewer tokens change no score."""
    torch.manual_seed(3)
    part = Connector(QueryResampler(4, 6, (4, 4), heads=1, positions="learned"), Projector(6, WIDTH)).double()
    lm = language_model(num_hidden_layers=1)
    made = PrefixLM({"image": encoder()}, {"image": part}, lm, order="reversed")
    lm.set_attn_implementation("eager")
    batch = made.batch([[5, 6, 7]], image=pictures(1))
    scores: dict[int, Tensor] = {}

    def keep(size: int) -> Any:
        return lambda _module, _given, found: scores.update({size: found[1][0, :, -1].log()})

    for size in (2, 4):
        hook = lm.model.layers[0].self_attn.register_forward_hook(keep(size))
        made(batch, at=size)
        hook.remove()
    few, many = (each - each[:, -1:] for each in (scores[2], scores[4][:, -5:]))
    torch.testing.assert_close(few, many, atol=1e-5, rtol=1e-4)  # softmax in float32


@pytest.mark.parametrize("padding", ["left", "right"])
def test_loss_is_that_of_transformers(padding: Any) -> None:
    made = model(padding=padding)
    batch = mixed(made, answers=True)
    logits = made(batch, at=4)
    expected = [
        F.cross_entropy(logits[row, place - 1], batch.labels[row, place])
        for row, place in (batch.labels != -100).nonzero().tolist()
    ]
    torch.testing.assert_close(made.loss(batch, at=4), torch.stack(expected).mean())


@pytest.mark.parametrize("adapters", [None, "ss"])
def test_rows_without_an_answer_add_nothing(adapters: Any) -> None:
    """Also a row that is alone at its size: a mean of no losses would be NaN."""
    made = model(adapters=adapters)
    batch = mixed(made, answers=True)
    labels = batch.labels.clone()
    labels[1] = -100
    rows = [0, 2]
    kept = batch._replace(ids=batch.ids[rows], mask=batch.mask[rows], labels=labels[rows])
    expected = made.loss(kept, [4, 16])
    torch.testing.assert_close(made.loss(batch._replace(labels=labels), [4, 1, 16]), expected)
    padding = labels.masked_fill(~batch.mask | (batch.ids < 0), 7)  # what is no text has no label
    torch.testing.assert_close(made.loss(batch._replace(labels=padding), [4, 1, 16]), expected)


def test_positions_as_a_language_model_without_rotary_ones_needs_them() -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=WIDTH, n_layer=1, n_head=2, vocab_size=VOCABULARY, n_positions=32)
    lm = GPT2LMHeadModel(config).double().eval()
    left, right = (model(lm, padding=side) for side in ("left", "right"))
    torch.testing.assert_close(left(mixed(left), at=4), right(mixed(right), at=4))


@pytest.mark.parametrize("adapters", [None, "ss"])
def test_generates_what_the_logits_say(adapters: Any) -> None:
    made = model(adapters=adapters)
    batch = mixed(made)
    at = [1, 16, 4]
    found = made.generate(batch, at, max_new_tokens=3)
    ids = [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask, strict=True)]
    for _ in range(3):
        longer = made.batch(ids, image=[pictures(3)[0], None, list(pictures(3)[1:])])
        chosen = made(longer, at)
        for row, known in enumerate(ids):
            known.append(int(chosen[row, len(known) - 1].argmax()))
    assert found == [row[-3:] for row in ids]
    assert made.generate(batch, at, max_new_tokens=3, num_beams=2)


def test_generation_ends_at_the_end_of_text() -> None:
    made = model()
    batch = mixed(made)
    (first, *_), *_ = whole = made.generate(batch, max_new_tokens=4)
    assert len(whole[0]) == 4
    assert made.generate(batch, max_new_tokens=4, eos_token_id=first)[0] == []


def test_training_learns_connector_and_adapters_alone() -> None:
    made = model(adapters="mss")
    before = {name: w.clone() for name, w in made.state_dict().items()}
    for weight in made.streams.encoders.parameters():
        weight.requires_grad_(False)
    batch = mixed(made, answers=True)
    trained = TrainConfig(epochs=2, batch_size=1, lr=1e-2)
    fit(made, made.objective(), [batch], trained, collate=lambda rows: rows[0])
    changed = {name for name, w in made.state_dict().items() if not torch.equal(w, before[name])}
    assert changed
    assert all("connectors" in name or "lora" in name for name in changed)
    assert {"default"} not in changed


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("adapters", [None, "ss"])
def test_step_equals_the_summed_loss(adapters: Any, is_frozen: bool) -> None:
    """M3-8: gradients of the lean step are those of the plain sum, and items are encoded once."""
    made, plain = model(adapters=adapters), model(adapters=adapters)
    for each in (made, plain):
        each.streams.encoders.requires_grad_(not is_frozen)
    batch, calls = mixed(made, answers=True), []
    made.streams.encoders["image"].register_forward_hook(lambda *_: calls.append(1))
    for part in made.objective().train()(made, batch):
        part.total.backward()
    assert len(calls) == 1
    for at in SIZES:
        plain.loss(batch, at).backward()
    for (name, ours), theirs in zip(made.named_parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_saves_trained_parts_alone(tmp_path: Path) -> None:
    made = model(decoding={"max_new_tokens": 5}, order="reversed")
    made.lm.requires_grad_(False)
    made.lm.lm_head.requires_grad_(True)
    made.streams.encoders.requires_grad_(False)
    made.lm.lm_head.weight.data += 1
    made.save(tmp_path / "model")
    from safetensors.torch import load_file

    assert list(load_file(tmp_path / "model" / "model.safetensors")) == ["lm.lm_head.weight"]
    lm = language_model().requires_grad_(False)
    loaded = PrefixLM.load(tmp_path / "model", {"image": encoder()}, lm)
    assert lm.lm_head.weight.requires_grad
    assert loaded.decoding == {"max_new_tokens": 5}
    torch.testing.assert_close(loaded(mixed(loaded), at=4), made(mixed(made), at=4))
    with pytest.raises(ArtifactError, match=r"lm.lm_head.weight has the shape \(30, 16\)"):
        PrefixLM.load(tmp_path / "model", {"image": encoder()}, language_model(vocab_size=31))


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_exports_one_scale(tmp_path: Path, form: Any) -> None:
    made = model(adapters="mss")
    made.export(tmp_path / "small", at=4, form=form)
    part = Connector.load(tmp_path / "small" / "connectors" / "image")
    if form == "merged":
        lm = AutoModelForCausalLM.from_pretrained(tmp_path / "small" / "language_model", dtype="float64")
    else:
        from peft import PeftModel

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what peft reads
            lm = PeftModel.from_pretrained(language_model(), tmp_path / "small" / "adapter")
            lm = lm.merge_and_unload()
    plain = PrefixLM({"image": encoder()}, {"image": part}, lm)
    torch.testing.assert_close(
        plain(mixed(plain)), made(mixed(made), at=4), rtol=1e-5, atol=1e-5
    )  # float32 files


def test_untrained_sizes_are_refused_or_warned_of_once() -> None:
    made = model(nesting="tokens=1,16", adapters=None)
    batch = mixed(made)
    with pytest.raises(
        GranularityError, match=r"trained are tokens=1,16\. Use tokens=1 or tokens=16, or strict"
    ):
        made(batch, at=4)
    with pytest.raises(GranularityError, match="tokens=9 is outside the nesting tokens=1,16"):
        made(batch, at=9)
    with pytest.warns(UntrainedGranularityWarning, match="tokens=4 was not trained; trained are tokens=1,16"):
        made(batch, at=4, strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.generate(batch, at=4, strict=False, max_new_tokens=1)
    with pytest.raises(GranularityError, match="tokens=9 is outside the nesting tokens=1,4,16"):
        made(batch, at=9, strict=False)


class Words:
    """A tokenizer with the interface of transformers: one id a letter."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        ids = [3 + (ord(letter) - ord("a")) % 26 for letter in text]
        return PreTrainedConfig(input_ids=[1, *ids] if add_special_tokens else ids)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(ord("a") + each - 3) for each in ids if each > 2)


def test_template_and_text() -> None:
    made = model(tokenizer=Words(), template="a<image>b{prompt}c")
    given = pictures(3)
    batch = made.batch(
        ["de", "<image>d<image>", "f"], ["gh", "g", "h"], image=[given[0], list(given[1:]), None]
    )
    rows = [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask, strict=True)]
    assert rows[0] == [1, 3, -1, 4, 6, 7, 5, 9, 10, 2]
    assert rows[1] == [1, 3, 4, -1, 6, -1, 5, 9, 2]
    assert rows[2] == [1, 3, 4, 8, 5, 10, 2]
    assert batch.labels[0][batch.mask[0]].tolist() == [-100] * 7 + [9, 10, 2]
    answers = made.answer(["de", "f"], [1, 4], image=[given[0], None], max_new_tokens=3)
    assert all(isinstance(each, str) for each in answers)


def test_reads_models_of_transformers() -> None:
    torch.manual_seed(0)
    vit = ViTModel(
        ViTConfig(
            image_size=8, patch_size=2, num_channels=1, hidden_size=6, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=8,
        ),
        add_pooling_layer=False,
    ).double()  # fmt: skip
    part, lm = connector(), language_model()
    with pytest.raises(
        DataError, match="17 tokens do not fill a grid of 4 x 4 = 16 tokens; drop the class token"
    ):
        PrefixLM({"image": vit}, {"image": part}, lm)(PrefixBatch(*_ids([-1, 4]), {"image": pictures(1)}))
    made = PrefixLM({"image": Features(vit, layer=-2, skip=1)}, {"image": part}, lm)
    batch = made.batch([[4]], image={"pixel_values": pictures(1)})
    states = vit(pictures(1), output_hidden_states=True).hidden_states[-2][:, 1:]
    found = made.encode(batch)["image"]
    torch.testing.assert_close(found.values, states)
    with pytest.raises(ConfigError, match="layer=9 is no hidden state"):
        Features(vit, layer=9)(pictures(1))


def _ids(row: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool)


def test_half_precision_and_masks_of_items() -> None:
    """Padding of items, wherever it is, leaves no trace."""
    made = PrefixLM({"image": lambda x: x}, {"image": connector()}, language_model())
    values = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(5)).double()
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, [2, 3, 6, 7]] = False  # the upper right window
    batch = made.batch([[4, 5]], image=Tokens(values, mask))
    kept = made.streams.connector("image")(Tokens(values, mask), at=4).values[0, [0, 2, 3]]
    table = made.lm.get_input_embeddings()(torch.tensor([4, 5]))
    expected = made.lm(inputs_embeds=torch.cat([kept, table])[None]).logits[0, -1]
    torch.testing.assert_close(made(batch, at=4)[0, -1], expected)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "places": (
        lambda m: m.batch([[-1, 4]], image=[None]),
        DataError,
        "row 0 has 1 places <image> and 0 items",
    ),
    "items": (
        lambda m: m(PrefixBatch(*_ids([-1, -1]), {"image": pictures(1)})),
        DataError,
        "2 places for image and 1 items",
    ),
    "rows": (lambda m: m.batch([[4], [5]], image=pictures(3)), DataError, "3 items for 2 prompts"),
    "stream": (lambda m: m.batch([[4]], imag=pictures(1)), DataError, "'image'"),
    "prompts": (lambda m: m.batch([]), DataError, "no prompts"),
    "answers": (lambda m: m.batch([[4]], []), DataError, "1 prompts need as many answers"),
    "empty answer": (lambda m: m.batch([[4]], [[]]), DataError, "the answer of row 0 is empty"),
    "no labels": (lambda m: m.loss(m.batch([[4]], image=pictures(1))), DataError, "no answer to learn from"),
    "text": (lambda m: m.batch(["what?"], image=pictures(1)), ConfigError, "text needs a tokenizer"),
    "size": (lambda m: m(mixed(m), at=9), GranularityError, "tokens=4 or tokens=16"),
    "zero": (lambda m: m(mixed(m), at=0), GranularityError, "tokens=0 is not a size"),
    "rows at": (lambda m: m(mixed(m), at=[1, 4]), DataError, "at is a list of 2 for 3 rows"),
    "length": (
        lambda m: m.loss(m.batch([[4] * 60], [[5] * 10], image=pictures(1))),
        DataError,
        "row 0 is 86 tokens long at tokens=16, but the language model reads 64",
    ),
    "both": (lambda m: m.generate(mixed(m), granularity=4), ConfigError, "give at=4"),
    "sampling": (lambda m: m.generate(mixed(m), temperature=0.6), ConfigError, "temperature need do_sample"),
    "beams": (
        lambda m: m.generate(mixed(m), do_sample=True, num_beams=2),
        ConfigError,
        "num_beams above 1",
    ),
    "answered": (lambda m: m.generate(mixed(m, answers=True)), DataError, "the batch holds answers"),
    "nothing": (lambda m: m(PrefixBatch(*_ids([-1]), {})), DataError, "row 0 holds neither text nor an item"),
    "shapes": (
        lambda m: m.batch([[4], [5]], image=[pictures(1)[0], torch.zeros(1, 4, 4)]),
        DataError,
        "give items of one shape",
    ),
    "adapter": (lambda m: m.export("nowhere", form="adapter"), ConfigError, "no adapters to export"),
    "several sizes in a row": (
        lambda m: m(mixed(m), [1, 4, [4, 16]]),
        GranularityError,
        r"at=\[4, 16\] of row 2 is a list, but all items of a row have one size",
    ),
    "no PrefixBatch": (lambda m: m({}), DataError, "a batch is a PrefixBatch"),
    "float ids": (lambda m: m(changed(m, ids=torch.ones(3, 4))), DataError, "ids must be Int"),
    "mask of numbers": (
        lambda m: m(changed(m, mask=torch.ones(3, 4).long())),
        DataError,
        "mask must be Bool.* not torch.int64",
    ),
    "mask of another shape": (
        lambda m: m(changed(m, mask=torch.ones(3, 5).bool())),
        DataError,
        r"mask has the shape \(3, 5\), and ids \(3, 4\)",
    ),
    "labels of another shape": (
        lambda m: m.loss(changed(m, labels=torch.ones(1, 4).long())),
        DataError,
        "labels has the shape",
    ),
    "ids of another tokenizer": (lambda m: m(m.batch([[30]])), DataError, "ids hold 30, but .* 0 to 29"),
    "labels of another tokenizer": (
        lambda m: m.loss(m.batch([[1]], [[99]])),
        DataError,
        "ids hold 99, but the language model",
    ),
    "a place of no stream": (
        lambda m: m(PrefixBatch(*_ids([1, -2]), {})),
        DataError,
        "ids hold -2, but .* -1 is the lowest",
    ),
    "only labels without a start": (
        lambda m: m.loss(PrefixBatch(*_ids([1, 2]), {}, torch.tensor([[1, -100]]))),
        DataError,
        "nothing before it to learn it from",
    ),
    "only labels of places": (
        lambda m: m.loss(PrefixBatch(*_ids([1, -1]), {"image": pictures(1)}, torch.tensor([[-100, 4]]))),
        DataError,
        "no answer to learn from",
    ),
    "one prompt": (lambda m: m.batch("what?"), DataError, "prompts must be a list, one a row, not .* 'what"),
    "one answer": (lambda m: m.batch([[4]], "x"), DataError, "answers must be a list"),
    "ids that are no ids": (lambda m: m.batch([[1.5]]), DataError, r"\[1.5\] is neither text nor a list of"),
    "file names": (lambda m: m.batch([[4]], image=["a.png"]), DataError, "read and preprocess files first"),
    "at in decoding": (lambda m: m.generate(mixed(m), granularity=4), ConfigError, "give at=4"),
    "a typing error": (
        lambda m: m.generate(mixed(m), max_new_token=4),
        ConfigError,
        "max_new_token=4 is no argument of generate .* 'max_new_tokens'",
    ),
    "max_length": (lambda m: m.generate(mixed(m), max_length=9), ConfigError, "give max_new_tokens"),
    "no new tokens": (lambda m: m.generate(mixed(m), max_new_tokens=0), ConfigError, "max_new_tokens=0 must"),
    "no beams": (lambda m: m.generate(mixed(m), num_beams=0), ConfigError, "num_beams=0 must"),
}


def changed(made: PrefixLM, **fields: Tensor) -> PrefixBatch:
    return mixed(made, answers=False)._replace(**fields)


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    use, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        use(model())


def test_bad_parts() -> None:
    lm, part, x = language_model(), connector(), {"image": encoder()}
    with pytest.raises(ConfigError, match="each stream needs an encoder and a connector"):
        PrefixLM({}, {"image": part}, lm)
    with pytest.raises(ConfigError, match="16 entries at tokens=1, and the language model takes 32"):
        PrefixLM(x, {"image": part}, language_model(hidden_size=32))
    with pytest.raises(ConfigError, match="each stream needs one of its own"):
        PrefixLM({**x, "other": encoder()}, {"image": part, "other": connector()}, lm)
    with pytest.raises(ConfigError, match=r"must hold {prompt} once"):
        PrefixLM(x, {"image": part}, lm, template="<image>")
    with pytest.raises(ConfigError, match="which needs tokenizer="):
        PrefixLM(x, {"image": part}, lm, template="see <image>{prompt}")
    with pytest.raises(GranularityError, match="tokens=4 or tokens=16"):
        PrefixLM(x, {"image": part}, lm, nesting="tokens=1,9")
    for name in ("tokens", "at", "audio"):
        with pytest.raises(ConfigError, match=f"{name}=4 is no argument of generation; give at=4"):
            PrefixLM(x, {"image": part}, lm, decoding={name: 4})
    with pytest.raises(GranularityError, match="must name the axes of the connectors, tokens"):
        PrefixLM(x, {"image": part}, lm, nesting=[1, 4])
    with pytest.raises(ConfigError, match=r"'im\.age' is no name of a stream"):
        PrefixLM({"im.age": encoder()}, {"im.age": part}, lm)
    with pytest.raises(ConfigError, match="an encoder must be a module or a function, not a str"):
        PrefixLM({"image": "clip"}, {"image": part}, lm)
    others = ScaleAdapters(language_model(), "tokens=1,16", rank=2, alpha=1)
    with pytest.raises(ConfigError, match="the adapters are those of another model"):
        PrefixLM(x, {"image": part}, lm, adapters=others)
    sounds = ScaleAdapters(language_model(), "audio=1,16", rank=2, alpha=1)
    with pytest.raises(ConfigError, match="scales audio=1,16, and the connectors the axes tokens"):
        PrefixLM(x, {"image": part}, sounds.model, adapters=sounds)
    assert PrefixLM(x, {"image": part}, lm).nesting.full == Granularity(tokens=16)
