"""The clients of confluent-kafka: how mdtool configures them, and how it reads with consumers.

Their methods block, and are called in threads.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from mdtool.adapters.kafka.address import KafkaAddress
from mdtool.core import tracing
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
    raise ConfigError("a bus over Kafka needs its client: pip install 'mdtool[kafka]'") from error

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

MAX_RECORD_BYTES: Final = 4 << 20
"""The largest size of a record of ticks."""
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
    # Records are sent at once, and again until they are acknowledged.
    "linger.ms": 0,
    "compression.type": "lz4",
    "message.max.bytes": MAX_RECORD_BYTES,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 1_000,
}
_CONSUMING: Final = {
    "group.id": "mdtool",  # required even of consumers that join no group
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # lost records are an error
    "isolation.level": "read_committed",
    "fetch.max.bytes": 64 << 20,
    "max.partition.fetch.bytes": 2 * MAX_RECORD_BYTES,
    "queued.max.messages.kbytes": 64 << 10,
    "fetch.error.backoff.ms": 50,
}

_USER_KEYS: Final = (
    "security.",
    "sasl.",
    "ssl.",
    "enable.ssl.",
    "client.rack",
    "broker.address.",
)
"""Prefixes of the settings that users may set; the others are mdtool's own."""
_COMMENTS: Final = ("#", "!")
TELLS_ENDS: Final = {"enable.partition.eof": True}
"""The setting of a consumer that reports partitions whose end it has reached."""
_AT_ONCE: Final = 10_000
_WAIT_S: Final = 0.5

C = TypeVar("C")

Headers: TypeAlias = dict[str, str | bytes | None] | None
"""Those of a record, None without any."""


class _DebugLog:
    """Logs what the client logs, such as each attempt during an outage, at the level DEBUG."""

    def log(self, _level: int, message: str, *arguments: object) -> None:
        """Log a message."""
        log.debug(message, *arguments)


def producer(address: KafkaAddress, settings: Mapping[str, Any] | None = None) -> Producer:
    """Return an idempotent producer, which waits for all replicas.

    Raises
    ------
    ConfigError
        When the address's file of settings is not valid; also by the other clients.
    """
    return _made(Producer, address, _PRODUCING, settings)


def consumer(address: KafkaAddress, settings: Mapping[str, Any] | None = None) -> Consumer:
    """Return a consumer that reads committed records, and commits no offsets by itself."""
    return _made(Consumer, address, _CONSUMING, settings)


def admin(address: KafkaAddress, settings: Mapping[str, Any] | None = None) -> AdminClient:
    """Return a client that describes and creates topics."""
    return _made(AdminClient, address, {}, settings)


def error_of(raised: KafkaException) -> KafkaError:
    """Return the error that an exception carries."""
    error: KafkaError = raised.args[0]
    return error


@contextlib.contextmanager
def client_errors() -> Iterator[None]:
    """Raise an error of the client as KafkaException, also where it appears as a SystemError.

    The client calls back, to log say, while its fatal error is pending. Python then raises
    SystemError in the callback, with that error as its cause.

    Raises
    ------
    KafkaException
        In place of such a SystemError.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


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
        return client(config, logger=_DebugLog())
    except KafkaException as error:
        where = address.config or str(address)
        raise ConfigError(f"{where}: {error_of(error).str()}") from error


def _ignore(_error: KafkaError) -> None:
    """Ignore what is not the outcome of a call, such as a lost connection: the client retries."""


def read_client_file(path: str) -> dict[str, str]:
    """Return the settings in a file of lines `key=value`, without empty lines and comments.

    The names are librdkafka's, as in the files of Kafka's own tools. The file holds secrets, which
    a command line and a URL should not.

    Raises
    ------
    ConfigError
        When it cannot be read, or a line is not valid or not for the user to set. The message is
        without values, which may be secret.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file") from error
    settings = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(_COMMENTS):
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"{path}, line {number}: expects key=value")
        if not key.startswith(_USER_KEYS):
            raise ConfigError(
                f"{path}, line {number}: {key} may not be set here; the file may set "
                f"{', '.join(f'{each}*' if each.endswith('.') else each for each in _USER_KEYS)}"
            )
        settings[key] = value.strip()
    return settings


def arrived(
    reader: Consumer, wait_s: float, limit: int, ended: set[int] | None = None
) -> list[Message]:
    """Wait for a record, and return all that have arrived by then.

    The client's own `consume` would wait for more.

    Parameters
    ----------
    reader : Consumer
        Assigned or subscribed already.
    wait_s : float
        How long to wait; then the list is empty.
    limit : int
        The largest number of records.
    ended : set of int, optional
        Mutated: partitions that were read to their end are added, by a consumer with
        `TELLS_ENDS`.

    Raises
    ------
    KafkaException
        When waiting longer would not succeed.
    """
    first = reader.poll(wait_s)
    messages = [] if first is None else [first, *reader.consume(limit - 1, 0)]
    records = []
    for message in messages:
        error = message.error()
        if error is None:
            records.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            if ended is not None:
                ended.add(message.partition() or 0)
        elif not error.retriable():
            raise KafkaException(error)
    return records


def read_to_end(
    address: KafkaAddress, topic: str, partition: int, is_stopping: Callable[[], bool]
) -> Iterator[Message]:
    """Yield the committed records of a partition up to its end.

    Blocks while the servers are unavailable, or until `is_stopping` returns true.

    Raises
    ------
    KafkaException
        When it cannot be read.
    """
    reader = consumer(address, TELLS_ENDS)
    try:
        reader.assign([TopicPartition(address.topic(topic), partition, OFFSET_BEGINNING)])
        ended: set[int] = set()
        while not ended and not is_stopping():
            yield from arrived(reader, _WAIT_S, _AT_ONCE, ended)
    finally:
        reader.close()


def traced_headers(traceparent: str) -> Headers:
    """Return the headers of a record that has a trace; none where it is empty."""
    return {tracing.TRACEPARENT: traceparent} if traceparent else None


def traceparent_of(message: Message) -> str:
    """Return the trace of a record; empty where it has none, or nothing is traced here."""
    headers = message.headers() if tracing.is_on() else None
    found = dict(headers or ()).get(tracing.TRACEPARENT)
    return found.decode("latin-1") if isinstance(found, bytes) else ""
