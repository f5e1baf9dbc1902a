"""Retrieval, learned from pairs of texts: read them, train a nested encoder, measure every size."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from nestling.data import TextPairs, docstring_pairs, pairs_from_texts, read_pairs, read_texts
from nestling.data.tables.roles import PAIR_ROLES, TEXT_ROLES, read_roles
from nestling.domains.text.loss import planned_loss
from nestling.domains.text.pairs import PairObjective, train_on_pairs
from nestling.domains.text.train_plan import DataPlan, TrainPlan, write_plan
from nestling.encoders.maps import NestedAdapter
from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Nesting
from nestling.losses import InfoNCE, Nested
from nestling.measure.baselines import pca, random_dims, truncation
from nestling.measure.curve.curve import Curve
from nestling.measure.encode import encode_task
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.vectors.matrix import usual_sizes

_VALIDATION_PAIRS = 2000
_AT_FULL_SIZE = "trained at full size"


def read_data(plan: DataPlan) -> TextPairs:
    """Read the pairs of a plan: from a file of pairs, a file of texts, or the docstrings of packages.

    Raises:
        DataError: if the file cannot be used.
    """
    if plan.pairs is not None:
        pairs = read_pairs(plan.pairs, **read_roles(plan.columns, PAIR_ROLES))
    elif plan.texts is not None:
        pairs = pairs_from_texts(
            read_texts(plan.texts, **read_roles(plan.columns, TEXT_ROLES), leave_out_blank=True)
        )
    else:
        return docstring_pairs(None if plan.docstrings is None else [plan.docstrings], limit=plan.limit)
    return pairs.head(plan.limit)


def _source(plan: DataPlan) -> str:
    """Name of a plan's data in reports."""
    named = plan.pairs or plan.texts or plan.docstrings
    return "docstrings of installed packages" if named is None else Path(named).name


class TextStudy:
    """Training by a plan on pairs of texts, and measuring on held-out pairs.

    Args:
        plan: of the training.
        pairs: split by group into training, validation and test pairs.

    Attributes:
        plain: the encoder before training.
        training: pairs to train on.
        validation: pairs to choose settings with.
        test: pairs to measure on; their groups are in no other part.
    """

    def __init__(self, plan: TrainPlan, pairs: TextPairs) -> None:
        self.plan = plan
        self.training, self.validation, self.test = pairs.split(seed=plan.train.seed)
        self.plain = TextEncoder.open(plan.model.encoder)
        self.nesting = _read_nesting(plan, self.plain)

    def train(self) -> TextEncoder:
        """Train; the resolved plan, the log and the checkpoints go into the plan's folder.

        Returns:
            The encoder followed by a trained adapter, or with ``tune = "encoder"`` the trained encoder.
        """
        write_plan(self.plan, Path(self.plan.output.folder) / "plan.toml")
        return self._train_encoder() if self.plan.model.tune == "encoder" else self._train_adapter()

    def measure(self, nested: TextEncoder) -> tuple[Curve, ...]:
        """Retrieval on the test pairs at every size.

        Returns:
            The curve of ``nested`` at every size and precision, and of the encoder's vectors: the same cut by
            truncation, and in floats after an adapter that was trained at full size only, after PCA, and to
            random dims.
        """
        seed = self.plan.train.seed
        task = Retrieval.from_pairs(self.test)
        curve = sweep(nested, task, seed=seed, name="nested", source=_source(self.plan.data))
        vectors, full = encode_task(self.plain, task), self.plain.nesting.full["dim"]
        sizes = Nesting.chain(dim=[dim for dim in self.nesting.sizes("dim") if dim <= full])
        folder = str(Path(self.plan.output.folder) / _AT_FULL_SIZE)
        at_full = self._fit_map(Nested(self._base_loss, sizes.sizes("dim")[-1:]), folder)
        return (
            curve,
            curve.truncation or truncation(vectors, sizes, seed=seed),
            sweep(at_full.transform, vectors, sizes, seed=seed, name=f"{_AT_FULL_SIZE}, then cut"),
            pca(vectors, sizes, np.concatenate(self._training_vectors), seed=seed),
            random_dims(vectors, sizes, seed=seed),
        )

    @property
    def _base_loss(self) -> InfoNCE:
        return InfoNCE(self.plan.loss.temperature, symmetric=self.plan.loss.symmetric)

    def _loss(self) -> Nested:
        return planned_loss(self.plan, self._base_loss, self.nesting)

    @cached_property
    def _training_vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.plain.encode(self.training.queries), self.plain.encode(self.training.documents)

    def _train_adapter(self) -> TextEncoder:
        """Encode once, then train an adapter on the vectors; the encoder is not changed."""
        return self.plain.with_adapter(self._fit_map(self._loss(), self.plan.output.folder))

    def _fit_map(self, loss: Nested, folder: str) -> NestedAdapter:
        plan = self.plan
        adapter = NestedAdapter(
            loss.nesting.without("bits"),
            hidden=plan.model.hidden,
            orthogonal=plan.model.orthogonal,
            loss=loss,
            config=plan.train,
        )
        queries, documents = self._training_vectors
        return adapter.fit(queries, pairs=documents, groups=self.training.groups, folder=folder)

    def _train_encoder(self) -> TextEncoder:
        """Train all weights of the encoder; sweeps of validation pairs are logged during training."""
        held_out = self.validation.head(_VALIDATION_PAIRS)
        objective = PairObjective(self._loss(), "ids", self.plan.loss.chunk_size)
        task = Retrieval.from_pairs(held_out)
        return train_on_pairs(self.plan, self.plain, PairRows(self.training), objective, task)


class PairRows(Dataset[tuple[str, str, int]]):
    """Query, document, and a number for the document's text: equal documents are no negatives."""

    def __init__(self, pairs: TextPairs) -> None:
        self.pairs = pairs
        numbers = {text: number for number, text in enumerate(dict.fromkeys(pairs.documents))}
        self.ids = [numbers[text] for text in pairs.documents]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> tuple[str, str, int]:
        return self.pairs.queries[row], self.pairs.documents[row], self.ids[row]


def _read_nesting(plan: TrainPlan, encoder: TextEncoder) -> Nesting:
    """The nesting of the plan, or 8, 16, ... up to the encoder's full dim."""
    if plan.model.nesting is not None:
        return Nesting.parse(plan.model.nesting)
    return usual_sizes(encoder.nesting.full["dim"])
