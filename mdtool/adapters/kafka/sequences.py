"""The places of trades on Kafka as a store's streams and sequences: topic, partition, offset."""

from __future__ import annotations

from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.topics import TICKS

_BITS: Final = 20
"""Of a sequence, for the place of a tick in its record; the others are the record's offset."""
FRAMES: Final = 1 << _BITS
"""How many sequences a record has."""


def stream_of(address: KafkaAddress, partition: int) -> str:
    """Return the stream of a partition of ticks: the name of the topic, and its number."""
    return f"{address.topic(TICKS)}-{partition}"


def source_of(stream_id: str, partition: int) -> str:
    """Return the name under which a store has how far a partition has come of a stream."""
    return f"{stream_id}@{partition}"


def sequence_at(offset: int) -> int:
    """Return the sequence of the first tick of the record at an offset."""
    return offset << _BITS


def offset_of(sequence: int) -> int:
    """Return the offset of the record that a sequence is in."""
    return sequence >> _BITS
