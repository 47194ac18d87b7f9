"""The aggregation service over Kafka: a member of the group, and gRPC's health to report it.

The market of one member is a part of the whole, which readers find on the topics: the service
answers no calls of MarketDataService.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from mdtool.adapters import rpc
from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client import (
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
    arrived,
    client_errors,
    consumer,
    error_of,
    read_to_end,
    traceparent_of,
)
from mdtool.adapters.kafka.records import Aggregates, RecordError
from mdtool.adapters.kafka.topics import AGGREGATES, TICKS, Topics, opened_topics, watched
from mdtool.adapters.kafka.transactions import DeadLetter, FencedError, PartitionWriter
from mdtool.core import tracing
from mdtool.core.backoff import delays
from mdtool.core.errors import UsageError
from mdtool.core.lifecycle import Started
from mdtool.core.threads import run_in_thread
from mdtool.core.tls import server_tls
from mdtool.core.watchdog import Watchdog
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.grpc_server import GrpcServer
from mdtool.services.aggregator.partition import Partition
from mdtool.services.kafka_reading import KafkaReading
from mdtool.services.metrics import metrics_served
from mdtool.services.security import check_exposed
from mdtool.wire.batches import BatchError

log = logging.getLogger(__name__)

GROUP: Final = "aggregate"
_POLL_S: Final = 0.1
"""How long a poll waits for records before the thread checks whether to stop."""
_MAX_RECORDS: Final = 1_000
"""Records of one transaction of a partition, at most."""
_ANSWER_S: Final = 5.0
_LONGEST_DELAY_S: Final = 2.0


class KafkaAggregator:
    """Aggregates the ticks on Kafka, together with the other members of its group.

    Parameters
    ----------
    config : AggregatorConfig
        Where Kafka is, where health is served, and what bounds the state.

    Raises
    ------
    UsageError
        When the bus is not a valid URL, or there is a store beside it.
    """

    name = "aggregate"

    def __init__(self, config: AggregatorConfig) -> None:
        if config.store:
            raise UsageError("--bus and --store: choose one; store --bus keeps a bus's trades")
        self._config = config
        self._address = KafkaAddress.parse(config.bus)

    async def run(self, started: Started) -> None:
        """Serve until cancelled; a transaction that is being written is finished or aborted.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or Kafka rejects it or has topics with wrong
            settings; while Kafka is unavailable, it is waited for.
        PeerError
            When what the topics hold is not mdtool's, or one of them was deleted.
        """
        loop = asyncio.get_running_loop()
        check_exposed(self.name, self._config.host, self._config.auth)
        server = GrpcServer(tls=server_tls(self.name))
        address = server.bind(self._config.host, self._config.port)

        def report(is_member: bool) -> None:
            setting = server.set_health(rpc.SERVICE.full_name, is_member)
            try:
                asyncio.run_coroutine_threadsafe(setting, loop)
            except RuntimeError:  # the loop is closed
                setting.close()

        reading, is_open = KafkaReading(), asyncio.Event()
        async with metrics_served(
            self._config.metrics_port, reading.measures, is_ready=is_open.is_set
        ) as metrics:
            topics = await opened_topics(self._address)
            member = GroupMember(topics, self._config, report, reading)
            async with server, watched(topics):
                is_open.set()
                started({"grpc": address, **metrics})
                await run_in_thread(str(self._address), member.run, member.stop)


class _Commit(NamedTuple):
    """What was committed of a partition at once."""

    ticks: int
    dead_letters: int
    seconds: float

    def add_to(self, reading: KafkaReading) -> None:
        """Add it to what a member has done."""
        reading.ticks += self.ticks
        reading.dead_letters += self.dead_letters
        reading.times.add(self.seconds)


class _Owned:
    """A partition that this member owns."""

    def __init__(
        self, partition: Partition, writer: PartitionWriter, note: Callable[[], None]
    ) -> None:
        self.partition = partition
        self._writer = writer
        self._note = note

    def commit(self, messages: Sequence[Message]) -> _Commit:
        """Apply records of ticks, and write what changed."""
        began_s, counts = time.monotonic(), self.partition.market.counts
        ticks_before = counts.ticks
        traceparent = ""
        dead_letters: list[DeadLetter] = []
        for message in messages:
            self._note()
            offset, data = message.offset() or 0, message.value() or b""
            if offset < (self.partition.offset or 0):
                continue  # fetched before the partition was revoked and assigned again
            try:
                with tracing.block(tracing.follow("apply", traceparent_of(message))) as span:
                    self.partition.take(data, offset)
            except BatchError as error:
                where = f"{message.topic()}, partition {message.partition()}, offset {offset}"
                log.warning("%s: sent to the dead letters: %s", where, error)
                dead_letters.append((offset, data, str(error)))
            traceparent = str(span.trace) if span is not None else traceparent
        changes = self.partition.changes()
        with tracing.block(tracing.follow("commit", traceparent)) as span:
            traceparent = "" if span is None else str(span.trace)
            self._writer.write(changes.aggregates, changes.bars, dead_letters, traceparent)
        seconds = time.monotonic() - began_s
        return _Commit(counts.ticks - ticks_before, len(dead_letters), seconds)


class GroupMember:
    """Aggregates the partitions that the group assigns to it.

    All of it blocks, and runs in threads: one that polls, and one for each partition that is being
    committed.

    Parameters
    ----------
    topics : Topics
        All of them.
    config : AggregatorConfig
        What bounds the state.
    report : callable
        Called, in a thread of this member, with whether it owns partitions.
    reading : KafkaReading
        Mutated: what it has done.
    """

    def __init__(
        self,
        topics: Topics,
        config: AggregatorConfig,
        report: Callable[[bool], None],
        reading: KafkaReading,
    ) -> None:
        self._address = topics.address
        self._partitions = topics.partitions
        self._ticks_id = topics.ticks_id
        self._config = config
        self._report = report
        self._stopping = threading.Event()
        self._watchdog = Watchdog(str(self._address))
        self._reading = reading
        self._owned: dict[int, _Owned] = {}
        self._failure: Exception | None = None
        """What a callback of the client raised."""

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def run(self) -> None:
        """Be a member until stopped, joining again after each failure.

        A call of the client that never returns ends the process: another member then gets its
        partitions, and resumes where their records end.

        Raises
        ------
        RecordError
            When the records of a partition are not mdtool's.
        """
        waits = delays(cap_s=_LONGEST_DELAY_S)
        with self._watchdog, ThreadPoolExecutor(self._partitions, "partition") as pool:
            while not self._is_stopping():
                try:
                    self._join(pool)
                except (KafkaException, FencedError) as error:
                    reason = error_of(error).str() if isinstance(error, KafkaException) else error
                    if not self._stopping.is_set():
                        log.warning("%s; joining the group again", reason)
                finally:
                    self._owned.clear()
                    self._report(False)
                self._stopping.wait(next(waits))

    def _is_stopping(self) -> bool:
        """Return whether to stop; called by every loop, which shows that it is alive."""
        self._watchdog.note()
        return self._stopping.is_set()

    def _join(self, pool: ThreadPoolExecutor) -> None:
        settings = {
            "group.id": self._address.topic(GROUP),
            "partition.assignment.strategy": "cooperative-sticky",
            "isolation.level": "read_uncommitted",  # ticks are in no transaction
            "session.timeout.ms": self._config.session_ms,
            "heartbeat.interval.ms": self._config.session_ms // 3,
        }
        self._failure = None
        with client_errors(), contextlib.closing(consumer(self._address, settings)) as group:
            group.subscribe(
                [self._address.topic(TICKS)],
                on_assign=functools.partial(self._assigned, pool),
                on_revoke=self._revoked,
                on_lost=self._revoked,
            )
            while not self._is_stopping():
                by_partition = defaultdict(list)
                messages = arrived(group, _POLL_S, _MAX_RECORDS)
                if self._failure is not None:
                    raise self._failure
                for message in messages:
                    by_partition[message.partition()].append(message)
                commits = [
                    pool.submit(owned.commit, by_partition[number])
                    for number, owned in self._owned.items()
                    if number in by_partition
                ]
                for commit in commits:
                    commit.result().add_to(self._reading)
                self._reading.place(group, self._address.topic(TICKS), self._positions())
                if commits:
                    self._publish_offsets(group)

    def _publish_offsets(self, group: Consumer) -> None:
        """Commit the group's offsets, by which others measure its lag.

        A partition resumes from the offsets in the transactions, not from these.
        """
        topic = self._address.topic(TICKS)
        offsets = [
            TopicPartition(topic, number, offset) for number, offset in self._positions().items()
        ]
        with contextlib.suppress(KafkaException):
            group.commit(offsets=offsets, asynchronous=True)

    def _positions(self) -> dict[int, int]:
        """Return the offset of each partition that this member owns, where there is one."""
        offsets = {number: owned.partition.offset for number, owned in self._owned.items()}
        return {number: offset for number, offset in offsets.items() if offset is not None}

    def _assigned(
        self, pool: ThreadPoolExecutor, group: Consumer, given: list[TopicPartition]
    ) -> None:
        """Open the assigned partitions, and resume where their records end."""
        with self._catching_failure():
            self._open_all(pool, group, given)

    def _open_all(
        self, pool: ThreadPoolExecutor, group: Consumer, given: list[TopicPartition]
    ) -> None:
        numbers = [each.partition for each in given]
        opened = list(pool.map(self._open, numbers))
        for each, owned in zip(given, opened, strict=True):
            self._owned[each.partition] = owned
            offset = owned.partition.offset
            low, high = group.get_watermark_offsets(each, timeout=_ANSWER_S)
            if offset is not None and offset > high:
                raise self._recreated(
                    each.partition, f"it ends at {high}, and was aggregated up to {offset}"
                )
            if offset is not None and offset < low:
                log.error("%s: records %d to %d are lost", each.topic, offset, low)
            each.offset = low if offset is None else max(offset, low)
        group.incremental_assign(given)
        self._report(True)
        symbols = sum(len(owned.partition.market.symbols) for owned in opened)
        log.info("%s: owns partitions %s with %d symbols", self._address, numbers, symbols)

    def _open(self, number: int) -> _Owned:
        # In this order: when a writer before this one has ended, all that it wrote is there.
        writer = PartitionWriter(self._address, number, self._is_stopping)
        saved = Aggregates()
        for message in read_to_end(self._address, AGGREGATES, number, self._is_stopping):
            saved.apply(message.key(), message.value())
        if self._stopping.is_set():
            raise FencedError(f"{self._address}: stopped before partition {number} was open")
        if not saved.is_whole:
            raise RecordError(
                f"{self._address}: partition {number} of {self._address.topic(AGGREGATES)} lacks "
                f"records; delete the topic to rebuild it from ticks, or name another prefix"
            )
        if saved.topic_id not in {"", self._ticks_id}:
            raise self._recreated(number, "the aggregates are of another topic")
        saved.topic_id = self._ticks_id
        return _Owned(
            Partition(number, self._partitions, self._config, saved), writer, self._watchdog.note
        )

    def _recreated(self, number: int, sign: str) -> RecordError:
        return RecordError(
            f"{self._address}: partition {number} of {self._address.topic(TICKS)}: {sign}: it was "
            f"recreated; name another prefix"
        )

    def _revoked(self, group: Consumer, revoked: list[TopicPartition]) -> None:
        for each in revoked:
            self._owned.pop(each.partition, None)
        with self._catching_failure():
            group.incremental_unassign(revoked)
        log.info("%s: partitions %s revoked", self._address, [e.partition for e in revoked])

    @contextlib.contextmanager
    def _catching_failure(self) -> Iterator[None]:
        """Store an error until the client has returned: it calls other callbacks with one pending.

        What those raise then, such as a SystemError in logging, cannot be foreseen.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is raised once the client has returned
            self._failure = error
