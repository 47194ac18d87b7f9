"""What has arrived at a consumer, and partitions read from their beginning as far as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    consumer,
)

_AT_ONCE: Final = 10_000
_WAIT_S: Final = 0.5


def arrived(reader: Consumer, wait_s: float, limit: int) -> list[Message]:
    """Wait for a message, and return all that are there by then, at most `limit`.

    The client's own `consume` would wait for more of them.
    """
    first = reader.poll(wait_s)
    return [] if first is None else [first, *reader.consume(limit - 1, 0)]


def read_to_end(
    address: KafkaAddress, topic: str, partition: int, is_stopping: Callable[[], bool]
) -> Iterator[Message]:
    """Yield the records that are committed when the end is reached.

    Blocks for as long as the servers are away, or until `is_stopping` says so.

    Raises
    ------
    KafkaException
        When it cannot be read.
    """
    reader = consumer(address, {"enable.partition.eof": True})
    try:
        reader.assign([TopicPartition(address.topic(topic), partition, 0)])
        while not is_stopping():
            for message in arrived(reader, _WAIT_S, _AT_ONCE):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    return
                elif not error.retriable():
                    raise KafkaException(error)
    finally:
        reader.close()
