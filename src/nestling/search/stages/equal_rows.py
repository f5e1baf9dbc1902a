"""Groups of equal rows in the arrays of a graph: kept where there are any, checked before they are read."""

from __future__ import annotations

from nestling.errors import ArtifactError
from nestling.search.graph.equal_rows import Equal
from nestling.search.stages.building import Built
from nestling.storage.resumable import ResumableArrays


def drop_single_groups(journal: ResumableArrays) -> None:
    """Where all rows differ, no table has to say so."""
    if "equal." not in journal or not Equal(journal["equal.first"]).is_grouped:
        journal.drop_groups("equal")


def check_equal_rows(built: Built, where: str) -> None:
    """Refuse groups of rows that are not there.

    Raises:
        ArtifactError: naming ``where`` the arrays lie.
    """
    equal = built.equal_rows()
    if equal is not None and not equal.fits(built.rows):
        raise ArtifactError(
            f"{where} says of rows that they are equal to others that are not there; build it again"
        )
