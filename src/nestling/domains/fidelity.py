"""Fidelity of the granularities or layers of a model to the full model, on texts or vectors, by a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from nestling.arguments.constraints import Whole
from nestling.data import docstring_pairs, read_pairs, read_texts
from nestling.data.tables.roles import PAIR_ROLES, TEXT_ROLES, read_roles
from nestling.encoders.pools import PoolName
from nestling.encoders.text.names import check_model
from nestling.encoders.text.opening import open_encoder
from nestling.granularity import Nesting
from nestling.measure.curve.curve import Curve
from nestling.measure.sweep import sweep
from nestling.measure.tasks.fidelity import THRESHOLDS, Fidelity
from nestling.toml_plan import PlanTable, check_names, read_tables, validated
from nestling.vectors.opening import open_vectors


class SubjectPlan(PlanTable):
    """The model to measure: a text encoder at its granularities or named layers, or vectors of a file.

    Args:
        encoder: the name or folder of a text encoder.
        vectors: a file or folder of vectors, instead of an encoder.
        nesting: the granularities, such as ``"layer=2,4,6 x dim=64,384"``; by default the encoder's own.
        layers: instead of a nesting, names of layers of the encoder, or patterns such as
            ``"0.*.encoder.layer.*"``; the last one counts as the full model.
        pool: pooling of a named layer's tokens into one vector; by default the mean.
    """

    encoder: str = "wordllama"
    vectors: str | None = None
    nesting: str | None = None
    layers: list[str] | None = Field(default=None, min_length=1)
    pool: PoolName | None = None

    @field_validator("nesting")
    @classmethod
    def _is_nesting(cls, text: str | None) -> str | None:
        return None if text is None else str(Nesting.parse(text))

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.vectors is not None and "encoder" in self.model_fields_set:
            raise ValueError("encoder and vectors are both given; give one of them")
        if self.layers is not None and (self.nesting is not None or self.vectors is not None):
            raise ValueError("layers are for an encoder; leave out layers, or nesting and vectors")
        if self.pool is not None and self.layers is None:
            raise ValueError("pool is for named layers; give layers too")
        return self


class StimuliPlan(PlanTable):
    """The texts to compare; by default the docstrings of the installed packages.

    Args:
        texts: a file of texts.
        pairs: a file of (query, document) pairs; the documents are used.
        docstrings: a folder of Python packages.
        columns: roles of columns: ``text=...``, or ``query=...,document=...`` for pairs.
    """

    texts: str | None = None
    pairs: str | None = None
    docstrings: str | None = None
    columns: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        named = sorted(self.model_fields_set - {"columns"})
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} are both given; give one source of texts")
        return self

    def read(self) -> list[str]:
        """The texts, each once.

        Raises:
            DataError: if they cannot be read.
        """
        if self.texts is not None:
            return list(
                dict.fromkeys(
                    read_texts(self.texts, **read_roles(self.columns, TEXT_ROLES), leave_out_blank=True)
                )
            )
        if self.pairs is not None:
            return list(
                dict.fromkeys(read_pairs(self.pairs, **read_roles(self.columns, PAIR_ROLES)).documents)
            )
        found = docstring_pairs(None if self.docstrings is None else [self.docstrings])
        return list(dict.fromkeys(found.documents))


class MeasurePlan(PlanTable):
    """Settings of :class:`~nestling.measure.tasks.fidelity.Fidelity`; ``k = 0`` measures no neighbours."""

    thresholds: dict[str, tuple[float, float]] = Field(default_factory=lambda: dict(THRESHOLDS))
    k: Annotated[int, Whole(0)] = 10
    limit: int = 500
    resamples: Annotated[int, Whole(1)] = 1000
    seed: Annotated[int, Whole(0)] = 0


class FidelityPlan(PlanTable):
    """A measurement: the model, its inputs, and the settings."""

    model: SubjectPlan = SubjectPlan()
    data: StimuliPlan = StimuliPlan()
    fidelity: MeasurePlan = MeasurePlan()

    @model_validator(mode="after")
    def _texts_are_encoded(self) -> Self:
        if self.model.vectors is not None and self.data.model_fields_set:
            raise ValueError("vectors need no texts; leave out [data]")
        return self


class FidelityReport(NamedTuple):
    """The result.

    Args:
        curve: fidelity at every granularity.
        layers: names of the layers ``layer=1``, ``2``, ..., if the plan names layers.
    """

    curve: Curve
    layers: tuple[str, ...]


def read_fidelity_plan(path: str | Path) -> FidelityPlan:
    """Read a plan from a TOML file with the tables ``[model]``, ``[data]`` and ``[fidelity]``.

    Raises:
        ConfigError: for a file that cannot be read, an unknown table or key (the nearest is named), or a
            value that is not allowed.
    """
    tables = read_tables(path)
    known = {
        name: tuple(field.annotation.model_fields)  # type: ignore[union-attr]
        for name, field in FidelityPlan.model_fields.items()
    }
    check_names(tables, known)
    return validated(FidelityPlan, tables)


def measure_fidelity(plan: FidelityPlan) -> FidelityReport:
    """Measure fidelity by a plan.

    Raises:
        ConfigError: for unknown layers.
        GranularityError: for granularities that the model does not have.
        DataError: for inputs that cannot be used.
    """
    how, nesting = plan.fidelity, _nesting(plan.model)
    thing, inputs = _subject(plan, nesting)
    task = Fidelity(inputs, thresholds=how.thresholds, k=how.k or None, limit=how.limit, seed=how.seed)
    name = plan.model.vectors or plan.model.encoder
    curve = sweep(thing, task, nesting, seed=how.seed, name=name, resamples=how.resamples)
    return FidelityReport(curve, getattr(thing, "layers", ()))


def _nesting(model: SubjectPlan) -> Nesting | None:
    return None if model.nesting is None else Nesting.parse(model.nesting)


def _subject(plan: FidelityPlan, nesting: Nesting | None) -> tuple[Any, Any]:
    """The model to sweep, and its inputs."""
    model = plan.model
    if model.vectors is not None:
        stored = open_vectors(model.vectors)
        return stored, np.arange(len(stored))
    check_model(model.encoder)
    texts = plan.data.read()
    if model.layers is None:
        return open_encoder(model.encoder, nesting if nesting and nesting.axes != ("dim",) else None), texts
    from nestling.encoders.activations import ModuleLayers
    from nestling.encoders.text.encoder import TextEncoder

    return ModuleLayers(TextEncoder.open(model.encoder).model, model.layers, pool=model.pool), texts
