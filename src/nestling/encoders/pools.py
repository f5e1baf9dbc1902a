"""Names of the poolings that reduce the output of a layer to one row per input; no torch."""

from __future__ import annotations

from typing import Literal

PoolName = Literal["flatten", "mean", "first"]
