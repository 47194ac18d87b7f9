"""mdtool's topics: made on first use, with settings that fit what is in them, and checked after."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

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
from mdtool.core.errors import StartupError

log = logging.getLogger(__name__)

_DAY_MS: Final = 86_400_000
_COMPACTED: Final = {
    # What is read whole at a start stays short.
    "segment.bytes": 64 << 20,
    "min.cleanable.dirty.ratio": 0.2,
}
_TRY_S: Final = 1.0
_PAUSE_S: Final = 0.05
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Topic:
    policy: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    partitions: int | None = None
    """None for as many as the topic of ticks has."""

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


class Identity(NamedTuple):
    """What a topic is while services work on it.

    Attributes
    ----------
    topic_id : str
        What tells it from others that had or will have its name.
    partitions : int
        How many it has.
    """

    topic_id: str
    partitions: int

    @classmethod
    def of(cls, described: TopicDescription) -> Self:
        """Return that of a topic that servers described."""
        return cls(str(described.topic_id), len(described.partitions))


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics as a service found them, or made them.

    Attributes
    ----------
    address : KafkaAddress
        Where they are.
    partitions : int
        How many ticks have.
    identities : dict
        Of each, by its full name.
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
    """Make the topics that are not there, check all, and return them.

    Raises
    ------
    ConfigError
        When the address's file of settings is not as it should be.
    StartupError
        When the servers cannot be reached within the address's `wait_s`, or a topic is not as it
        should be.
    """
    refusal = _Refusal()
    client = admin(address, {"error_cb": refusal.note})
    deadline_s = time.monotonic() + address.wait_s
    found = _look(client, address, deadline_s, refusal)
    partitions = _partitions(address, found)
    missing = [name for name in _TOPICS if address.topic(name) not in found]
    if missing:
        _make(client, address, missing, partitions, deadline_s)
        while any(address.topic(name) not in found for name in _TOPICS):
            found = _look(client, address, deadline_s, refusal)
        partitions = _partitions(address, found)  # another service may have been first
    for name, topic in _TOPICS.items():
        full_name = address.topic(name)
        there, wanted = len(found[full_name].partitions), topic.partitions or partitions
        if there != wanted:
            raise StartupError(
                f"{address}: topic {full_name} has {there} partitions, not {wanted}; move it away "
                f"or name another prefix"
            )
    _check_settings(client, address)
    return Topics(address, partitions, _identities(client, address))


class _Refusal:
    """Why the servers turn a client away, which calls do not tell: they only take too long."""

    reason = ""

    def note(self, error: KafkaError) -> None:
        """Take note of an error that is no call's."""
        if error.code() in {KafkaError._AUTHENTICATION, KafkaError._SSL}:  # noqa: SLF001 - public
            self.reason = error.str()


def _look(
    client: AdminClient, address: KafkaAddress, deadline_s: float, refusal: _Refusal
) -> dict[str, TopicMetadata]:
    """Return the topics that there are and whose partitions can be written."""
    while True:
        left_s = deadline_s - time.monotonic()
        try:
            topics = client.list_topics(timeout=max(0.01, min(left_s, _TRY_S))).topics
        except KafkaException as error:
            if left_s <= 0:
                client.poll(0)  # hands over what there is to note
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
    """Return how many partitions topics of ticks have, or are to have."""
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


def _make(
    client: AdminClient,
    address: KafkaAddress,
    names: list[str],
    partitions: int,
    deadline_s: float,
) -> None:
    """Make topics, again while there are too few servers, as there are until all have started."""
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
        too_few = set()
        outcomes = client.create_topics(
            wanted, operation_timeout=_TIMEOUT_S, request_timeout=_TIMEOUT_S
        )
        for name, made in outcomes.items():
            error = _outcome(made)
            if error is None:
                log.info("%s: made topic %s", address, name)
            elif _lacks_servers(error) and time.monotonic() < deadline_s:
                too_few.add(name)
            elif error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StartupError(f"{address}: cannot make topic {name}: {error.str()}")
        wanted = [topic for topic in wanted if topic.topic in too_few]
        time.sleep(_PAUSE_S if wanted else 0)


def _lacks_servers(error: KafkaError) -> bool:
    """Tell whether there were fewer servers than a topic wants replicas, which may pass."""
    return bool(error.code() == KafkaError.INVALID_REPLICATION_FACTOR)


def _check_settings(client: AdminClient, address: KafkaAddress) -> None:
    resources = [ConfigResource(ResourceType.TOPIC, address.topic(name)) for name in _TOPICS]
    answers = client.describe_configs(resources, request_timeout=_TIMEOUT_S)
    for topic, resource in zip(_TOPICS.values(), resources, strict=True):
        error = _outcome(answers[resource])
        if error is not None:
            raise StartupError(f"{address}: cannot look at {resource.name}: {error.str()}")
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
            raise StartupError(f"{address}: cannot look at {name}: {error.str()}")
        identities[name] = Identity.of(described.result())
    return identities


def describe(
    client: AdminClient, names: Sequence[str], timeout_s: float = _TIMEOUT_S
) -> dict[str, Future[TopicDescription]]:
    """Ask what topics are, by their full names."""
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
