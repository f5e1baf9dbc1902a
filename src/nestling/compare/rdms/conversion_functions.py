"""RDMs to and from rsatoolbox, xarray and pandas: the methods of ``RDMs`` as functions."""

from __future__ import annotations

from typing import Any

from nestling.compare.rdms.rdms import RDMs


def to_rsatoolbox(rdms: RDMs) -> Any:
    """:meth:`RDMs.to_rsatoolbox <nestling.compare.rdms.rdms.RDMs.to_rsatoolbox>`."""
    return rdms.to_rsatoolbox()


def from_rsatoolbox(theirs: Any, *, stimuli: str | None = None) -> RDMs:
    """:meth:`RDMs.from_rsatoolbox <nestling.compare.rdms.rdms.RDMs.from_rsatoolbox>`."""
    return RDMs.from_rsatoolbox(theirs, stimuli=stimuli)


def to_xarray(rdms: RDMs) -> Any:
    """:meth:`RDMs.to_xarray <nestling.compare.rdms.rdms.RDMs.to_xarray>`."""
    return rdms.to_xarray()


def from_xarray(array: Any) -> RDMs:
    """:meth:`RDMs.from_xarray <nestling.compare.rdms.rdms.RDMs.from_xarray>`."""
    return RDMs.from_xarray(array)


def to_pandas(rdms: RDMs) -> Any:
    """:meth:`RDMs.to_pandas <nestling.compare.rdms.rdms.RDMs.to_pandas>`."""
    return rdms.to_pandas()


def from_pandas(frame: Any) -> RDMs:
    """:meth:`RDMs.from_pandas <nestling.compare.rdms.rdms.RDMs.from_pandas>`."""
    return RDMs.from_pandas(frame)
