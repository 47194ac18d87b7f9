"""What a reader of Kafka's ticks has done, and how far behind it is, for metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from mdtool.services.times import COMMIT_BOUNDS_S, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from mdtool.adapters.kafka.client import Consumer

_UNKNOWN: Final = -1
"""Offsets below 0 stand for none."""


class KafkaReading:
    """Counts of one reader. The thread that reads changes them, another one may collect them.

    Attributes
    ----------
    ticks, dead_letters : int
        Ticks that were committed, and records that could not be read.
    times : Histogram
        How long commits took.
    """

    def __init__(self) -> None:
        self.ticks = self.dead_letters = 0
        self.times = Histogram(COMMIT_BOUNDS_S)
        self._positions: Mapping[int, int] = {}
        self._lag: Mapping[int, int] = {}

    def place(self, reader: Consumer, topic: str, positions: Mapping[int, int]) -> None:
        """Note the position of each partition that is read, and how many records are behind it.

        Parameters
        ----------
        reader : Consumer
            What it has fetched tells the ends of partitions; nothing is requested.
        topic : str
        positions : mapping
            By partition, the offset of the first record that is not committed.
        """
        from mdtool.adapters.kafka.client import TopicPartition

        lag = {}
        for partition, position in positions.items():
            place = TopicPartition(topic, partition)
            _, end = reader.get_watermark_offsets(place, cached=True)
            if end > _UNKNOWN:
                lag[partition] = max(0, end - position)
        self._positions, self._lag = positions, lag

    def measures(self) -> Iterator[Metric]:
        """Yield its metrics."""
        from mdtool.services import families

        yield families.counter("mdtool_committed_ticks", self.ticks)
        yield families.histogram("mdtool_commit_seconds", {(): self.times})
        yield families.counter("mdtool_kafka_dead_letters", self.dead_letters)
        for name, values in (
            ("mdtool_kafka_position", self._positions),
            ("mdtool_kafka_lag", self._lag),
        ):
            yield families.labelled(name, {str(key): value for key, value in values.items()})
