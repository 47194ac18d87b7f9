"""Records of ticks into the market of a store: each trade in the place that Kafka gave it, once."""

from __future__ import annotations

import dataclasses

import numpy as np

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.topics import FRAMES, sequence_at, source_of, stream_of
from mdtool.core.trades import Frames, TradeRun
from mdtool.engine.market import Change, Market
from mdtool.services.aggregator.markets import Admission
from mdtool.wire.partitions import PartitionDecoder


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
        self._decoder = PartitionDecoder(partition, partitions)
        self._admission = Admission(market, self._decoder.symbols)

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
        part = self._decoder.decode(data)
        return self._apply(part, self._admission.admit(part.frames), offset)

    def pass_by(self, offset: int) -> list[Change]:
        """Have the partition go on behind the record at an offset, without it."""
        return self._move(self.stream_id, sequence_at(offset + 1))

    def _apply(self, part: TradeRun, frames: Frames, offset: int) -> list[Change]:
        source = source_of(part.stream_id, self._partition)
        known = self._market.position(source)
        first = part.first_sequence
        new = frames if known is None else frames.after(known - first)
        self._market.counts.duplicates += len(frames.trades) - len(new.trades)
        placed = dataclasses.replace(
            new, offset=np.arange(len(new.trades), dtype=np.uint32), count=FRAMES
        )
        changes = self._move(self.stream_id, sequence_at(offset))
        changes.append(self._market.apply(self.stream_id, sequence_at(offset), placed))
        if known is None:
            self._market.skip(source, first)
        return changes + self._move(source, part.next_sequence)

    def _move(self, stream_id: str, sequence: int) -> list[Change]:
        """Have a stream go on at a sequence, without trades."""
        position = self._market.position(stream_id) or 0
        if sequence <= position:
            return []
        return [self._market.apply(stream_id, position, Frames.empty(sequence - position))]
