"""What is wrong with a stream of MBO records, as far as the stream itself can show it.

Of sequence numbers: a venue numbers what it sends on a channel. A file of some of the channel's
instruments lacks the numbers of the others, so that a jump proves nothing by itself; and a venue's
numbers also count messages of which no MBO record is made. A jump counts as a gap only where
numbers are otherwise consecutive. Numbers that fall within an instrument are wrong in any file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from mdtool.core import stream_warnings
from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO
from mdtool.core.instruments import Indices, with_room
from mdtool.core.records import Records, index_timestamps
from mdtool.core.stream_warnings import StreamWarning, warnings_in
from mdtool.engine.book import kernel as k
from mdtool.engine.book import stream_kernel as q
from mdtool.engine.book.state import Books, words_of
from mdtool.engine.book.view import ANOMALIES

STEPS_A_JUMP: Final = 100
"""A channel's numbers count as consecutive where at most one step in so many jumps. One instrument
can make up nearly all of its channel for a while: two seconds of ESM4 jump once in 36 steps."""
SEQUENCE_GAP: Final = "sequence_gap"
SEQUENCE_BACKWARDS: Final = "sequence_backwards"
KINDS: Final = (*ANOMALIES, SEQUENCE_GAP, SEQUENCE_BACKWARDS, *stream_warnings.KINDS)
"""Every kind of finding: those of the books, numbers missing from a channel whose numbers are
otherwise consecutive, numbers of an instrument that fall, and warnings of the stream itself."""

ALIASES: Final = {"unknown": ("unknown_cancel", "unknown_modify")}
"""Names for several kinds at once."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The steps and jumps of the sequence numbers of a publisher's channel.

    Attributes
    ----------
    publisher_id, channel_id : int
    steps, jumps : int
        How often they rose, and how often of that by more than 1.
    missing : int
        How many numbers the jumps left out.
    first_record, first_ts_ns : int
        The record after the first jump, where there was one.
    """

    publisher_id: int
    channel_id: int
    steps: int
    jumps: int
    missing: int
    first_record: int
    first_ts_ns: int

    @property
    def is_consecutive(self) -> bool:
        """Whether the stream has nearly all messages of the channel."""
        return self.jumps * STEPS_A_JUMP <= self.steps


@dataclass(frozen=True, slots=True)
class Falls:
    """How often the numbers of an instrument fell, and at which record first.

    They may restart on another UTC day or with a clear.
    """

    instrument: int
    count: int
    first_record: int
    first_ts_ns: int


@dataclass(frozen=True, slots=True)
class Finding:
    """How often an anomaly of a kind was found, of an instrument or a channel.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    instrument : int or None
        Its index; None where it is of a channel, or of the stream.
    channel : Channel or None
    count : int
        How often; of a gap, how many there are.
    first_record : int
        The number of the first record where it showed, counted from 0.
    first_ts_ns : int
        When that was received.
    warning : StreamWarning or None
        The first one, where the finding is of the stream as a whole.
    """

    kind: str
    instrument: int | None
    channel: Channel | None
    count: int
    first_record: int
    first_ts_ns: int
    warning: StreamWarning | None = None


class Verifier:
    """Rebuilds the books of a stream, and finds anomalies.

    Parameters
    ----------
    all_jumps : bool
        Whether every jump of a channel's numbers is a gap, because the stream should be complete.
        Otherwise only jumps among numbers that are otherwise consecutive are gaps.

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
        self._warnings: list[tuple[int, StreamWarning]] = []
        """Each with the number of MBO records before it."""

    def update(self, batch: Batch) -> None:
        """Take the stream's next MBO or control records."""
        if batch.records.dtype != MBO:
            if warnings := warnings_in(batch.records):
                self._warnings += [(self.records, warning) for warning in warnings]
                self.books.mark_partial()
            return
        self.books.apply(batch)
        self._sequences.update(batch)
        self._date(index_timestamps(batch.records))
        self.records += len(batch)

    def channels(self) -> list[Channel]:
        """Return the sequence numbers' steps and jumps by channel."""
        return self._sequences.channels()

    def has_gaps(self, channel: Channel) -> bool:
        """Return whether the jumps of a channel's numbers are gaps."""
        return channel.jumps > 0 and (self._all_jumps or channel.is_consecutive)

    def findings(self) -> Iterator[Finding]:
        """Yield findings: by book, in the order of their first records, by channel, of all."""
        falls = {fall.instrument: fall for fall in self._sequences.falls()}
        for row, instrument in enumerate(self.books.instruments().tolist()):
            counts = self.books.state.books[row, k.B_ANOMALIES :].tolist()
            for kind, at in ANOMALIES.items():
                if counts[at]:
                    first_ts_ns = self._first_ts_ns[row, at]
                    first_record = counts[at + k.ANOMALY_KINDS]
                    yield Finding(kind, instrument, None, counts[at], first_record, first_ts_ns)
            if fall := falls.get(instrument):
                yield Finding(
                    SEQUENCE_BACKWARDS,
                    instrument,
                    None,
                    fall.count,
                    fall.first_record,
                    fall.first_ts_ns,
                )
        for channel in self.channels():
            if self.has_gaps(channel):
                first = channel.first_record, channel.first_ts_ns
                yield Finding(SEQUENCE_GAP, None, channel, channel.jumps, *first)
        for kind in stream_warnings.KINDS:
            of_kind = [found for found in self._warnings if found[1].kind == kind]
            if of_kind:
                record, warning = of_kind[0]
                yield Finding(kind, None, None, len(of_kind), record, warning.ts_ns, warning)

    def _date(self, ts_ns: np.ndarray) -> None:
        """Store when the first anomalies among the latest records were received."""
        anomalies = self.books.state.books[: len(self.books), k.B_ANOMALIES :]
        counts = anomalies[:, : k.ANOMALY_KINDS]
        first = anomalies[:, k.ANOMALY_KINDS :]
        for row, kind in np.argwhere((counts > 0) & (first >= self.records)).tolist():
            self._first_ts_ns[row, kind] = int(ts_ns[first[row, kind] - self.records])


class Sequences:
    """Follows the sequence numbers of MBO records; those of snapshots are old ones and left out."""

    def __init__(self) -> None:
        self._records = 0
        self._channels = np.zeros((0, q.Q_WIDTH), np.int64)
        self._instruments = np.zeros((0, q.Q_WIDTH), np.int64)
        self._row_of_channel = np.zeros(0, np.int64)
        """The row of each channel, plus 1, by `publisher_id << 8 | channel_id`; 0 for none."""

    def update(self, batch: Batch) -> None:
        """Take the stream's next MBO records."""
        words = words_of(batch.records)
        channel = self._channels_of(batch.records)
        self._channels = with_room(self._channels, channel, 0)
        q.follow(words, channel, self._records, self._channels)
        self._instruments = with_room(self._instruments, batch.instrument, 0)
        q.follow(words, batch.instrument, self._records, self._instruments)
        self._records += len(batch)

    def channels(self) -> list[Channel]:
        """Return every channel, by publisher and number."""
        columns = (q.Q_STEPS, q.Q_JUMPS, q.Q_MISSING, q.Q_FIRST_JUMP, q.Q_FIRST_JUMP_TS)
        found = []
        for key in np.flatnonzero(self._row_of_channel).tolist():
            row = self._channels[self._row_of_channel[key] - 1]
            if row[q.Q_SEEN]:
                found.append(Channel(key >> 8, key & 0xFF, *(int(row[at]) for at in columns)))
        return found

    def falls(self) -> list[Falls]:
        """Return the instruments whose numbers fell."""
        columns = (q.Q_FALLS, q.Q_FIRST_FALL, q.Q_FIRST_FALL_TS)
        return [
            Falls(instrument, *(int(self._instruments[instrument, at]) for at in columns))
            for instrument in np.flatnonzero(self._instruments[:, q.Q_FALLS]).tolist()
        ]

    def _channels_of(self, records: Records) -> Indices:
        """Return the row of each record's channel, a new one where it has none yet."""
        keys = records["publisher_id"].astype(np.int64) << 8 | records["channel_id"]
        self._row_of_channel = with_room(self._row_of_channel, keys, 0)
        rows = self._row_of_channel[keys]
        if not rows.all():
            new = np.unique(keys[rows == 0])
            first = int(self._row_of_channel.max()) + 1
            self._row_of_channel[new] = np.arange(first, first + len(new))
            rows = self._row_of_channel[keys]
        found: Indices = (rows - 1).astype(np.uint32)
        return found
