"""Records of ticks into the market of a store: each trade in the place that Kafka gave it, once."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.sequences import FRAMES, sequence_at, source_of, stream_of
from mdtool.engine.market import Change, Market
from mdtool.services.aggregator.intake import Translation
from mdtool.wire.tick_parts import Part, PartReader
from mdtool.wire.ticks import Ticks

_NOTHING: Final = Ticks.empty()


class BusIntake:
    """Takes the records of one partition.

    A trade's stream is the partition, its sequence the record's offset and its place in the record.
    What an ingest server produced a second time, after a crash, is at another offset: how far the
    partition has come of each of their streams is kept beside, as the position of a stream without
    trades.

    Parameters
    ----------
    address : KafkaAddress
        Where the topics are.
    partition : int
        Its number.
    partitions : int
        How many there are.
    market : Market
        Restored from the store; those of all partitions share it.
    """

    def __init__(
        self, address: KafkaAddress, partition: int, partitions: int, market: Market
    ) -> None:
        self.stream_id = stream_of(address, partition)
        self._partition = partition
        self._market = market
        self._reader = PartReader(partition, partitions)
        self._translation = Translation(market, self._reader.symbols)

    @property
    def sequence(self) -> int:
        """Where the partition goes on."""
        return self._market.position(self.stream_id) or 0

    def take(self, data: bytes, offset: int) -> list[Change]:
        """Take the record at an offset; return what is to be kept at once.

        Raises
        ------
        BatchError
            When it cannot be read; nothing has changed.
        """
        part = self._reader.read(data)
        return self._apply(part, self._translation.translate(part.ticks), offset)

    def pass_by(self, offset: int) -> list[Change]:
        """Have the partition go on behind the record at an offset, without it."""
        return self._move(self.stream_id, sequence_at(offset + 1))

    def _apply(self, part: Part, ticks: Ticks, offset: int) -> list[Change]:
        source = source_of(part.stream_id, self._partition)
        known = self._market.position(source)
        first = part.first_sequence
        new = ticks if known is None else ticks.from_frame(known - first)
        self._market.counts.duplicates += len(ticks) - len(new)
        changes = self._move(self.stream_id, sequence_at(offset))
        placed = dataclasses.replace(
            new, offset=np.arange(len(new), dtype=np.uint32), frames=FRAMES
        )
        changes.append(self._market.apply(self.stream_id, sequence_at(offset), placed))
        if known is None:
            self._market.skip(source, first)
        return changes + self._move(source, first + ticks.frames)

    def _move(self, stream_id: str, sequence: int) -> list[Change]:
        """Have a stream go on at a sequence, without trades."""
        position = self._market.position(stream_id) or 0
        if sequence <= position:
            return []
        nothing = dataclasses.replace(_NOTHING, frames=sequence - position)
        return [self._market.apply(stream_id, position, nothing)]
