"""Writes a partition's records in transactions, with the offset that they follow from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    Headers,
    KafkaException,
    client_errors,
    error_of,
    producer,
    traced_headers,
)
from mdtool.adapters.kafka.records import TOTALS, Record
from mdtool.adapters.kafka.topics import AGGREGATES, BARS, DEAD_LETTERS, TICKS
from mdtool.core.errors import PeerError

_TRY_S: Final = 1.0
"""How long a step is tried before the writer checks whether to stop."""
_GIVE_UP_S: Final = 10.0
"""How long a step is tried in all. After a restart of the servers an old producer may never get an
answer that a new one gets at once."""
_TRANSACTION_MS: Final = 60_000
"""How long the servers wait for a commit; a new writer of the partition ends the wait."""

DeadLetter = tuple[int, bytes, str]
"""The offset of a record that could not be read, the record, and why."""


class FencedError(PeerError):
    """The transaction failed, or another writer replaced this one; nothing more may be written."""


class PartitionWriter:
    """Writes what follows from the ticks of one partition.

    There is one writer of a partition: opening another ends the transaction of this one, which
    then writes nothing more. Methods block while the servers are unavailable, for some seconds or
    until `is_stopping` returns true.

    Parameters
    ----------
    address : KafkaAddress
    partition : int
    is_stopping : callable
        Whether to give up.

    Raises
    ------
    FencedError
        When it could not be opened.
    """

    def __init__(
        self, address: KafkaAddress, partition: int, is_stopping: Callable[[], bool]
    ) -> None:
        self._address = address
        self._partition = partition
        self._is_stopping = is_stopping
        self._producer = producer(
            address,
            {
                "transactional.id": f"{address.prefix}.aggregate-{partition}",
                "transaction.timeout.ms": _TRANSACTION_MS,
            },
        )
        self._step(self._producer.init_transactions)

    def write(
        self,
        aggregates: Iterable[Record],
        bars: Iterable[Record],
        dead_letters: Sequence[DeadLetter],
        traceparent: str = "",
    ) -> None:
        """Write records in one transaction.

        Parameters
        ----------
        aggregates, bars : iterable of Record
            For their topics. The totals in `aggregates` have the offset that all follow from.
        dead_letters : sequence of DeadLetter
            Records that could not be decoded.
        traceparent : str
            The trace of the latest sampled record of ticks; empty for none.

        Raises
        ------
        FencedError
            When it failed. The writer cannot be used any more.
        """
        with self._fencing():
            self._producer.begin_transaction()
            for topic, records in ((AGGREGATES, aggregates), (BARS, bars)):
                name = self._address.topic(topic)
                for key, value in records:
                    headers = traced_headers(traceparent) if key == TOTALS else None
                    self._produce(name, value or None, key, self._partition, headers)
            for offset, data, reason in dead_letters:
                headers = {
                    "topic": self._address.topic(TICKS),
                    "partition": str(self._partition),
                    "offset": str(offset),
                    "reason": reason,
                }
                self._produce(self._address.topic(DEAD_LETTERS), data, None, 0, headers)
            deadline_s = time.monotonic() + _GIVE_UP_S
            while self._producer.flush(_TRY_S):
                self._check_waiting(deadline_s)
        self._step(self._producer.commit_transaction)

    def _produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: Headers = None,
    ) -> None:
        deadline_s = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                self._producer.produce(topic, value, key, partition, headers=headers)
            except BufferError:  # the buffer is full until some are delivered
                self._check_waiting(deadline_s)
                self._producer.poll(_TRY_S)
            else:
                return

    def _step(self, step: Callable[[float], None]) -> None:
        """Make a step of the transaction; retry while that may succeed."""
        deadline_s = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                with client_errors():
                    step(_TRY_S)
            except KafkaException as error:
                if not error_of(error).retriable():
                    raise self._fenced(error) from error
                self._check_waiting(deadline_s)
            else:
                return

    def _check_waiting(self, deadline_s: float) -> None:
        """Raise FencedError after the deadline, or when stopping."""
        if self._is_stopping():
            raise FencedError(f"{self._address}: stopped while writing partition {self._partition}")
        if time.monotonic() > deadline_s:
            raise FencedError(
                f"{self._address}: partition {self._partition}: no answer in {_GIVE_UP_S:g} s"
            )

    @contextlib.contextmanager
    def _fencing(self) -> Iterator[None]:
        try:
            with client_errors():
                yield
        except KafkaException as error:
            raise self._fenced(error) from error

    def _fenced(self, error: KafkaException) -> FencedError:
        reason = error_of(error).str()
        return FencedError(f"{self._address}: partition {self._partition}: {reason}")
