"""The session of a symbol as a row: what all its trades so far come to."""

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
"""A symbol since the state began; the latest trade is the last one to arrive."""
