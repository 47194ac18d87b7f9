"""`store --bus`: all trades of a bus kept in a store, going on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
    consumer,
)
from mdtool.adapters.kafka.reading import arrived
from mdtool.adapters.kafka.sequences import offset_of
from mdtool.adapters.kafka.topics import TICKS
from mdtool.adapters.stores import Store, open_store
from mdtool.adapters.stores.errors import StoreError, StoreUnavailableError
from mdtool.adapters.stores.port import Step
from mdtool.adapters.stores.steps import Steps
from mdtool.core.backoff import delays
from mdtool.engine.market import Change
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import restored_market
from mdtool.services.store.bus_intake import BusIntake
from mdtool.wire.batches import BatchError

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.1
_AT_ONCE: Final = 200
"""Records that make one step of the store, at most."""
_ANSWER_S: Final = 5.0
_LONGEST_DELAY_S: Final = 2.0


class BusKeeper:
    """Keeps what is on the topic of ticks; where it goes on, the store itself says.

    All of it blocks.

    Parameters
    ----------
    address : KafkaAddress
        Where the topics are, which exist.
    partitions : int
        How many partitions ticks have.
    url : str
        The store.
    config : AggregatorConfig
        What the aggregation service on the same store goes by.
    """

    def __init__(
        self, address: KafkaAddress, partitions: int, url: str, config: AggregatorConfig
    ) -> None:
        self._address = address
        self._partitions = partitions
        self._url = url
        self._config = config
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Have `run` end once what it writes is written."""
        self._stopping.set()

    def run(self, ready: Callable[[str], None]) -> None:
        """Keep until stopped.

        Parameters
        ----------
        ready : callable
            Called with the store's address once it is open.

        Raises
        ------
        StoreClaimedError
            When another process holds the store.
        StoreError
            When it can keep no more.
        """
        with open_store(self._url) as store, contextlib.closing(self._reader()) as reader:
            store.claim()
            market = restored_market(self._config, store)
            count = self._partitions
            intakes = [BusIntake(self._address, p, count, market) for p in range(count)]
            reader.assign([self._place(reader, p, intake) for p, intake in enumerate(intakes)])
            ready(store.address)
            steps = Steps(market)
            while not self._stopping.is_set():
                messages = arrived(reader, _WAIT_S, _AT_ONCE)
                changes = self._take(messages, intakes)
                if changes and self._write(store, steps.take(changes)):
                    self._tell(reader, messages)

    def _reader(self) -> Consumer:
        mark = hashlib.sha256(self._url.encode()).hexdigest()[:12]
        group = self._address.topic(f"store-{mark}")
        settings = {"group.id": group, "isolation.level": "read_uncommitted"}
        return consumer(self._address, settings)

    def _place(self, reader: Consumer, partition: int, intake: BusIntake) -> TopicPartition:
        """Return where the store goes on with a partition."""
        place = TopicPartition(self._address.topic(TICKS), partition)
        wanted = offset_of(intake.sequence)
        low = wanted
        with contextlib.suppress(KafkaException):
            low, high = reader.get_watermark_offsets(place, timeout=_ANSWER_S)
            if wanted > high:
                raise StoreError(
                    f"{self._address}: partition {partition} is kept up to {wanted}, but "
                    f"{place.topic} ends at {high}: it was made anew; name another store"
                )
        if wanted and low > wanted:
            log.error("%s: records %d to %d are gone", intake.stream_id, wanted, low)
        place.offset = max(wanted, low)
        return place

    def _take(self, messages: Sequence[Message], intakes: Sequence[BusIntake]) -> list[Change]:
        changes: list[Change] = []
        for message in messages:
            intake, offset = intakes[message.partition() or 0], message.offset() or 0
            if offset < offset_of(intake.sequence):
                continue
            try:
                changes += intake.take(message.value() or b"", offset)
            except BatchError as error:
                log.warning("%s, offset %d: left out: %s", intake.stream_id, offset, error)
                changes += intake.pass_by(offset)
        return changes

    def _write(self, store: Store, step: Step) -> bool:
        """Write a step, again and again while the store is away; return whether it is written."""
        is_away = False
        for delay_s in delays(cap_s=_LONGEST_DELAY_S):
            try:
                store.write(step)
            except StoreUnavailableError as error:
                if not is_away:
                    log.warning("%s; nothing more is taken until it is back", error)
                is_away = True
                if self._stopping.wait(delay_s):
                    return False
            else:
                if is_away:
                    log.info("%s: back", store.address)
                return True
        raise AssertionError

    def _tell(self, reader: Consumer, messages: Sequence[Message]) -> None:
        """Commit offsets, for those who look how far behind the store is."""
        ends = {message.partition(): (message.offset() or 0) + 1 for message in messages}
        topic = self._address.topic(TICKS)
        with contextlib.suppress(KafkaException):
            reader.commit(
                offsets=[TopicPartition(topic, p or 0, end) for p, end in ends.items()],
                asynchronous=True,
            )
