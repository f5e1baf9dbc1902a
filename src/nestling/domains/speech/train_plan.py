"""Plans of training runs of speech recognisers that read few tokens of sound."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from nestling.arguments.constraints import OneOf, Real, Whole
from nestling.domains.run_plan import OutputPlan, RunPlan, SizesPlan
from nestling.toml_plan import PlanTable
from nestling.training.config import TrainConfig

SMALL = "small"
STORIES = "stories260K"
Tuned = Literal["projector", "adapters", "language_model"]
StrategyName = Literal["ms", "ss", "mss"]
ModeName = Literal["mean", "stack"]
ProjectionName = Literal["scale", "shared"]


class DataPlan(PlanTable):
    """Recordings of speech, and what is said.

    Args:
        recordings: a table of wav files and their texts, or a public data set: ``fsdd`` or ``grid``.
        columns: roles of the columns of a table, such as ``audio=file,text=sentence``.
        limit: the largest number of recordings to use.
    """

    recordings: str | None = None
    columns: str | None = None
    limit: Annotated[int | None, Whole(1) | None] = None


class ModelPlan(PlanTable):
    """The models, and what of them is trained.

    Args:
        encoder: of sound: a folder or name of Whisper, wav2vec 2.0, HuBERT or WavLM, which stays as it is; or
            ``small``, a convolutional network that is trained with the rest.
        language_model: a folder or name of a causal language model of transformers, or ``stories260K`` of the
            public data sets.
        rates: vectors of the encoder that become one token.
        tune: weights to train besides the projectors: none (``projector``), LoRA of the language model
            (``adapters``), or all of the ``language_model``.
        strategy: one adapter for all rates (``ms``), one for each (``ss``), or both (``mss``).
        rank: of an adapter.
        alpha: an adapter is scaled by alpha / rank.
        mode: a token is made of the ``mean`` of its vectors, or of a ``stack`` of them.
        projection: a projector for each rate (``scale``), or a ``shared`` one.
        hidden: width inside of a projector.
        max_new_tokens: length of the longest text.
    """

    encoder: str = SMALL
    language_model: str = STORIES
    rates: list[int] = Field(default=[4, 8, 16], min_length=1)
    tune: Annotated[Tuned, OneOf(get_args(Tuned))] = "adapters"
    strategy: Annotated[StrategyName, OneOf(get_args(StrategyName))] = "ss"
    rank: Annotated[int, Whole(1)] = 64
    alpha: Annotated[float, Real(above=0)] = 8.0
    mode: Annotated[ModeName, OneOf(get_args(ModeName))] = "mean"
    projection: Annotated[ProjectionName, OneOf(get_args(ProjectionName))] = "scale"
    hidden: Annotated[int, Whole(1)] = 2048
    max_new_tokens: Annotated[int, Whole(1)] = 64

    @field_validator("rates")
    @classmethod
    def _are_rates(cls, rates: list[int]) -> list[int]:
        for rate in rates:
            if rate < 1:
                raise ValueError(f"{rate} is no number of vectors; give whole numbers of at least 1")
        return sorted(set(rates))

    @model_validator(mode="after")
    def _stacks_are_projected_apart(self) -> ModelPlan:
        if self.mode == "stack" and self.projection == "shared":
            raise ValueError(
                "stacked vectors are wider at each rate, so no projector can be shared; set projection = "
                '"scale" or mode = "mean"'
            )
        return self


class TrainPlan(RunPlan):
    """A whole training run."""

    TASK: ClassVar[str] = "speech"
    data: DataPlan = DataPlan()
    model: ModelPlan = ModelPlan()
    loss: SizesPlan = SizesPlan()
    train: TrainConfig = TrainConfig(batch_size=16)
    output: OutputPlan = OutputPlan()
