"""mdtool's topics: created on first use, checked at each start, and watched while in use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn, Self

from mdtool.adapters.kafka.address import PARTITIONS, KafkaAddress
from mdtool.adapters.kafka.client import (
    MAX_RECORD_BYTES,
    AdminClient,
    ConfigResource,
    KafkaError,
    KafkaException,
    NewTopic,
    ResourceType,
    TopicCollection,
    TopicDescription,
    TopicMetadata,
    admin,
    error_of,
)
from mdtool.core.errors import PeerError, StartupError
from mdtool.core.lifecycle import one_error
from mdtool.core.threads import WorkerThread

log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
_COMPACTED: Final = {
    # Read from the beginning at each start, and so kept short.
    "segment.bytes": 64 << 20,
    "min.cleanable.dirty.ratio": 0.2,
}
_TRY_S: Final = 1.0
_PAUSE_S: Final = 0.05
_REJECTED_S: Final = 10.0
"""How long a client that the servers reject tries again, where it waits for them without end."""
_TIMEOUT_S: Final = 10.0
_LOST: Final = KafkaError._TRANSPORT  # noqa: SLF001 - its public name, as of the others
_REJECTED: Final = KafkaError._AUTHENTICATION  # noqa: SLF001
_UNTRUSTED: Final = "certificate verify failed"
"""The reason in errors of TLS, and sometimes of the connection, that waiting does not mend."""
_REASONS: Final = {
    _REJECTED,
    KafkaError._SSL,  # noqa: SLF001 - also of a connection that a proxy closes
    KafkaError._RESOLVE,  # noqa: SLF001
}
"""Errors that say more than that there is no connection."""
_TRANSIENT: Final = {
    _LOST,
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_CONTROLLER,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # a server that starts may not know it yet
    KafkaError.INVALID_REPLICATION_FACTOR,  # servers are still starting, and too few
}
_WATCH_S: Final = 1.0
_WATCH_TIMEOUT_S: Final = 5.0
_MAX_MISSED: Final = 3
"""How often in a row a topic may be unknown: a server that starts may not know it yet."""


@dataclass(frozen=True, slots=True)
class _Topic:
    policy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    partitions: int | None = None
    """The number of partitions, None for that of the topic of ticks."""

    def config(self) -> dict[str, str]:
        config = {"cleanup.policy": self.policy, **self.settings}
        return {key: str(value) for key, value in config.items()}


TICKS: Final = "ticks"
STREAMS: Final = "streams"
AGGREGATES: Final = "aggregates"
BARS: Final = "bars"
DEAD_LETTERS: Final = "dead-letters"

_LONG_RECORDS: Final = {"max.message.bytes": MAX_RECORD_BYTES}
_TOPICS: Final = {
    TICKS: _Topic("delete", {**_LONG_RECORDS, "retention.ms": 7 * _DAY_MS}),
    STREAMS: _Topic("compact,delete", {**_COMPACTED, "retention.ms": 30 * _DAY_MS}, 1),
    AGGREGATES: _Topic("compact", _COMPACTED),
    BARS: _Topic("compact,delete", {**_COMPACTED, "retention.ms": 7 * _DAY_MS}),
    DEAD_LETTERS: _Topic("delete", {**_LONG_RECORDS, "retention.ms": 30 * _DAY_MS}, 1),
}

_TICK_BITS: Final = 20
"""The lower bits of a sequence: the number of a tick in its record; the others are its offset."""
FRAMES: Final = 1 << _TICK_BITS
"""The number of sequences of a record."""


class Identity(NamedTuple):
    """The identity of a topic, which may not change while services use it.

    Attributes
    ----------
    topic_id : str
        Unlike its name never reused.
    partitions : int
        Their number.
    """

    topic_id: str
    partitions: int

    @classmethod
    def of(cls, described: TopicDescription) -> Self:
        """Return the identity in the servers' description of a topic."""
        return cls(str(described.topic_id), len(described.partitions))


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics as a service found or created them.

    Attributes
    ----------
    address : KafkaAddress
    partitions : int
        The number of partitions of ticks.
    identities : mapping
        By full name of the topic.
    """

    address: KafkaAddress
    partitions: int
    identities: Mapping[str, Identity]

    @property
    def ticks_id(self) -> str:
        """The id of the topic of ticks."""
        return self.identities[self.address.topic(TICKS)].topic_id


def topic_names(address: KafkaAddress) -> list[str]:
    """Return the full names of all topics."""
    return [address.topic(name) for name in _TOPICS]


async def opened_topics(address: KafkaAddress) -> Topics:
    """As `open_topics`, off the event loop; when cancelled, it ends."""
    stopping = threading.Event()
    async with WorkerThread(str(address)) as worker:
        try:
            return await worker.run(open_topics, address, stopping.is_set)
        finally:
            stopping.set()


def open_topics(address: KafkaAddress, is_stopping: Callable[[], bool] = lambda: False) -> Topics:
    """Create missing topics, check all, and return them, as soon as the servers are available.

    Raises
    ------
    ConfigError
        When the address's file of settings is not valid.
    StartupError
        When the servers are unavailable for the address's `wait_s` or reject the client, or a topic
        has the wrong settings; also when `is_stopping` returns true.
    """
    wait = _Wait(address)
    client = admin(address, {"error_cb": wait.note})
    while not is_stopping():
        try:
            topics = _open(client, address, wait.attempt_s)
        except _UnavailableError as error:
            client.poll(0)  # runs callbacks
            wait.pause(str(error))
        else:
            wait.end()
            return topics
    raise StartupError(f"{address}: stopped before its topics were open")


class _UnavailableError(Exception):
    """Why the topics cannot be opened yet."""


class _Wait:
    """How long servers that are unavailable are waited for; says once that they are.

    Parameters
    ----------
    address : KafkaAddress
    """

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._began_s = time.monotonic()
        self._reason = ""
        """Why there is no connection; calls alone only time out."""
        self._is_rejected = False
        """Whether waiting would not help."""
        self._is_said = False

    @property
    def attempt_s(self) -> float:
        """How long the next attempt may take."""
        if self._address.wait_s is None:
            return _TRY_S
        return max(0.01, min(self._address.wait_s - self._waited_s(), _TRY_S))

    def note(self, error: KafkaError) -> None:
        """Store the reason of an error outside of calls."""
        is_rejected = error.code() == _REJECTED or _UNTRUSTED in error.str()
        if is_rejected or error.code() in _REASONS:
            self._reason, self._is_rejected = error.str(), is_rejected
        elif error.code() == _LOST:
            self._reason, self._is_rejected = "", False

    def pause(self, reason: str) -> None:
        """Wait before the next attempt.

        Raises
        ------
        StartupError
            When there is none.
        """
        limit_s = self._address.wait_s
        if limit_s is None and self._is_rejected:
            limit_s = _REJECTED_S
        reason = self._reason or reason
        if limit_s is not None and self._waited_s() >= limit_s:
            raise StartupError(
                f"{self._address}: cannot be reached ({reason}; tried for {limit_s:g} s)"
            )
        if limit_s is None and not self._is_said:
            self._is_said = True
            log.warning("%s: cannot be reached (%s); waiting for it", self._address, reason)
        time.sleep(_PAUSE_S)

    def end(self) -> None:
        """Say that the servers are available, where it was said that they are not."""
        if self._is_said:
            log.info("%s: connected", self._address)

    def _waited_s(self) -> float:
        return time.monotonic() - self._began_s


def _open(client: AdminClient, address: KafkaAddress, attempt_s: float) -> Topics:
    """Create missing topics, check all, and return them.

    Raises
    ------
    _UnavailableError
        When the servers cannot do that yet.
    StartupError
        When a topic has the wrong settings, or the servers refuse.
    """
    found = _found(client, address, attempt_s)
    partitions = _partitions(address, found)
    missing = [name for name in _TOPICS if address.topic(name) not in found]
    if missing:
        _create(client, address, missing, partitions)
        found = _found(client, address, attempt_s)
        if any(address.topic(name) not in found for name in _TOPICS):
            raise _UnavailableError("its new topics are not known yet")
        partitions = _partitions(address, found)  # another service may have been first
    for name, topic in _TOPICS.items():
        full_name = address.topic(name)
        there, wanted = len(found[full_name].partitions), topic.partitions or partitions
        if there != wanted:
            raise StartupError(
                f"{address}: topic {full_name} has {there} partitions, not {wanted}; delete it "
                f"or name another prefix"
            )
    _check_settings(client, address)
    return Topics(address, partitions, _identities(client, address))


def _found(
    client: AdminClient, address: KafkaAddress, attempt_s: float
) -> Mapping[str, TopicMetadata]:
    """Return which of our topics exist."""
    try:
        topics = client.list_topics(timeout=attempt_s).topics
    except KafkaException as error:
        raise _UnavailableError(error_of(error).str()) from error
    found = {name: topics[name] for name in topic_names(address) if name in topics}
    for topic in found.values():
        if topic.error is not None or any(each.leader < 0 for each in topic.partitions.values()):
            raise _UnavailableError("topics have no leaders")
    return found


def _partitions(address: KafkaAddress, found: Mapping[str, TopicMetadata]) -> int:
    """Return the number of partitions of ticks, existing or to be created."""
    ticks = address.topic(TICKS)
    if ticks not in found:
        return address.partitions or PARTITIONS
    there = len(found[ticks].partitions)
    if address.partitions not in {None, there}:
        raise StartupError(
            f"{address}: topic {ticks} has {there} partitions, not {address.partitions}; "
            f"name another prefix, or leave partitions={address.partitions} out"
        )
    return there


def _create(client: AdminClient, address: KafkaAddress, names: list[str], partitions: int) -> None:
    """Create topics, unless another service does at the same time."""
    wanted = [
        NewTopic(
            address.topic(name),
            num_partitions=_TOPICS[name].partitions or partitions,
            replication_factor=address.replication,
            config=_TOPICS[name].config(),
        )
        for name in names
    ]
    outcomes = client.create_topics(
        wanted, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S
    )
    for name, made in outcomes.items():
        error = _outcome(made)
        if error is None:
            log.info("%s: created topic %s", address, name)
        elif error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise _failure(address, f"cannot create topic {name}", error)


def _failure(address: KafkaAddress, what: str, error: KafkaError) -> Exception:
    """Return what to raise for an error of a call."""
    reason = f"{what}: {error.str()}"
    return (
        _UnavailableError(reason)
        if error.code() in _TRANSIENT
        else StartupError(f"{address}: {reason}")
    )


def _check_settings(client: AdminClient, address: KafkaAddress) -> None:
    resources = [ConfigResource(ResourceType.TOPIC, address.topic(name)) for name in _TOPICS]
    answers = client.describe_configs(resources, request_timeout=_TIMEOUT_S)
    for topic, resource in zip(_TOPICS.values(), resources, strict=True):
        error = _outcome(answers[resource])
        if error is not None:
            raise _failure(address, f"cannot describe {resource.name}", error)
        settings = answers[resource].result()
        policy = settings["cleanup.policy"].value
        if set(policy.split(",")) != set(topic.policy.split(",")):
            raise StartupError(
                f"{address}: topic {resource.name} has cleanup.policy={policy}, not "
                f"{topic.policy}; set it so, or name another prefix"
            )
        longest = int(settings["max.message.bytes"].value)
        if topic.settings.get("max.message.bytes", 0) > longest:
            raise StartupError(
                f"{address}: topic {resource.name} has max.message.bytes={longest}, below "
                f"{MAX_RECORD_BYTES}; raise it, or name another prefix"
            )


def _identities(client: AdminClient, address: KafkaAddress) -> dict[str, Identity]:
    identities = {}
    for name, described in describe(client, topic_names(address)).items():
        error = _outcome(described)
        if error is not None:
            raise _failure(address, f"cannot describe {name}", error)
        identities[name] = Identity.of(described.result())
    return identities


def describe(
    client: AdminClient, names: Sequence[str], timeout_s: float = _TIMEOUT_S
) -> dict[str, Future[TopicDescription]]:
    """Request the descriptions of topics by their full names."""
    topics = TopicCollection(list(names))
    described: dict[str, Future[TopicDescription]] = client.describe_topics(
        topics, request_timeout=timeout_s
    )
    return described


def _outcome(future: Future[Any]) -> KafkaError | None:
    try:
        future.result()
    except KafkaException as error:
        return error_of(error)
    return None


def stream_of(address: KafkaAddress, partition: int) -> str:
    """Return the stream id of a partition of ticks: the name of the topic, and its number."""
    return f"{address.topic(TICKS)}-{partition}"


def source_of(stream_id: str, partition: int) -> str:
    """Return the id under which a store has the position of a client's stream in a partition."""
    return f"{stream_id}@{partition}"


def sequence_at(offset: int) -> int:
    """Return the sequence of the first tick of the record at an offset."""
    return offset << _TICK_BITS


def offset_of(sequence: int) -> int:
    """Return the offset of the record of a sequence."""
    return sequence >> _TICK_BITS


@contextlib.asynccontextmanager
async def watched(topics: Topics) -> AsyncIterator[None]:
    """Cancel the block, and raise PeerError from it, when a topic is deleted or recreated.

    Offsets are not valid in another topic of the same name, and with more partitions a symbol's
    ticks are in another one. Unavailable servers are waited for.
    """
    with one_error():
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(topics), name=f"topics of {topics.address}")
            yield
            watch.cancel()


async def _watch(topics: Topics) -> NoReturn:
    client = admin(topics.address)
    names = list(topics.identities)
    missed: Counter[str] = Counter()
    asked = describe(client, names, _WATCH_TIMEOUT_S)
    while True:
        await asyncio.sleep(_WATCH_S)
        # Polled: a callback might come after the loop is closed.
        if not all(answer.done() for answer in asked.values()):
            continue
        for name, answer in asked.items():
            try:
                now = Identity.of(answer.result())
            except KafkaException as error:
                if error_of(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    missed[name] += 1
            else:
                missed[name] = 0
                if now != topics.identities[name]:
                    raise _ended(topics, name, _difference(topics.identities[name], now))
            if missed[name] == _MAX_MISSED:
                raise _ended(topics, name, "was deleted")
        asked = describe(client, names, _WATCH_TIMEOUT_S)


def _difference(before: Identity, now: Identity) -> str:
    if now.topic_id != before.topic_id:
        return "was deleted and recreated"
    return f"has {now.partitions} partitions now, not {before.partitions}"


def _ended(topics: Topics, name: str, what: str) -> PeerError:
    return PeerError(f"{topics.address}: topic {name} {what}; restart this service")
