"""What is wrong with a stream of MBO records, as far as the stream itself can show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from mdtool.core.records import Records, index_timestamps
from mdtool.engine.book import kernel as k
from mdtool.engine.book.sequences import Channel, Sequences
from mdtool.engine.book.state import BookKey, Books
from mdtool.engine.book.view import ANOMALIES

SEQUENCE_GAP: Final = "sequence_gap"
SEQUENCE_BACKWARDS: Final = "sequence_backwards"
KINDS: Final = (*ANOMALIES, SEQUENCE_GAP, SEQUENCE_BACKWARDS)
"""Every kind of finding: those of the books, numbers missing from a channel whose numbers are
otherwise consecutive, and numbers of an instrument that fall."""

ALIASES: Final = {"unknown": ("unknown_cancel", "unknown_modify")}
"""Names for several kinds at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How often something of a kind was found of an instrument or a channel.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    key : BookKey or None
        None where it is of a channel.
    channel : Channel or None
    count : int
        How often; of a gap, how many there are.
    first_record : int
        The number of the first record where it showed, counted from 0.
    first_ts_ns : int
        When that was received.
    """

    kind: str
    key: BookKey | None
    channel: Channel | None
    count: int
    first_record: int
    first_ts_ns: int


class Verifier:
    """Rebuilds the books of a stream, and finds what does not fit.

    Parameters
    ----------
    all_jumps : bool
        Whether every jump of a channel's numbers is a gap: the stream is meant to have all that
        was sent. Else only those are where numbers are otherwise consecutive.

    Attributes
    ----------
    books : Books
    records : int
        How many were taken.
    """

    def __init__(self, all_jumps: bool = False) -> None:
        self.books = Books()
        self.records = 0
        self._all_jumps = all_jumps
        self._sequences = Sequences()
        self._first_ts_ns: dict[tuple[int, int], int] = {}

    def update(self, records: Records) -> None:
        """Take the stream's next MBO records."""
        self.books.apply(records)
        self._sequences.update(records)
        self._date(index_timestamps(records))
        self.records += len(records)

    def channels(self) -> list[Channel]:
        """Return what the numbers of each channel did."""
        return self._sequences.channels()

    def has_gaps(self, channel: Channel) -> bool:
        """Tell whether the jumps of a channel's numbers are gaps."""
        return channel.jumps > 0 and (self._all_jumps or channel.is_consecutive)

    def findings(self) -> Iterator[Finding]:
        """Yield what was found, by book in the order in which they were met, then by channel."""
        falls = {fall.key: fall for fall in self._sequences.falls()}
        for row in range(len(self.books)):
            key = self.books.key_at(row)
            counts = self.books.state.books[row, k.B_ANOMALIES :].tolist()
            for kind, at in ANOMALIES.items():
                if counts[at]:
                    first_ts_ns = self._first_ts_ns[row, at]
                    first_record = counts[at + k.ANOMALY_KINDS]
                    yield Finding(kind, key, None, counts[at], first_record, first_ts_ns)
            if fall := falls.get(key):
                yield Finding(
                    SEQUENCE_BACKWARDS, key, None, fall.count, fall.first_record, fall.first_ts_ns
                )
        for channel in self.channels():
            if self.has_gaps(channel):
                first = channel.first_record, channel.first_ts_ns
                yield Finding(SEQUENCE_GAP, None, channel, channel.jumps, *first)

    def _date(self, ts_ns: np.ndarray) -> None:
        """Remember when the first anomaly of each kind and book was received, of those just met."""
        anomalies = self.books.state.books[: len(self.books), k.B_ANOMALIES :]
        counts = anomalies[:, : k.ANOMALY_KINDS]
        first = anomalies[:, k.ANOMALY_KINDS :]
        for row, kind in np.argwhere((counts > 0) & (first >= self.records)).tolist():
            self._first_ts_ns[row, kind] = int(ts_ns[first[row, kind] - self.records])
