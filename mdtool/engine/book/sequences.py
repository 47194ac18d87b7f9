"""What a stream's sequence numbers say: whether something is missing, or comes in the wrong order.

A venue numbers what it sends on a channel. A file of some of the channel's instruments lacks the
numbers of the others, so that a jump says nothing by itself; and a venue's numbers also count
messages of which no MBO record is made. A jump is taken for a gap only where numbers are otherwise
consecutive. Numbers that fall within an instrument are wrong in any file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from mdtool.core.hash_kernel import move_rows
from mdtool.core.records import Records
from mdtool.engine.book import sequence_kernel as k
from mdtool.engine.book.state import BookKey, words_of

STEPS_A_JUMP: Final = 100
"""A channel's numbers count as consecutive where at most one step in so many jumps. One instrument
can make up nearly all of its channel for a while: two seconds of ESM4 jump once in 36 steps."""
_FIRST_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Channel:
    """What the numbers of a publisher's channel did.

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
        """Whether the stream has nearly all that was sent on the channel."""
        return self.jumps * STEPS_A_JUMP <= self.steps


@dataclass(frozen=True, slots=True)
class Falls:
    """How often the numbers of an instrument fell, and at which record first.

    They may begin anew on another UTC day or with a clear.
    """

    key: BookKey
    count: int
    first_record: int
    first_ts_ns: int


class Sequences:
    """Follows the sequence numbers of MBO records; those of snapshots are old ones and left out."""

    def __init__(self) -> None:
        self._records = 0
        self._channels = _Table(by_channel=True)
        self._books = _Table(by_channel=False)

    def update(self, records: Records) -> None:
        """Take the stream's next MBO records."""
        for table in (self._channels, self._books):
            table.update(records, self._records)
        self._records += len(records)

    def channels(self) -> list[Channel]:
        """Return every channel, by publisher and number."""
        rows = self._channels.rows()
        columns = (k.Q_STEPS, k.Q_JUMPS, k.Q_MISSING, k.Q_FIRST_JUMP, k.Q_FIRST_JUMP_TS)
        return [
            Channel(key >> 8, key & 0xFF, *(int(row[column]) for column in columns))
            for key, row in sorted(rows.items())
        ]

    def falls(self) -> list[Falls]:
        """Return the instruments whose numbers fell, by publisher and instrument."""
        return sorted(
            (
                Falls(
                    BookKey(key & 0xFFFF, key >> 16),
                    int(row[k.Q_FALLS]),
                    int(row[k.Q_FIRST_FALL]),
                    int(row[k.Q_FIRST_FALL_TS]),
                )
                for key, row in self._books.rows().items()
                if row[k.Q_FALLS]
            ),
            key=lambda falls: falls.key,
        )


class _Table:
    """A table of the kernel's, which grows."""

    def __init__(self, by_channel: bool) -> None:
        self._by_channel = by_channel
        self._table = np.zeros((_FIRST_ROWS, k.Q_WIDTH), np.int64)
        self._used = np.zeros(1, np.int64)

    def update(self, records: Records, number: int) -> None:
        words = words_of(records)
        done = 0
        while done < len(words):
            done = k.follow(words, done, number, self._table, self._used, self._by_channel)
            if done < len(words):
                grown = np.zeros((2 * len(self._table), k.Q_WIDTH), np.int64)
                move_rows(self._table, grown)
                self._table = grown

    def rows(self) -> dict[int, k.Words]:
        """Return the rows by their keys."""
        taken = self._table[self._table[:, k.Q_KEY] != 0]
        return {int(row[k.Q_KEY]) - 1: row for row in taken}
