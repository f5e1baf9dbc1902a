"""Plans of training runs of models that answer questions about pictures with few tokens."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator

from nestling.arguments.constraints import OneOf, Real, Whole
from nestling.domains.run_plan import OutputPlan, RunPlan, SizesPlan
from nestling.granularity import Granularity
from nestling.toml_plan import PlanTable
from nestling.training.config import TrainConfig

Tuned = Literal["projector", "adapters", "all"]
StrategyName = Literal["ms", "ss", "mss"]
QUESTION = "{question}"
PROMPT = f"USER: <image>\n{QUESTION} ASSISTANT:"


class DataPlan(PlanTable):
    """Questions about pictures.

    Args:
        pictures: a table of files of pictures, questions about them, and answers.
        columns: roles of its columns, such as ``image=file,question=q,answer=a``.
        limit: the largest number of rows to use.
    """

    pictures: str | None = None
    columns: str | None = None
    limit: Annotated[int | None, Whole(1) | None] = None


class ModelPlan(PlanTable):
    r"""The model, and what of it is trained.

    Args:
        base: a model like LLaVA: a folder of transformers, or a name on the Hugging Face hub.
        tokens: numbers of tokens of a picture, or of each view of one that is cut into tiles.
        tune: weights to train: ``projector`` (from the vision encoder to the language model), ``adapters``
            (the projector, and LoRA of the language model) or ``all`` (all but the vision encoder).
        strategy: one adapter for all numbers of tokens (``ms``), one for each (``ss``), or both (``mss``).
        rank: of an adapter.
        alpha: an adapter is scaled by alpha / rank.
        prompt: text of a request, with the model's ``<image>`` and with ``{question}``.
        max_new_tokens: length of the longest answer.
    """

    base: str | None = None
    tokens: list[int] = Field(default=[1, 9, 36, 144, 576], min_length=1)
    tune: Annotated[Tuned, OneOf(get_args(Tuned))] = "adapters"
    strategy: Annotated[StrategyName, OneOf(get_args(StrategyName))] = "ss"
    rank: Annotated[int, Whole(1)] = 16
    alpha: Annotated[float, Real(above=0)] = 16.0
    prompt: str = PROMPT
    max_new_tokens: Annotated[int, Whole(1)] = 32

    @field_validator("tokens")
    @classmethod
    def _are_sizes(cls, tokens: list[int]) -> list[int]:
        return [Granularity(tokens=size)["tokens"] for size in sorted(set(tokens))]

    @field_validator("prompt")
    @classmethod
    def _asks(cls, prompt: str) -> str:
        if prompt.count(QUESTION) != 1:
            raise ValueError(f"{QUESTION} must stand once in the prompt, where the question is put")
        return prompt


class TrainPlan(RunPlan):
    """A whole training run."""

    TASK: ClassVar[str] = "vision-language"
    data: DataPlan = DataPlan()
    model: ModelPlan = ModelPlan()
    loss: SizesPlan = SizesPlan()
    train: TrainConfig = TrainConfig(batch_size=16, lr=2e-4)
    output: OutputPlan = OutputPlan()
