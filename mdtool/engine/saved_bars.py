"""Bars as they are kept between runs, with all that a live bar knows of itself."""

from __future__ import annotations

from typing import Final

import numpy as np

SAVED_BAR: Final = np.dtype(
    [
        ("symbol", "<i8"),
        ("interval_ns", "<i8"),
        ("is_open", "<i8"),  # 1 for the newest of its series, which has not closed
        ("start_ns", "<i8"),
        ("open", "<i8"),  # 1e-9
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<i8"),
        ("count", "<i8"),  # trades
        ("first_ns", "<i8"),  # time of the trade that set the open
        ("last_ns", "<i8"),  # time of the trade that set the close
    ]
)
"""A bar of a symbol and interval.

The open bar of an interval longer than the shortest lacks the trades of the shortest one's open
bar, which are merged into it when that one closes.
"""
