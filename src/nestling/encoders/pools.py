"""How the output of a layer becomes one row an input: the names, which need no torch."""

from __future__ import annotations

from typing import Literal

PoolName = Literal["flatten", "mean", "first"]
