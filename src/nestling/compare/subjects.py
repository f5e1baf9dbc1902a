"""Whose matrices are whose: what is resampled, left out or permuted are subjects, not matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms import RDMs
from nestling.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subjects:
    """The subjects of matrices.

    Args:
        names: in the order of their first matrix.
        average: ``Float[subjects, m]``: its product with values of matrices are the means of subjects.
    """

    names: tuple[Any, ...]
    average: Floats

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def read(cls, rdms: RDMs, subject: str | Sequence[Any] | None) -> Subjects:
        """By the name of a label, or one value a matrix; None if each matrix is a subject of its own.

        Raises:
            DataError: for a label that the matrices do not carry, or another number of values.
        """
        values = _values(rdms, subject)
        names = tuple(dict.fromkeys(values))
        places = {name: place for place, name in enumerate(names)}
        members = np.eye(len(names))[:, [places[value] for value in values]]
        return cls(names, members / members.sum(axis=1, keepdims=True))


def _values(rdms: RDMs, subject: str | Sequence[Any] | None) -> tuple[Any, ...]:
    if subject is None:
        return tuple(range(len(rdms)))
    if isinstance(subject, str):
        if subject not in rdms.labels:
            raise DataError(
                f"the matrices carry no label {subject!r} (they carry: {', '.join(rdms.labels) or 'none'}); "
                "name the one that says whose they are, or give subject=None if each is of another subject"
            )
        return rdms.labels[subject]
    values = tuple(np.asarray(subject).tolist())
    if len(values) != len(rdms):
        raise DataError(f"subject= has {len(values)} values for {len(rdms)} matrices; give one for each")
    return values
