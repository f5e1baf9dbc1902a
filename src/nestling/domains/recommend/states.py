"""States of users, which belong to the weights that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from nestling.errors import DataError
from nestling.granularity import Granularity
from nestling.nn.recurrent import Mixer


@dataclass(frozen=True, eq=False)
class UserStates:
    """The states of users after their histories; their leading entries are the states at smaller widths.

    Args:
        values: ``[users, entries]``, complex64 for a model with LRUs, else float32.
        marks: by width, a checksum of the weights that the state belongs to.
    """

    values: Tensor
    marks: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.values)

    def checked(self, network: Mixer, at: Granularity) -> Tensor:
        """The values, for a network at one width.

        Raises:
            DataError: for states of smaller width, or of other weights.
        """
        width = at["width"]
        if width not in self.marks:
            known = ", ".join(map(str, self.marks))
            raise DataError(
                f"these states hold the widths {known}, and width {width} is asked for; "
                "a state cannot be widened: compute it again from the histories, with states()"
            )
        if self.marks[width] != mark_of(network, at):
            raise DataError(
                "these states were computed by other weights than those of this model; compute them again "
                "from the histories, with states()"
            )
        return self.values


def marks_of(network: Mixer, at: Granularity) -> dict[int, str]:
    """The checksum of the weights at each width up to ``at``."""
    return {g["width"]: mark_of(network, g) for g in network.nesting.up_to(at)}


def mark_of(network: Mixer, at: Granularity) -> str:
    """A checksum of the weights that a network uses at one width."""
    found = hashlib.sha256()
    for name, weight in sorted(network.weights(at).items()):
        found.update(name.encode())
        found.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
