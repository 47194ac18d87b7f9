"""How far streams are kept on Kafka: the records of the topic of streams, read when asked."""

from __future__ import annotations

import contextlib
import threading
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import KafkaException, TopicPartition, consumer
from mdtool.adapters.kafka.reading import arrived
from mdtool.adapters.kafka.topics import STREAMS

_ANSWER_S: Final = 1.0
"""How long the servers may take to answer; until then a stop waits."""
_AT_ONCE: Final = 1_000


def encode_position(stream_id: str, next_sequence: int) -> tuple[bytes, bytes]:
    """Return the key and the value of a stream's record."""
    return stream_id.encode(), b"%d" % next_sequence


class StreamPositions:
    """The next sequences of all streams, brought up to date by each question.

    Methods block, and may be called by several threads.

    Parameters
    ----------
    address : KafkaAddress
        Where the topic is, which exists.
    """

    def __init__(self, address: KafkaAddress) -> None:
        self._consumer = consumer(address)
        self._lock = threading.Lock()
        self._here = TopicPartition(address.topic(STREAMS), 0, 0)
        self._read_to = 0
        self._known: dict[bytes, int] = {}
        self._consumer.assign([self._here])

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            self._consumer.close()

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream as it stands now; 0 when there is none.

        None means that the servers did not answer in time.
        """
        with self._lock:
            with contextlib.suppress(KafkaException):
                low, end = self._consumer.get_watermark_offsets(self._here, timeout=_ANSWER_S)
                if self._read(low, end):
                    return self._known.get(stream_id.encode(), 0)
            return None

    def _read(self, low: int, end: int) -> bool:
        """Take all records from `low`, the first that is kept, to before the offset `end`.

        Returns whether they came in time.
        """
        if self._read_to < low:
            self._here.offset = self._read_to = low
            self._consumer.assign([self._here])
        while self._read_to < end:
            messages = arrived(self._consumer, _ANSWER_S, _AT_ONCE)
            if not messages:
                (position,) = self._consumer.position([self._here])
                self._read_to = max(self._read_to, position.offset)  # compaction leaves holes
                return self._read_to >= end
            for message in messages:
                key, value, offset = message.key(), message.value(), message.offset()
                self._read_to = (offset or 0) + 1
                if key is not None and value is not None and value.isdigit():
                    self._known[key] = max(int(value), self._known.get(key, 0))
        return True
