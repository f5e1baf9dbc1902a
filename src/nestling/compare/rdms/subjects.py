"""Groups RDMs by subject, the unit that is resampled, left out or permuted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.labels import labels_for
from nestling.compare.rdms.rdms import RDMs

Floats = NDArray[np.float64]

_ALONE = "None if each is of another subject"


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
        """By the name of a label, or one value per matrix; None if each matrix is a subject of its own.

        Raises:
            ConfigError: for a label that the matrices do not carry.
            DataError: for another number of values than matrices.
        """
        given = range(len(rdms)) if subject is None else subject
        names, places = labels_for(rdms.labels, given, len(rdms), "subject", _ALONE)
        members = np.eye(len(names))[:, places]
        return cls(names, members / members.sum(axis=1, keepdims=True))
