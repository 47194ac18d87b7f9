"""`store --bus`: all trades of a bus kept in a store, going on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from mdtool.adapters.kafka.client import (
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
    arrived,
    consumer,
    error_of,
)
from mdtool.adapters.kafka.topics import TICKS, Topics, offset_of
from mdtool.adapters.stores import Store, open_store
from mdtool.adapters.stores.errors import StoreError, StoreUnavailableError
from mdtool.adapters.stores.port import Step
from mdtool.adapters.stores.steps import Steps
from mdtool.core.backoff import delays
from mdtool.core.trades import Frames
from mdtool.engine.market import Change, Market
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.markets import restored_market
from mdtool.services.store.bus_intake import BusIntake
from mdtool.wire.batches import BatchError

log = logging.getLogger(__name__)

_WAIT_S: Final = 0.1
_AT_ONCE: Final = 200
"""Records that make one step of the store, at most."""
_ANSWER_S: Final = 5.0
_PAUSE_S: Final = 1.0
_LONGEST_DELAY_S: Final = 2.0


class BusKeeper:
    """Keeps what is on the topic of ticks; where it goes on, the store itself says.

    All of it blocks.

    Parameters
    ----------
    topics : Topics
        All of them.
    url : str
        The store.
    config : AggregatorConfig
        What the aggregation service on the same store goes by.
    """

    def __init__(self, topics: Topics, url: str, config: AggregatorConfig) -> None:
        self._address = topics.address
        self._partitions = topics.partitions
        self._ticks_id = topics.ticks_id
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
            steps = Steps(market)
            intakes = self._intakes(store, market)
            self._claim_topic(store, market, steps, intakes)
            self._assign(reader, intakes)
            ready(store.address)
            while not self._stopping.is_set():
                messages = self._arrived(reader, intakes)
                changes = self._take(messages, intakes)
                if changes and self._write(store, steps.take(changes)):
                    self._tell(reader, messages)

    def _reader(self) -> Consumer:
        mark = hashlib.sha256(self._url.encode()).hexdigest()[:12]
        group = self._address.topic(f"store-{mark}")
        settings = {"group.id": group, "isolation.level": "read_uncommitted"}
        return consumer(self._address, settings)

    def _intakes(self, store: Store, market: Market) -> list[BusIntake]:
        """Return what takes each partition, from where the store goes on with it."""
        intakes = []
        for partition in range(self._partitions):
            intake = BusIntake(self._address, partition, self._partitions, market)
            position = store.position(intake.stream_id)
            if position is not None:  # however many streams were heard of since
                market.remember(intake.stream_id, position)
            intakes.append(intake)
        return intakes

    def _claim_topic(
        self, store: Store, market: Market, steps: Steps, intakes: Sequence[BusIntake]
    ) -> None:
        """Have the store know which topic it keeps: its name and offsets say nothing of another.

        What tells is a stream of one frame, without trades, that is named after the topic's id.
        """
        mark = f"{self._address.topic(TICKS)}@{self._ticks_id}"
        if store.position(mark) is not None:
            return
        if any(intake.sequence for intake in intakes):
            raise StoreError(
                f"{self._address}: {self._address.topic(TICKS)} is not the one that is kept here: "
                f"it was made anew; name another store"
            )
        self._write(store, steps.take([market.apply(mark, 0, Frames.empty(1))]))

    def _assign(self, reader: Consumer, intakes: Sequence[BusIntake]) -> None:
        """Have each partition read from where the store goes on."""
        reader.assign([self._place(reader, p, intake) for p, intake in enumerate(intakes)])

    def _arrived(self, reader: Consumer, intakes: Sequence[BusIntake]) -> list[Message]:
        """Return what comes next, and look at the places again where that is not to be had."""
        try:
            return arrived(reader, _WAIT_S, _AT_ONCE)
        except KafkaException as error:
            log.warning("%s: %s; trying again", self._address, error_of(error).str())
            self._stopping.wait(_PAUSE_S)
            self._assign(reader, intakes)
            return []

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
                    f"{place.topic} ends at {high}; name another store"
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
