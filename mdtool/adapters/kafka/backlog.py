"""Whether the ticks on Kafka become aggregates, as anybody can tell from the topics alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import KafkaException, TopicPartition, consumer
from mdtool.adapters.kafka.topics import TICKS

PATIENCE_S: Final = 5.0
"""How long a partition may stand still that has ticks left."""
_ANSWER_S: Final = 1.0


class Backlog:
    """Compares how far aggregates have come with where ticks end.

    Methods block, and may be called by several threads.

    Parameters
    ----------
    address : KafkaAddress
        Where the topics are, which exist.
    partitions : int
        How many partitions ticks have.
    """

    def __init__(self, address: KafkaAddress, partitions: int) -> None:
        topic = address.topic(TICKS)
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._moved = [(-1, 0.0)] * partitions
        """Where each partition was last seen, and since when it is there."""
        self._reader = consumer(address)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._reader.close()

    def stands(self, offsets: Sequence[int]) -> bool:
        """Return whether a partition has ticks, and none of them was taken for `PATIENCE_S`.

        Where the servers do not answer, none does.

        Parameters
        ----------
        offsets : sequence of int
            Of each partition, the offset before which all ticks are in aggregates.
        """
        with self._lock, contextlib.suppress(KafkaException):
            places = zip(self._places, offsets, strict=True)
            standing = [place for place, offset in places if self._stands(place, offset)]
            return bool(standing)
        return False

    def _stands(self, place: TopicPartition, offset: int) -> bool:
        low, end = self._reader.get_watermark_offsets(place, timeout=_ANSWER_S)
        now_s = time.monotonic()
        seen, since_s = self._moved[place.partition]
        if offset != seen or end <= max(low, offset):
            self._moved[place.partition] = offset, now_s
            return False
        return now_s - since_s > PATIENCE_S
