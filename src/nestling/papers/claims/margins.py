"""Figures by size against margins: a claim holds where its clearance, the least distance, is not negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nestling.papers.claims.checks import Run


def differences(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[int, float]:
    """Our figures less theirs, by size."""
    return {dim: ours[dim] - theirs[dim] for dim in ours}


def over(ours: Mapping[int, float], theirs: Mapping[int, float], margins: Sequence[float]) -> Run:
    """Clearance of the gaps between two models over margins, by size; the figures show our values too."""
    clearance, figures = at_least(differences(ours, theirs), margins)
    return clearance, {**{f"MRL at {dim}": value for dim, value in ours.items()}, **figures}


def at_least(values: Mapping[int, float], margins: Sequence[float]) -> Run:
    """Clearance of values by size over the margins of the smallest sizes; the figures show all sizes."""
    pairs = list(zip(values.items(), margins, strict=False))
    figures = {f"gap at {dim} (>= {margin:g})": value for (dim, value), margin in pairs}
    rest = {f"gap at {dim}": value for dim, value in list(values.items())[len(pairs) :]}
    return min(value - margin for (_, value), margin in pairs), {**figures, **rest}
