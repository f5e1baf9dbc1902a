"""Dates and times as ISO 8601 texts that sort chronologically."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.errors import DataError

_UTC = "+00:00"  # not Z, which sorts behind the point of a fraction
_DAYS = ("D", "W")


def time_text(given: datetime.date | datetime.time) -> str:
    """A date or time as text; one with a time zone is that of UTC, so that texts sort as times do.

    Raises:
        DataError: for a time that is none in UTC, before the year 1 or behind the year 9999.

    >>> time_text(datetime.datetime.fromisoformat("2024-10-27T02:30:00+02:00"))
    '2024-10-27T00:30:00+00:00'
    """
    if isinstance(given, datetime.datetime) and given.utcoffset() is not None:
        try:
            given = given.astimezone(datetime.UTC)
        except OverflowError as error:
            raise DataError(f"a field holds {given}, which is in no year from 1 to 9999 in UTC") from error
    return given.isoformat()


def is_writable(values: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """The times whose year has four digits, so that texts sort, or that are missing."""
    years = values.astype("M8[Y]").astype(np.int64) + 1970
    return np.isnat(values) | ((years >= 1) & (years <= 9999))


def are_days(values: NDArray[np.datetime64]) -> bool:
    """Whether all times are midnight, as those of a column of dates in a data frame."""
    return bool((values.astype("M8[D]") == values)[~np.isnat(values)].all())


def time_texts(values: NDArray[np.datetime64], *, is_utc: bool = False, days: bool = False) -> list[Any]:
    """Times of numpy as texts, None for missing ones; those that no text can hold stay as they are.

    Args:
        values: ``Datetime64[n]``.
        is_utc: the times are in UTC; the texts end in ``+00:00``.
        days: leave out the hours.
    """
    unit = np.datetime_data(values.dtype)[0]
    if days or unit in _DAYS:
        values, unit = values.astype("M8[D]"), "D"
    elif unit in ("h", "m"):
        values, unit = values.astype("M8[s]"), "s"
    fits = is_writable(values)
    known = values.copy()
    known[~fits] = np.datetime64("NaT")
    texts: Sequence[str] = np.datetime_as_string(known).tolist()
    zone = _UTC if is_utc and unit not in ("D", "M", "Y") else ""
    return [
        value if not is_fit else None if text == "NaT" else _shortened(text, unit) + zone
        for value, text, is_fit in zip(values, texts, fits.tolist(), strict=True)
    ]


def _shortened(text: str, unit: str) -> str:
    """A text with as many digits of a second as ``isoformat`` of Python and pandas writes."""
    if unit == "ms":
        text += "000"
    elif unit == "ns" and text.endswith("000"):
        text = text[:-3]
    return text.removesuffix(".000000")
