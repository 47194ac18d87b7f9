"""The state from which a market is restored, in the rows of which stores and topics hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

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
"""The session of a symbol; the latest trade is the last to arrive."""

SESSION_LENGTH: Final = 2**62
"""The `interval_ns` of a SAVED_BAR that is a past session.

It is no length that bars have, and longer than any lateness: the latest one may always be amended.
"""

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


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a market is restored from.

    Attributes
    ----------
    symbols : sequence of str
        Those that have a session.
    sessions : SESSION[k]
        Of each of them.
    bars : SAVED_BAR[m]
        Their open bars, those closed ones that may still be amended, and the session before the
        current one of each that has one, in order of symbol, interval and start; `symbol` is an
        index into `symbols`.
    positions : mapping of str to int
        The next sequence of each stream, the least recently written first.
    counts : mapping of str to int
        The largest total of each name that was written.
    lots : mapping of str to int
        Of symbols whose lot is known, in units of 1e-9.
    """

    symbols: Sequence[str]
    sessions: NDArray[np.void]
    bars: NDArray[np.void]
    positions: Mapping[str, int]
    counts: Mapping[str, int]
    lots: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> Self:
        """Return the state of a market without trades."""
        return cls((), np.empty(0, SESSION), np.empty(0, SAVED_BAR), {}, {})
