"""A training run as a TOML file: what data, which model and loss, how it is trained, where it goes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nestling.arguments.paths import home_path
from nestling.errors import ConfigError, DataError, unknown
from nestling.granularity import Nesting
from nestling.plan_file import check_names, read_tables, validated
from nestling.storage.artifact import write_result
from nestling.training.config import TrainConfig

Tuned = Literal["adapter", "encoder", "masked"]
DrawName = Literal["every", "random_some", "sandwich", "random_prefix", "cross"]
AlignName = Literal["scores", "vectors"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataPlan(_Table):
    """Where the texts come from; the docstrings of the installed packages if nothing is named.

    Args:
        pairs: a file of (query, document) pairs.
        scored: a file of (text, text, score), the similarity that people see in a pair.
        texts: a file of single texts.
        docstrings: a folder of Python sources whose docstrings are the pairs.
        columns: of the file, by their part: ``query=...,document=...,group=...`` of pairs,
            ``first=...,second=...,score=...`` of scored pairs, ``text=...`` of texts.
        limit: the most rows to use.
    """

    pairs: str | None = None
    scored: str | None = None
    texts: str | None = None
    docstrings: str | None = None
    columns: str | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("pairs", "scored", "texts", "docstrings")
        named = [name for name in sources if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are both given; name one source of data")
        return self


class ModelPlan(_Table):
    """The encoder and the map that is trained on top of it.

    Args:
        encoder: the name or folder of a text encoder.
        nesting: the sizes that are trained, such as ``"dim=8..256"``, or with every weight tuned
            ``"layer=2,4,6 zip dim=32,128,384"``; None doubles the dim up to the full one.
        hidden: width of the hidden layer of the map; None for a linear map.
        orthogonal: keep the map a rotation, so that full-size similarities stay as they are.
        tune: what is trained: ``"adapter"``, the map on top; ``"encoder"``, every weight of the encoder; or
            ``"masked"``, every weight by telling masked words of texts (pre-training).
    """

    encoder: str = "wordllama"
    tune: Tuned = "adapter"
    nesting: str | None = None
    hidden: int | None = Field(default=None, ge=1)
    orthogonal: bool = False

    @field_validator("nesting")
    @classmethod
    def _is_nesting(cls, text: str | None) -> str | None:
        return None if text is None else str(Nesting.parse(text))

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.orthogonal and self.hidden is not None:
            raise ValueError("a rotation has no hidden layer; leave out hidden or orthogonal")
        if self.tune != "adapter" and (self.orthogonal or self.hidden is not None):
            raise ValueError("hidden and orthogonal describe an adapter; leave them out or tune the adapter")
        if self.tune == "adapter" and self.nesting and Nesting.parse(self.nesting).axes != ("dim",):
            raise ValueError("an adapter is cut on dim alone; tune the encoder, or name dims alone")
        return self


class LossPlan(_Table):
    """InfoNCE, or CoSENT for scored pairs, at each size, and how the sizes are weighted and drawn.

    Args:
        temperature: of the softmax, or of the differences of CoSENT; above 0.
        symmetric: also let each document pick its query.
        weights: the importance of each size, in the order of the nesting; None is 1 for all.
        draw: which sizes one step uses.
        draw_count: how many sizes ``random_some`` and ``sandwich`` draw at random.
        align: draw small granularities towards the full one: its ``"scores"`` or its ``"vectors"``.
        align_weight: of that term.
        align_temperature: of its softmax; by default that of the loss for scores and 1 for vectors.
        deep_documents: take documents from the full layer at every granularity.
        chunk_size: texts that are encoded at a time, by gradient caching; None encodes a batch at once.
    """

    temperature: float = Field(default=0.05, gt=0)
    symmetric: bool = False
    weights: list[float] | None = None
    draw: DrawName = "every"
    draw_count: int = Field(default=2, ge=0)
    align: AlignName | None = None
    align_weight: float = Field(default=1.0, ge=0)
    align_temperature: float | None = Field(default=None, gt=0)
    deep_documents: bool = False
    chunk_size: int | None = Field(default=None, ge=1)


class MaskingPlan(_Table):
    """What pre-training hides.

    Args:
        encoder_rate: share of the words that the encoder does not see.
        decoder_rate: share of the words that the decoder does not see.
        max_length: tokens of a text; longer ones are cut at random places.
    """

    encoder_rate: float = Field(default=0.2, gt=0, lt=1)
    decoder_rate: float = Field(default=0.4, gt=0, lt=1)
    max_length: int = Field(default=512, ge=3)


class OutputPlan(_Table):
    """Where the trained model, its checkpoints and its log go."""

    folder: str = "runs/train"


class TrainPlan(_Table):
    """A whole training run.

    A key stands in one table only, so that each is also an unambiguous flag of the command line.
    """

    data: DataPlan = DataPlan()
    model: ModelPlan = ModelPlan()
    loss: LossPlan = LossPlan()
    masking: MaskingPlan = MaskingPlan()
    train: TrainConfig = TrainConfig()
    output: OutputPlan = OutputPlan()

    @model_validator(mode="after")
    def _scored_pairs_tune_the_encoder(self) -> Self:
        if self.data.scored is not None and (self.model.tune != "encoder" or self.loss.symmetric):
            raise ValueError(
                "scored pairs train every weight of the encoder, and neither text is the query: set "
                'tune = "encoder" and leave out symmetric'
            )
        return self

    def to_toml(self) -> str:
        """The plan as TOML, every setting written out; those that are None are left out."""
        tables = {name: _as_dict(getattr(self, name)) for name in TABLES}
        return "\n".join(f"[{name}]\n{_to_lines(table)}" for name, table in tables.items())


def _keys(table: Any) -> tuple[str, ...]:
    return (
        tuple(table.model_fields) if hasattr(table, "model_fields") else tuple(f.name for f in fields(table))
    )


TABLES = {name: _keys(info.annotation) for name, info in TrainPlan.model_fields.items()}
"""The keys of each table."""
HOMES = {key: name for name, keys in TABLES.items() for key in keys}
"""The table of each key."""


def read_plan(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> TrainPlan:
    """Read a plan from a TOML file and set some of its keys anew.

    Args:
        path: the file; None starts from the defaults.
        overrides: values by key, as they come from the command line; those that are None are left out.

    Raises:
        ConfigError: for a file that cannot be read, an unknown table or key (the nearest is named), or
            a value that is not allowed.

    >>> read_plan(None, {"lr": 0.01, "nesting": "dim=8..32"}).model.nesting
    'dim=8,16,32'
    """
    tables = {} if path is None else read_tables(path)
    check_names(tables, TABLES)
    for key, value in (overrides or {}).items():
        if key not in HOMES:
            raise ConfigError(unknown("setting", key, HOMES))
        if value is not None:
            tables.setdefault(HOMES[key], {})[key] = value
    return validated(TrainPlan, tables)


def check_sources(plan: DataPlan) -> None:
    """Refuse files and folders of data that do not exist, before anything is made of the others.

    Raises:
        DataError: naming the first of them.
    """
    for name in ("pairs", "scored", "texts", "docstrings"):
        path = getattr(plan, name)
        if path is not None and not home_path(path).exists():
            raise DataError(f"{path} does not exist; give a file that does as {name}=")


def write_plan(plan: TrainPlan, path: str | Path) -> None:
    """Write the plan with every setting as it was resolved.

    Raises:
        ArtifactError: if another plan is there, which nestling did not write.
        StorageError: if writing fails.
    """
    write_result(path, f"# nestling: every setting of a training, as it was resolved\n{plan.to_toml()}")


def _as_dict(table: Any) -> dict[str, Any]:
    if not isinstance(table, TrainConfig):
        return dict(table)
    # TOML has no None, and leaving the key out would bring its default back.
    return {**asdict(table), "max_grad_norm": table.max_grad_norm or math.inf}


def _to_lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_to_value(value)}\n" for key, value in table.items() if value is not None)


def _to_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_to_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's escapes are TOML's too, but TOML wants the delete character escaped as well.
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        if isinstance(value, str)
        else repr(value)
    )
