"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(first_s: float = 0.05, cap_s: float = 5.0, jitter: float = 0.2) -> Iterator[float]:
    """Yield seconds to wait: doubling from `first_s` up to `cap_s`, each off by at most `jitter`.

    The jitter keeps clients that lost the same server from coming back all at once.
    """
    delay_s = first_s
    while True:
        yield delay_s * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - spreads load only
        delay_s = min(delay_s * 2, cap_s)
