"""What has arrived at a consumer, and partitions read from their beginning as far as they go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
    consumer,
)

TELLS_ENDS: Final = {"enable.partition.eof": True}
"""The setting of a consumer that tells of partitions whose end it has reached."""
_AT_ONCE: Final = 10_000
_WAIT_S: Final = 0.5


def arrived(
    reader: Consumer, wait_s: float, limit: int, ended: set[int] | None = None
) -> list[Message]:
    """Wait for a record, and return all that are there by then.

    The client's own `consume` would wait for more of them.

    Parameters
    ----------
    reader : Consumer
        Assigned or subscribed already.
    wait_s : float
        How long to wait; then nothing is returned.
    limit : int
        At most so many.
    ended : set of int, optional
        Mutated: partitions that were read to their end are added, with a consumer that
        `TELLS_ENDS`.

    Raises
    ------
    KafkaException
        When to wait longer would not help.
    """
    first = reader.poll(wait_s)
    messages = [] if first is None else [first, *reader.consume(limit - 1, 0)]
    records = []
    for message in messages:
        error = message.error()
        if error is None:
            records.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            if ended is not None:
                ended.add(message.partition() or 0)
        elif not error.retriable():
            raise KafkaException(error)
    return records


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
    reader = consumer(address, TELLS_ENDS)
    try:
        reader.assign([TopicPartition(address.topic(topic), partition, OFFSET_BEGINNING)])
        ended: set[int] = set()
        while not ended and not is_stopping():
            yield from arrived(reader, _WAIT_S, _AT_ONCE, ended)
    finally:
        reader.close()
