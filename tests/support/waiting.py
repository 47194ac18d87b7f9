"""Bounds of waits, so that what never comes fails its test where it waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

WITHIN_S: Final = 120.0
"""As long as a machine takes that has enough else to do; below the time limit of a test."""
_AGAIN_S: Final = 0.01


def bounded() -> asyncio.Timeout:
    """Return a block that raises TimeoutError when it takes too long."""
    return asyncio.timeout(WITHIN_S)


def wait_until(condition: Callable[[], object]) -> None:
    """Call a condition until it holds; raise TimeoutError when that takes too long."""
    end_s = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"does not hold after {WITHIN_S:g} s")
        time.sleep(_AGAIN_S)  # which leaves the processor to what is waited for
