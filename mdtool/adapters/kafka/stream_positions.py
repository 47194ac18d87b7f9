"""The positions and owners of streams on Kafka: the topic of streams, read on request."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import wait
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    KafkaException,
    OffsetSpec,
    TopicPartition,
    admin,
    arrived,
    consumer,
)
from mdtool.adapters.kafka.topics import STREAMS

_ANSWER_S: Final = 10.0
"""How long the servers may take to answer. The client takes an earlier timeout for a lost
connection, which delays the next request."""
_WAIT_S: Final = 1.0
"""How long `close` may take."""
_AT_ONCE: Final = 1_000
_CLAIM: Final = b"\0"
"""Begins the key of a claim, and separates its parts: no stream id has it."""
_CLAIMED: Final = b"claimed"


def encode_position(stream_id: str, next_sequence: int) -> tuple[bytes, bytes]:
    """Return the key and the value of a stream's record."""
    return stream_id.encode(), b"%d" % next_sequence


def encode_claim(stream_id: str, principal: str) -> tuple[bytes, bytes]:
    """Return the key and the value of a record by which a principal claims a stream."""
    return _CLAIM + stream_id.encode() + _CLAIM + principal.encode(), _CLAIMED


class StreamPositions:
    """The next sequences and owners of all streams, brought up to date by each request.

    Methods block, and may be called by several threads.

    Parameters
    ----------
    address : KafkaAddress
        The topics exist.
    """

    def __init__(self, address: KafkaAddress) -> None:
        self._consumer = consumer(address)
        # Apart from the consumer, on whose connection answers wait behind records.
        self._admin = admin(address)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._here = TopicPartition(address.topic(STREAMS), 0, 0)
        self._read_to = -1
        self._positions: dict[bytes, int] = {}
        self._claims: dict[bytes, dict[bytes, int]] = {}
        """By stream, the principals that claim it, with the offsets of their records."""

    def close(self) -> None:
        """Disconnect; pending requests return None."""
        self._closing.set()
        with self._lock:
            self._consumer.close()

    def position(self, stream_id: str) -> int | None:
        """Return the current next sequence of a stream, 0 for an unknown one.

        None means that the servers did not answer in time, or that this is closing.
        """
        with self._lock:
            return self._positions.get(stream_id.encode(), 0) if self._is_current() else None

    def owner(self, stream_id: str) -> str | None:
        """Return the principal that has claimed a stream first, empty for nobody; None likewise."""
        with self._lock:
            if not self._is_current():
                return None
            claims = self._claims.get(stream_id.encode())
            return min(claims, key=claims.__getitem__).decode() if claims else ""

    def _is_current(self) -> bool:
        """Read what is new; return whether all of it arrived in time."""
        with contextlib.suppress(KafkaException):
            bounds = self._bounds()
            return bounds is not None and self._read(*bounds)
        return False

    def _bounds(self) -> tuple[int, int] | None:
        """Return the offsets of the first record and behind the last one, None when closing."""
        specs = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = [
            future
            for spec in specs
            for future in self._admin.list_offsets(
                {self._here: spec}, request_timeout=_ANSWER_S
            ).values()
        ]
        while not self._closing.is_set():
            if not wait(asked, _WAIT_S).not_done:
                low, end = (future.result().offset for future in asked)
                return low, end
        return None

    def _read(self, low: int, end: int) -> bool:
        """Read all records from the offset `low`, the first, to before `end`.

        Returns whether they arrived in time.
        """
        if self._read_to < low:
            self._go_to(low)
        while self._read_to < end:
            try:
                messages = arrived(self._consumer, _WAIT_S, _AT_ONCE)
            except KafkaException:
                self._go_to(self._read_to)  # records may have arrived beside the error
                raise
            if not messages:
                (position,) = self._consumer.position([self._here])
                self._read_to = max(self._read_to, position.offset)  # compaction leaves holes
                return self._read_to >= end
            for message in messages:
                key, value, offset = message.key(), message.value(), message.offset()
                self._read_to = (offset or 0) + 1
                if key is not None and key.startswith(_CLAIM):
                    self._read_claim(key, value, self._read_to)
                elif key is not None and value is not None and value.isdigit():
                    self._positions[key] = max(int(value), self._positions.get(key, 0))
        return True

    def _read_claim(self, key: bytes, value: bytes | None, offset: int) -> None:
        stream, _, principal = key.removeprefix(_CLAIM).partition(_CLAIM)
        claims = self._claims.setdefault(stream, {})
        if value == _CLAIMED:
            claims[principal] = offset  # of an older record, only this one remains
        else:
            claims.pop(principal, None)

    def _go_to(self, offset: int) -> None:
        self._here.offset = self._read_to = offset
        self._consumer.assign([self._here])
