"""Rows of the market's state, as stores and topics have them."""

from __future__ import annotations

from typing import Final

import numpy as np

SESSION: Final = np.dtype(
    [
        ("open", "<i8"),  # 1e-9
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<i8"),
        ("count", "<i8"),  # trades
        ("timestamp", "<i8"),  # ns, exchange time of the latest trade
        ("ingest_timestamp", "<i8"),  # ns, when the latest trade reached the ingest server
    ]
)
"""The session of a symbol, since the state began; the latest trade is the last to arrive."""

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
