"""The delays between attempts: capped exponential backoff with jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

_JITTER: Final = random.Random()  # noqa: S311 - spreads load only
"""Its own, so that retries in a thread do not change the numbers of who seeds the module's."""


def delays(first_s: float = 0.05, cap_s: float = 5.0, jitter: float = 0.2) -> Iterator[float]:
    """Yield the seconds to wait before each retry: doubling from `first_s` up to `cap_s`.

    After a success, start over with a new iterator.

    Parameters
    ----------
    first_s, cap_s : float
        The same for both is a constant pause.
    jitter : float
        The share by which each delay may be shorter or longer, so that clients that lost one
        server do not reconnect at the same time.
    """
    delay_s = first_s
    while True:
        yield delay_s * _JITTER.uniform(1 - jitter, 1 + jitter)
        delay_s = min(delay_s * 2, cap_s)
