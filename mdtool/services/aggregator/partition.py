"""The market of one partition of ticks: records in, records out, and restored from those."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.kafka.records import (
    OFFSET,
    Aggregates,
    Record,
    closed_bar_records,
    lot_record,
    open_bar_records,
    position_record,
    recent_bar_records,
    session_record,
    totals_record,
)
from mdtool.core.units import NS_PER_MS
from mdtool.engine.saved_state import SESSION, SavedState
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import INTERVALS_NS, FrameCheck, new_market
from mdtool.wire.batches import BatchError
from mdtool.wire.partitions import PartitionDecoder

log = logging.getLogger(__name__)

DEAD_LETTERS: Final = "dead_letters"
"""Among the totals, how many records could not be read."""


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """Records that are written in one transaction, with the offset that they follow from."""

    aggregates: list[Record]
    bars: list[Record]


class Partition:
    """The sessions, bars and positions of the ticks of one partition.

    Parameters
    ----------
    number : int
        Its number.
    partitions : int
        How many there are.
    config : AggregatorConfig
        What bounds the state.
    saved : Aggregates
        The content of the partition's records.

    Attributes
    ----------
    offset : int or None
        Of the next record of ticks; None before the first.
    dead_letters : int
        Records that could not be read.
    """

    def __init__(
        self, number: int, partitions: int, config: AggregatorConfig, saved: Aggregates
    ) -> None:
        self._topic_id = saved.topic_id
        self.offset = saved.totals.get(OFFSET)
        self.dead_letters = saved.totals.get(DEAD_LETTERS, 0)
        # Closed bars are on the topic of bars: only those that may be amended are needed here.
        bars_kept = config.bars_lateness_ms * NS_PER_MS // min(INTERVALS_NS) + 3
        self.market = new_market(config, bars_kept)
        self.market.hold_past()
        bars = self.market.bars
        self._max_streams = config.max_streams
        self._decoder = PartitionDecoder(number, partitions)
        self._check = FrameCheck(self.market, self._decoder.symbols)
        self._positions = dict(saved.positions)
        """The positions of all streams that have a record."""
        self._moved: set[str] = set()
        """Streams whose record is out of date."""
        symbols = list(saved.sessions)
        sessions = np.frombuffer(b"".join(saved.sessions.values()), SESSION)
        opened = saved.saved_bars(symbols, bars.lateness_ns)
        self.market.restore(
            SavedState(symbols, sessions, opened, saved.positions, saved.totals, saved.lots)
        )
        self._known_lots = self.market.symbols.lots
        self._latest_ns = np.zeros(len(symbols), np.int64)
        self._note_latest(opened)
        self._commit, self._step = self.market.commit, bars.step

    def take(self, data: bytes, offset: int) -> None:
        """Apply the record of ticks at an offset.

        Raises
        ------
        BatchError
            When it cannot be read; nothing has changed but the offset.
        """
        self.offset = offset + 1
        try:
            self._take(data)
        except BatchError:
            self.dead_letters += 1
            raise

    def changes(self) -> Changes:
        """Return what has changed since the last call."""
        market = self.market
        changed = market.changed_since(self._commit)
        names = [market.symbols[index] for index in changed.tolist()]
        sessions = market.sessions(changed)
        size, data = sessions.itemsize, sessions.tobytes()
        aggregates = [
            session_record(name, data[at * size : (at + 1) * size]) for at, name in enumerate(names)
        ]
        bars = np.concatenate(
            [market.bars.saved_since(self._step, changed), market.past_since(self._commit)]
        )
        self._commit, self._step = market.commit, market.bars.step
        self._note_latest(bars)
        is_open = bars["is_open"] == 1
        opened, closed = bars[is_open], bars[~is_open]
        ends = closed["start_ns"] + closed["interval_ns"]
        recent = closed[ends > self._latest_ns[closed["symbol"]] - market.bars.lateness_ns]
        aggregates += open_bar_records(self._names(opened), opened)
        aggregates += recent_bar_records(self._names(recent), recent, market.bars.lateness_ns)
        for index, lot in market.symbols.lots_since(self._known_lots):
            self._known_lots += 1
            aggregates.append(lot_record(market.symbols[index], lot))
        aggregates += self._position_records()
        totals = {OFFSET: self.offset or 0, DEAD_LETTERS: self.dead_letters, **market.totals()}
        aggregates.append(totals_record(self._topic_id, totals))
        return Changes(aggregates, list(closed_bar_records(self._names(closed), closed)))

    def _take(self, data: bytes) -> None:
        part = self._decoder.decode(data)
        frames = self._check.admit(part.frames)
        self.market.skip(part.stream_id, part.first_sequence)
        self.market.apply(part.stream_id, part.first_sequence, frames)
        self._moved.add(part.stream_id)

    def _note_latest(self, bars: NDArray[np.void]) -> None:
        missing = len(self.market.symbols) - len(self._latest_ns)
        self._latest_ns = np.append(self._latest_ns, np.zeros(missing, np.int64))
        np.maximum.at(self._latest_ns, bars["symbol"], bars["last_ns"])

    def _names(self, bars: NDArray[np.void]) -> list[str]:
        return [self.market.symbols[index] for index in bars["symbol"].tolist()]

    def _position_records(self) -> Iterator[Record]:
        for stream_id in self._moved:
            position = self.market.position(stream_id)
            if position is not None:
                self._positions[stream_id] = position
                yield position_record(stream_id, position)
        self._moved.clear()
        if len(self._positions) > self._max_streams:
            for stream_id in list(self._positions):
                if self.market.position(stream_id) is None:
                    del self._positions[stream_id]
                    yield position_record(stream_id, None)
