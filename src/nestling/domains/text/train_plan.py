"""Plans of training runs: the data, the model, the loss, the training and the output, as a TOML file.

The description of a setting in a docstring below is also the help of its flag on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import field_validator, model_validator

from nestling.arguments.constraints import OneOf, Real, Whole, constraints_of
from nestling.arguments.paths import home_path
from nestling.bits import check_bits
from nestling.data.masking import MaskedTexts
from nestling.domains.run_plan import OutputPlan, RunPlan
from nestling.errors import DataError
from nestling.granularity import Nesting
from nestling.toml_plan import PlanTable, settings_of
from nestling.training.config import TrainConfig

Tuned = Literal["adapter", "encoder", "masked"]
DrawName = Literal["every", "random_some", "sandwich", "random_prefix", "cross"]
AlignName = Literal["scores", "vectors"]

_MASKS = constraints_of(MaskedTexts)


class DataPlan(PlanTable):
    """The texts to train on; by default the docstrings of the installed packages.

    Args:
        pairs: a file of (query, document) pairs.
        scored: a file of (text, text, score) rows; the score is the similarity that people see in a pair.
        texts: a file of single texts.
        docstrings: a folder of Python packages; their docstrings make the pairs.
        columns: roles of the columns of the file, such as ``query=title,document=body,group=topic`` for
            pairs, ``first=a,second=b,score=rating`` for scored pairs, or ``text=body`` for texts.
        limit: the largest number of rows to use.
    """

    pairs: str | None = None
    scored: str | None = None
    texts: str | None = None
    docstrings: str | None = None
    columns: str | None = None
    limit: Annotated[int | None, Whole(1) | None] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("pairs", "scored", "texts", "docstrings")
        named = [name for name in sources if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are both given; name one source of data")
        return self


class ModelPlan(PlanTable):
    """The encoder, and what of it is trained.

    Args:
        encoder: the text encoder: ``wordllama``, ``minilm``, a folder, or a name on the Hugging Face hub.
        tune: weights to train: ``adapter`` (a map on top of the encoder's vectors), ``encoder`` (all weights)
            or ``masked`` (all weights, by masked-language modelling on texts).
        nesting: the granularities to train, such as ``dim=8..256``, or with all weights tuned
            ``layer=2,4,6 zip dim=32,128,384``; by default dims are doubled from 8 to the full size.
        hidden: width of the adapter's hidden layer; by default the adapter is linear.
        orthogonal: keep the adapter a rotation, so that similarities at full size do not change.
    """

    encoder: str = "wordllama"
    tune: Annotated[Tuned, OneOf(get_args(Tuned))] = "adapter"
    nesting: str | None = None
    hidden: Annotated[int | None, Whole(1) | None] = None
    orthogonal: bool = False

    @field_validator("nesting")
    @classmethod
    def _is_nesting(cls, text: str | None) -> str | None:
        return None if text is None else str(Nesting.parse(text))

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.orthogonal and self.hidden is not None:
            raise ValueError("an orthogonal adapter has no hidden layer; leave out hidden or orthogonal")
        if self.tune != "adapter" and (self.orthogonal or self.hidden is not None):
            raise ValueError("hidden and orthogonal describe an adapter; leave them out or tune the adapter")
        if self.tune == "adapter" and self.nesting and Nesting.parse(self.nesting).axes != ("dim",):
            raise ValueError(
                "an adapter is cut on dim alone; tune the encoder, or give a nesting of dims alone (and bits "
                "by themselves)"
            )
        return self


class LossPlan(PlanTable):
    """InfoNCE (CoSENT for scored pairs) at each granularity, and how the granularities are combined.

    Args:
        temperature: temperature of the softmax, or for scored pairs of the score differences; above 0.
        symmetric: add the loss of finding each document's query.
        weights: weight of each granularity in the loss, in the order of the nesting, such as ``4,2,1,1``; by
            default all are 1.
        draw: granularities that one step trains: ``every``, ``random_some``, ``sandwich``, ``random_prefix``
            or ``cross``.
        draw_count: number of granularities that ``random_some`` and ``sandwich`` draw.
        align: self-distillation from the full granularity to the smaller ones, of its ``scores`` or its
            ``vectors``.
        align_weight: weight of the self-distillation term.
        align_temperature: temperature of its softmax; by default that of the loss for scores, 1 for vectors.
        deep_documents: take documents from the last layer at every granularity.
        bits: bits of an entry to train for besides floats, such as ``1,2,4,8``: the loss sees documents as
            their codes hold them, and the model gets a code for storing vectors. This rarely pays, as codes
            made after training for floats are about as good: see "Training for few bits" in the guide "Train
            a text encoder". By default only floats.
        chunk_size: number of texts encoded at a time, by gradient caching, to save memory; by default a whole
            batch.
    """

    temperature: Annotated[float, Real(above=0, hint="0.05 is usual")] = 0.05
    symmetric: bool = False
    weights: list[float] | None = None
    draw: Annotated[DrawName, OneOf(get_args(DrawName))] = "every"
    draw_count: Annotated[int, Whole(0)] = 2
    align: Annotated[AlignName | None, OneOf(get_args(AlignName)) | None] = None
    align_weight: Annotated[float, Real(least=0)] = 1.0
    align_temperature: Annotated[float | None, Real(above=0) | None] = None
    deep_documents: bool = False
    bits: list[int] | None = None
    chunk_size: Annotated[int | None, Whole(1) | None] = None

    @field_validator("bits")
    @classmethod
    def _are_codes(cls, bits: list[int] | None) -> list[int] | None:
        for each in bits or ():
            check_bits(each)
        return sorted(set(bits)) if bits else None


class MaskingPlan(PlanTable):
    """Masking rates of masked-language modelling.

    Args:
        encoder_rate: fraction of the words that are masked for the encoder; above 0 and below 1.
        decoder_rate: fraction of the words that are masked for the decoder; above 0 and below 1.
        max_length: length of the longest text in tokens, at least 3; longer texts are cut at a random place.
    """

    encoder_rate: Annotated[float, _MASKS["encoder_rate"]] = 0.2
    decoder_rate: Annotated[float, _MASKS["decoder_rate"]] = 0.4
    max_length: Annotated[int, _MASKS["max_length"]] = 512


class TrainPlan(RunPlan):
    """A whole training run.

    Each key is in one table only, so each is also a flag of ``nestling train``.
    """

    data: DataPlan = DataPlan()
    model: ModelPlan = ModelPlan()
    loss: LossPlan = LossPlan()
    masking: MaskingPlan = MaskingPlan()
    train: TrainConfig = TrainConfig()
    output: OutputPlan = OutputPlan()

    @model_validator(mode="after")
    def _masked_texts_have_no_bits(self) -> Self:
        if self.model.tune == "masked" and self.loss.bits is not None:
            raise ValueError("bits are trained on pairs, not on masked texts; leave out bits")
        return self

    @model_validator(mode="after")
    def _scored_pairs_tune_the_encoder(self) -> Self:
        if self.data.scored is not None and (self.model.tune != "encoder" or self.loss.symmetric):
            raise ValueError(
                "scored pairs train all weights of the encoder, and neither text is a query: set "
                'tune = "encoder" and leave out symmetric'
            )
        return self


SETTINGS = settings_of(TrainPlan)
"""Every key of a plan, with its table, type, default and description."""
TABLES = TrainPlan.keys()
"""The keys of each table."""
HOMES = {key: name for name, keys in TABLES.items() for key in keys}
"""The table of each key."""


def read_plan(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> TrainPlan:
    """Read a plan from a TOML file, and override some of its keys.

    Args:
        path: the file; None starts from the defaults.
        overrides: values by key, as from the command line; None leaves a key as it is.

    Raises:
        ConfigError: for a file that cannot be read, an unknown table or key (the nearest is named), or
            a value that is not allowed.

    >>> read_plan(None, {"lr": 0.01, "nesting": "dim=8..32"}).model.nesting
    'dim=8,16,32'
    """
    return TrainPlan.read(path, overrides)


def check_sources(plan: DataPlan) -> None:
    """Refuse files and folders of data that do not exist.

    Raises:
        DataError: naming the first of them.
    """
    for name in ("pairs", "scored", "texts", "docstrings"):
        path = getattr(plan, name)
        if path is not None and not home_path(path).exists():
            raise DataError(f"{path} does not exist; give a file or folder that does as {name}=")


def write_plan(plan: TrainPlan, path: str | Path) -> None:
    """Write the plan with every setting as it was resolved.

    Raises:
        ArtifactError: if a file is there that nestling did not write.
        StorageError: if writing fails.
    """
    plan.write(path)
