"""The clients of confluent-kafka as mdtool configures them.

Their methods block, some of them for as long as they are told to; they are called in threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.adapters.kafka.client_file import read_client_file
from mdtool.core.errors import ConfigError

try:
    from confluent_kafka import (
        OFFSET_BEGINNING,
        Consumer,
        KafkaError,
        KafkaException,
        Message,
        Producer,
        TopicCollection,
        TopicPartition,
    )
    from confluent_kafka.admin import (
        AdminClient,
        ConfigResource,
        NewTopic,
        OffsetSpec,
        ResourceType,
        TopicDescription,
        TopicMetadata,
    )
except ImportError as error:
    raise ConfigError("a bus over Kafka wants its client: pip install 'mdtool[kafka]'") from error

__all__ = [
    "OFFSET_BEGINNING",
    "AdminClient",
    "ConfigResource",
    "Consumer",
    "KafkaError",
    "KafkaException",
    "Message",
    "NewTopic",
    "OffsetSpec",
    "Producer",
    "ResourceType",
    "TopicCollection",
    "TopicDescription",
    "TopicMetadata",
    "TopicPartition",
]

log = logging.getLogger(__name__)

C = TypeVar("C")

MAX_RECORD_BYTES: Final = 4 << 20
"""How long a record of ticks may be."""
_COMMON: Final = {
    "client.id": "mdtool",
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "socket.nagle.disable": True,
    "allow.auto.create.topics": False,
    "topic.metadata.refresh.fast.interval.ms": 100,
}
_PRODUCING: Final = {
    "enable.idempotence": True,
    "acks": "all",
    # Nothing is waited for, and nothing given up: what was produced is sent until it is there.
    "linger.ms": 0,
    "compression.type": "lz4",
    "message.max.bytes": MAX_RECORD_BYTES,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 1_000,
}
_CONSUMING: Final = {
    "group.id": "mdtool",  # of consumers that join no group, the client wants one too
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # what is passed over is told
    "isolation.level": "read_committed",
    "fetch.max.bytes": 64 << 20,
    "max.partition.fetch.bytes": 2 * MAX_RECORD_BYTES,
    "queued.max.messages.kbytes": 64 << 10,
    "fetch.error.backoff.ms": 50,
}


class _Quiet:
    """Takes what the client logs: of an outage each of its tries, which services tell of once."""

    def log(self, _level: int, message: str, *arguments: object) -> None:
        """Log at the level for those who look for it."""
        log.debug(message, *arguments)


def producer(address: KafkaAddress, settings: Mapping[str, Any] | None = None) -> Producer:
    """Return an idempotent producer, which waits for all replicas.

    Raises
    ------
    ConfigError
        When the address's file of settings is not as it should be; so also of the others.
    """
    return _made(Producer, address, _PRODUCING, settings)


def consumer(address: KafkaAddress, settings: Mapping[str, Any] | None = None) -> Consumer:
    """Return a consumer that sees what is committed, and commits nothing by itself."""
    return _made(Consumer, address, _CONSUMING, settings)


def admin(address: KafkaAddress, settings: Mapping[str, Any] | None = None) -> AdminClient:
    """Return a client that looks at topics and makes them."""
    return _made(AdminClient, address, {}, settings)


def error_of(raised: KafkaException) -> KafkaError:
    """Return the error that an exception carries."""
    error: KafkaError = raised.args[0]
    return error


def _made(
    client: Callable[..., C],
    address: KafkaAddress,
    kind: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
) -> C:
    config = {
        "bootstrap.servers": address.servers,
        "error_cb": _ignore,
        **(read_client_file(address.config) if address.config else {}),
        **_COMMON,
        **kind,
        **(settings or {}),
    }
    try:
        return client(config, logger=_Quiet())
    except KafkaException as error:
        where = address.config or str(address)
        raise ConfigError(f"{where}: {error_of(error).str()}") from error


def _ignore(_error: KafkaError) -> None:
    """Leave what is no call's outcome, such as a lost connection, to the client, which retries."""
