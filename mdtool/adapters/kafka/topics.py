"""mdtool's topics: created on first use, checked at each start, and watched while in use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
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
from mdtool.core.lifecycle import first_error

log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
_COMPACTED: Final = {
    # Read from the beginning at each start, and so kept short.
    "segment.bytes": 64 << 20,
    "min.cleanable.dirty.ratio": 0.2,
}
_TRY_S: Final = 1.0
_PAUSE_S: Final = 0.05
_TIMEOUT_S: Final = 10.0
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


def open_topics(address: KafkaAddress) -> Topics:
    """Create missing topics, check all, and return them.

    Raises
    ------
    ConfigError
        When the address's file of settings is not valid.
    StartupError
        When the servers cannot be reached within the address's `wait_s`, or a topic has the wrong
        settings.
    """
    refusal = _Refusal()
    client = admin(address, {"error_cb": refusal.note})
    deadline_s = time.monotonic() + address.wait_s
    found = _available(client, address, deadline_s, refusal)
    partitions = _partitions(address, found)
    missing = [name for name in _TOPICS if address.topic(name) not in found]
    if missing:
        _create(client, address, missing, partitions, deadline_s)
        while any(address.topic(name) not in found for name in _TOPICS):
            found = _available(client, address, deadline_s, refusal)
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


class _Refusal:
    """Why the servers reject a client; calls alone only time out."""

    reason = ""

    def note(self, error: KafkaError) -> None:
        """Store the reason of an error outside of calls."""
        if error.code() in {KafkaError._AUTHENTICATION, KafkaError._SSL}:  # noqa: SLF001 - public
            self.reason = error.str()


def _available(
    client: AdminClient, address: KafkaAddress, deadline_s: float, refusal: _Refusal
) -> dict[str, TopicMetadata]:
    """Return the topics that exist and whose partitions have leaders."""
    while True:
        left_s = deadline_s - time.monotonic()
        try:
            topics = client.list_topics(timeout=max(0.01, min(left_s, _TRY_S))).topics
        except KafkaException as error:
            if left_s <= 0:
                client.poll(0)  # runs callbacks
                reason = refusal.reason or error_of(error).str()
                raise StartupError(
                    f"{address}: cannot be reached ({reason}; tried for {address.wait_s:g} s)"
                ) from error
            time.sleep(max(0.0, min(left_s, _PAUSE_S)))
            continue
        if left_s <= 0:
            raise StartupError(f"{address}: topics have no leaders after {address.wait_s:g} s")
        return {
            name: topic
            for name, topic in topics.items()
            if topic.error is None and all(each.leader >= 0 for each in topic.partitions.values())
        }


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


def _create(
    client: AdminClient,
    address: KafkaAddress,
    names: list[str],
    partitions: int,
    deadline_s: float,
) -> None:
    """Create topics; retry while servers are still starting and too few for the replication."""
    wanted = [
        NewTopic(
            address.topic(name),
            num_partitions=_TOPICS[name].partitions or partitions,
            replication_factor=address.replication,
            config=_TOPICS[name].config(),
        )
        for name in names
    ]
    while wanted:
        retried = set()
        outcomes = client.create_topics(
            wanted, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S
        )
        for name, made in outcomes.items():
            error = _outcome(made)
            if error is None:
                log.info("%s: created topic %s", address, name)
            elif _lacks_servers(error) and time.monotonic() < deadline_s:
                retried.add(name)
            elif error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StartupError(f"{address}: cannot create topic {name}: {error.str()}")
        wanted = [topic for topic in wanted if topic.topic in retried]
        time.sleep(_PAUSE_S if wanted else 0)


def _lacks_servers(error: KafkaError) -> bool:
    """Return whether there were fewer servers than replicas."""
    return bool(error.code() == KafkaError.INVALID_REPLICATION_FACTOR)


def _check_settings(client: AdminClient, address: KafkaAddress) -> None:
    resources = [ConfigResource(ResourceType.TOPIC, address.topic(name)) for name in _TOPICS]
    answers = client.describe_configs(resources, request_timeout=_TIMEOUT_S)
    for topic, resource in zip(_TOPICS.values(), resources, strict=True):
        error = _outcome(answers[resource])
        if error is not None:
            raise StartupError(f"{address}: cannot describe {resource.name}: {error.str()}")
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
            raise StartupError(f"{address}: cannot describe {name}: {error.str()}")
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
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(topics), name=f"topics of {topics.address}")
            yield
            watch.cancel()
    except ExceptionGroup as group:
        raise first_error(group) from group


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
