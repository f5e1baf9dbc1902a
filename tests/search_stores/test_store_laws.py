"""Every store keeps every law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nestling.testing import STORE_LAWS, StoreExample


@pytest.mark.parametrize("law", STORE_LAWS, ids=lambda law: law.__name__)
def test_a_store_keeps_the_law(engine: Any, law: Callable[[StoreExample], None]) -> None:
    law(StoreExample(engine.make, engine.reopen, write=engine.write, exclusive=engine.exclusive))
