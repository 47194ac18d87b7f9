"""A member of the group that aggregates ticks: its partitions come and go, their markets with them.

All of it blocks, and runs in threads: one that asks for what has arrived, and one for each
partition that is being committed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mdtool.adapters.kafka.client import (
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
    arrived,
    consumer,
    error_of,
    read_to_end,
)
from mdtool.adapters.kafka.records import Aggregates, RecordError
from mdtool.adapters.kafka.topics import AGGREGATES, TICKS, Topics
from mdtool.adapters.kafka.transactions import DeadLetter, FencedError, PartitionWriter
from mdtool.core.backoff import delays
from mdtool.core.watchdog import Watchdog
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.partitions import Partition
from mdtool.wire.batches import BatchError

log = logging.getLogger(__name__)

GROUP: Final = "aggregate"
_WAIT_S: Final = 0.1
"""How long the thread waits for something to arrive before it looks whether it is to stop."""
_AT_ONCE: Final = 1_000
"""Records that make one transaction of a partition, at most."""
_ANSWER_S: Final = 5.0
_LONGEST_DELAY_S: Final = 2.0


class _Held:
    """A partition that is this member's."""

    def __init__(
        self, partition: Partition, writer: PartitionWriter, note: Callable[[], None]
    ) -> None:
        self.partition = partition
        self._writer = writer
        self._note = note

    def commit(self, messages: Sequence[Message]) -> None:
        """Take messages, and write what changed."""
        dead_letters: list[DeadLetter] = []
        for message in messages:
            self._note()
            offset, data = message.offset() or 0, message.value() or b""
            if offset < (self.partition.offset or 0):
                continue  # it was fetched before the partition went and came back
            try:
                self.partition.take(data, offset)
            except BatchError as error:
                where = f"{message.topic()}, partition {message.partition()}, offset {offset}"
                log.warning("%s: parked on the dead letters: %s", where, error)
                dead_letters.append((offset, data, str(error)))
        changes = self.partition.changes()
        self._writer.write(changes.aggregates, changes.bars, dead_letters)


class GroupMember:
    """Aggregates the partitions that the group gives it.

    Parameters
    ----------
    topics : Topics
        All of them.
    config : AggregatorConfig
        What bounds the state.
    tell : callable
        Called, in a thread of this member, with whether it takes part in the group.
    """

    def __init__(
        self, topics: Topics, config: AggregatorConfig, tell: Callable[[bool], None]
    ) -> None:
        self._address = topics.address
        self._partitions = topics.partitions
        self._ticks_id = topics.ticks_id
        self._config = config
        self._tell = tell
        self._stopping = threading.Event()
        self._watchdog = Watchdog(str(self._address))
        self._held: dict[int, _Held] = {}
        self._failure: Exception | None = None
        """What ended a callback of the client."""

    def stop(self) -> None:
        """Have `run` end."""
        self._stopping.set()

    def run(self) -> None:
        """Take part until stopped, anew after whatever ended it.

        A call of the client that never comes back ends the process: another member then takes
        its partitions, and goes on where their records end.

        Raises
        ------
        RecordError
            When what a partition is to be taken up from is not mdtool's.
        """
        waits = delays(cap_s=_LONGEST_DELAY_S)
        with self._watchdog, ThreadPoolExecutor(self._partitions, "partition") as pool:
            while not self._is_stopping():
                try:
                    self._take_part(pool)
                except (KafkaException, FencedError) as error:
                    reason = error_of(error).str() if isinstance(error, KafkaException) else error
                    if not self._stopping.is_set():
                        log.warning("%s; joining the group anew", reason)
                finally:
                    self._held.clear()
                    self._tell(False)
                self._stopping.wait(next(waits))

    def _is_stopping(self) -> bool:
        """Whether to give up; who asks goes on until then."""
        self._watchdog.note()
        return self._stopping.is_set()

    def _take_part(self, pool: ThreadPoolExecutor) -> None:
        settings = {
            "group.id": self._address.topic(GROUP),
            "partition.assignment.strategy": "cooperative-sticky",
            "isolation.level": "read_uncommitted",  # ticks are in no transaction
            "session.timeout.ms": self._config.session_ms,
            "heartbeat.interval.ms": self._config.session_ms // 3,
        }
        self._failure = None
        with contextlib.closing(consumer(self._address, settings)) as group:
            group.subscribe(
                [self._address.topic(TICKS)],
                on_assign=functools.partial(self._take_up, pool),
                on_revoke=self._let_go,
                on_lost=self._let_go,
            )
            while not self._is_stopping():
                by_partition = defaultdict(list)
                messages = arrived(group, _WAIT_S, _AT_ONCE)
                if self._failure is not None:
                    raise self._failure
                for message in messages:
                    by_partition[message.partition()].append(message)
                commits = [
                    pool.submit(held.commit, by_partition[number])
                    for number, held in self._held.items()
                    if number in by_partition
                ]
                for commit in commits:
                    commit.result()
                if commits:
                    self._tell_offsets(group)

    def _tell_offsets(self, group: Consumer) -> None:
        """Commit the group's offsets, for those who look how far behind it is.

        What counts are those in the transactions: there a partition is taken up from.
        """
        offsets = [
            TopicPartition(self._address.topic(TICKS), number, held.partition.offset)
            for number, held in self._held.items()
            if held.partition.offset is not None
        ]
        with contextlib.suppress(KafkaException):
            group.commit(offsets=offsets, asynchronous=True)

    def _take_up(
        self, pool: ThreadPoolExecutor, group: Consumer, given: list[TopicPartition]
    ) -> None:
        """Open partitions, and go on where their records end."""
        with self._keeping_failure():
            self._open_all(pool, group, given)

    def _open_all(
        self, pool: ThreadPoolExecutor, group: Consumer, given: list[TopicPartition]
    ) -> None:
        numbers = [each.partition for each in given]
        opened = list(pool.map(self._open, numbers))
        for each, held in zip(given, opened, strict=True):
            self._held[each.partition] = held
            offset = held.partition.offset
            low, high = group.get_watermark_offsets(each, timeout=_ANSWER_S)
            if offset is not None and offset > high:
                raise self._made_anew(
                    each.partition, f"it ends at {high}, and was aggregated up to {offset}"
                )
            if offset is not None and offset < low:
                log.error("%s: records %d to %d are gone", each.topic, offset, low)
            each.offset = low if offset is None else max(offset, low)
        group.incremental_assign(given)
        self._tell(True)
        symbols = sum(len(held.partition.market.symbols) for held in opened)
        log.info("%s: takes partitions %s with %d symbols", self._address, numbers, symbols)

    def _open(self, number: int) -> _Held:
        # In this order: when a writer before this one has ended, all that it wrote is there.
        writer = PartitionWriter(self._address, number, self._is_stopping)
        saved = Aggregates()
        for message in read_to_end(self._address, AGGREGATES, number, self._is_stopping):
            saved.apply(message.key(), message.value())
        if self._stopping.is_set():
            raise FencedError(f"{self._address}: stopped before partition {number} was there")
        if not saved.is_whole:
            raise RecordError(
                f"{self._address}: partition {number} of {self._address.topic(AGGREGATES)} lacks "
                f"records; delete the topic, so that it is made from ticks, or name another prefix"
            )
        if saved.topic_id not in {"", self._ticks_id}:
            raise self._made_anew(number, "what was aggregated is of another")
        saved.topic_id = self._ticks_id
        return _Held(
            Partition(number, self._partitions, self._config, saved), writer, self._watchdog.note
        )

    def _made_anew(self, number: int, sign: str) -> RecordError:
        return RecordError(
            f"{self._address}: partition {number} of {self._address.topic(TICKS)}: {sign}: it was "
            f"made anew; name another prefix"
        )

    def _let_go(self, group: Consumer, taken: list[TopicPartition]) -> None:
        for each in taken:
            self._held.pop(each.partition, None)
        with self._keeping_failure():
            group.incremental_unassign(taken)
        log.info("%s: lets go of partitions %s", self._address, [e.partition for e in taken])

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Keep an error for later: raised by a callback, the client calls others with it pending.

        What they raise then, such as a SystemError out of logging, is nothing that can be foreseen.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is raised once the client has returned
            self._failure = error
