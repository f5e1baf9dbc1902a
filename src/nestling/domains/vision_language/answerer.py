"""Questions about pictures in, answers out, with as many tokens a picture as are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nestling.arguments.paths import home_path
from nestling.domains.prefix.batches import IGNORED, AtRows
from nestling.domains.prefix.likelihood import log_likelihoods
from nestling.domains.prefix.names import lasting_name, open_pretrained
from nestling.domains.vision_language.llava import NestedLlava, nest_llava
from nestling.domains.vision_language.train_plan import PROMPT, QUESTION, ModelPlan
from nestling.elastic import Cost
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.device import fastest_device
from nestling.nn.inference import evaluating
from nestling.nn.lora import ScaleAdapters
from nestling.storage.artifact import read_folder, write_folder

_KIND, _NESTED, _BASE = "answerer", "nested", "base"


class Answerer:
    """A :class:`~nestling.domains.vision_language.llava.NestedLlava` with pictures and questions in.

    Args:
        nested: the model.
        processor: of transformers, for it.
        prompt: text of a request, with the processor's place of a picture and with ``{question}``.
        base: name or folder of the model of transformers that ``nested`` is around, which ``save`` writes
            down; None saves the whole model.

    Raises:
        ConfigError: for a prompt without these.
    """

    def __init__(
        self, nested: NestedLlava, processor: Any, *, prompt: str = PROMPT, base: str | None = None
    ) -> None:
        place = getattr(processor, "image_token", "<image>")
        for part in (place, QUESTION):
            if prompt.count(part) != 1:
                raise ConfigError(f"prompt={prompt!r} must hold {part} once")
        self.nested, self.processor, self.prompt, self.base = nested, processor, prompt, base

    @classmethod
    def planned(cls, plan: ModelPlan, seed: int = 0) -> Self:
        """The untrained model of a plan; only what the plan tunes is trainable."""
        assert plan.base is not None
        model, processor = open_base(plan.base)
        adapters = None
        model.requires_grad_(False)
        if plan.tune == "adapters":
            scales = Nesting.chain(tokens=plan.tokens)
            adapters = ScaleAdapters(
                model, scales, plan.strategy, rank=plan.rank, alpha=plan.alpha, seed=seed
            )
        nested = nest_llava(
            model, plan.tokens, adapters=adapters, decoding={"max_new_tokens": plan.max_new_tokens}
        )
        for part in _tuned(model, plan):
            part.requires_grad_(True)
        return cls(nested, processor, prompt=plan.prompt, base=lasting_name(plan.base))

    @property
    def nesting(self) -> Nesting:
        """The numbers of tokens."""
        return self.nested.nesting

    def inputs(
        self, pictures: Sequence[Any], questions: Sequence[str], answers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """What the model reads, with ``labels`` where answers are given; prompts are no labels.

        Args:
            pictures: of ``PIL.Image``, one a question.
            questions: texts.
            answers: texts to learn from.

        Raises:
            DataError: for another number of pictures or answers than of questions.
        """
        counts = {len(pictures), len(questions), len(questions if answers is None else answers)}
        if len(counts) > 1:
            raise DataError("each question needs a picture, and an answer where answers are given")
        prompts = [self.prompt.replace(QUESTION, question) for question in questions]
        read = self.processor(
            images=list(pictures), text=prompts, padding=True, padding_side="right", return_tensors="pt"
        )
        inputs = dict(read)
        if answers is None:
            return inputs
        return inputs | _continued(inputs, [self._answer_ids(answer) for answer in answers])

    def answer(
        self, pictures: Sequence[Any], questions: Sequence[str], /, at: AtRows = None, **decoding: Any
    ) -> list[str]:
        """The answers as text.

        Args:
            pictures: of ``PIL.Image``, one a question.
            questions: texts.
            at: a number of tokens, or a list with one a question.
            decoding: arguments of ``generate`` of transformers, in the place of those that were saved.
        """
        inputs = _moved(self.inputs(pictures, questions), self._device)
        ids = self.nested.generate(**inputs, at=at, **decoding)
        texts = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def probabilities(
        self,
        pictures: Sequence[Any],
        questions: Sequence[str],
        choices: Sequence[Sequence[str]],
        granularities: Sequence[At],
    ) -> dict[Granularity, Tensor]:
        """The probability of each choice, ``Float[n, choices]``, by the likelihood of its text.

        A question with fewer choices than others has zeros at the end.

        Args:
            pictures: of ``PIL.Image``, one a question.
            questions: texts.
            choices: of each question.
            granularities: numbers of tokens.
        """
        rows = [row for row, each in enumerate(choices) for _ in each]
        texts = [text for each in choices for text in each]
        asked = [questions[row] for row in rows]
        inputs = _moved(self.inputs([pictures[row] for row in rows], asked, texts), self._device)
        with evaluating(self.nested):
            found = log_likelihoods(self.nested.prefix, self.nested.read(inputs), granularities)
        counts = [len(each) for each in choices]
        return {
            g: pad_sequence([each.softmax(0) for each in torch.split(likely, counts)], batch_first=True).cpu()
            for g, likely in found.items()
        }

    def cost(self, at: At = None) -> Cost:
        """Of one picture in the language model; see :meth:`PrefixLM.cost`."""
        return self.nested.cost(at)

    def extract(self, at: At) -> Answerer:
        """A copy with the numbers of tokens up to ``at``; a single one has its adapters in the weights."""
        small = self.nested.extract(at)
        is_merged = self.nested.prefix.adapters is not None and small.prefix.adapters is None
        return Answerer(small, self.processor, prompt=self.prompt, base=None if is_merged else self.base)

    def save(self, folder: str | Path, /) -> None:
        """Write the trained parts, and the name of the base, or the whole model, as a verified folder.

        Raises:
            ConfigError: for adapters without the name of a base.
        """
        if self.base is None and self.nested.prefix.adapters is not None:
            raise ConfigError("a model with adapters is saved beside its base; give Answerer(..., base=...)")
        settings = {"prompt": self.prompt, "base": self.base}
        with write_folder(folder, _KIND, nesting=self.nesting, settings=settings) as path:
            self.nested.save(path / _NESTED)
            if self.base is None:
                self.nested.model.save_pretrained(str(path / _BASE))
                self.processor.save_pretrained(str(path / _BASE))

    @classmethod
    def open(cls, folder: str | Path, /, base: str | None = None) -> Self:
        """What ``save`` wrote, on a GPU where there is one.

        Args:
            folder: that was saved.
            base: name or folder of its base, if that is no longer where it was.

        Raises:
            ArtifactError: if the folder is torn or altered, or its weights do not fit the base.
            DataError: if the base is not there.
        """
        manifest = read_folder(folder, _KIND)
        name = base or manifest.settings["base"]
        model, processor = open_base(name or str(home_path(folder) / _BASE))
        model.requires_grad_(False)
        nested = NestedLlava.load(home_path(folder) / _NESTED, model)
        return cls(nested.to(fastest_device()), processor, prompt=manifest.settings["prompt"], base=name)

    @property
    def _device(self) -> torch.device:
        return next(self.nested.parameters()).device

    def _answer_ids(self, answer: str) -> Tensor:
        tokenizer = self.processor.tokenizer
        ids = list(tokenizer(answer, add_special_tokens=False).input_ids)
        return torch.tensor([*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])])


def open_base(name: str) -> tuple[Any, Any]:
    """A model like LLaVA in float32, and its processor.

    Raises:
        DataError: if there is none of this name.
    """
    what = "model like LLaVA"
    model = open_pretrained("AutoModelForImageTextToText", name, what)
    return model, open_pretrained("AutoProcessor", name, what)


def _tuned(model: Any, plan: ModelPlan) -> list[nn.Module]:
    """The parts of the model whose own weights are trained.

    Raises:
        ConfigError: for a model without a projector.
    """
    inner = getattr(model, "model", model)
    projector = getattr(inner, "multi_modal_projector", None)
    if not isinstance(projector, nn.Module):
        raise ConfigError(
            f"{plan.base} has no projector apart from its vision encoder, which training needs; NestedLlava "
            "trains what you choose in Python"
        )
    if plan.tune != "all":
        return [projector]
    head = model.get_output_embeddings()
    return [projector, model.get_decoder(), *([] if head is None else [head])]


def _continued(inputs: Mapping[str, Tensor], answers: Sequence[Tensor]) -> dict[str, Tensor]:
    """Ids, mask and labels of prompts that answers follow, padded at the end."""
    prompts = [
        ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    rows = [torch.cat([prompt, answer]) for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [
        torch.cat([torch.full_like(prompt, IGNORED), answer])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return {
        "input_ids": pad_sequence(rows, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def _moved(inputs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: each.to(device) if isinstance(each, Tensor) else each for name, each in inputs.items()}
