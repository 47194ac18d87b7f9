"""The address of Kafka and the names of topics, from a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

from mdtool.core.addresses import parse_address
from mdtool.core.errors import ConfigError, UsageError

SCHEME: Final = "kafka"
PREFIX: Final = "mdtool"
PARTITIONS: Final = 6
"""The partitions of topics that are created, unless the URL has a number."""
_MAX_PARTITIONS: Final = 256
"""One aggregator may own all of them, with two clients each, and a process can have 1,024."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_FORM: Final = (
    "kafka://HOST:PORT[,HOST:PORT...][?prefix=NAME&partitions=N&replication=N&wait_s=N&config=FILE]"
)


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """The bootstrap servers, and the settings of topics.

    Attributes
    ----------
    servers : str
        `HOST:PORT`, several with commas.
    prefix : str
        The prefix of the names of topics.
    partitions : int or None
        The number of partitions of ticks; None for that of the existing topic, or `PARTITIONS`.
    replication : int
        The replicas of topics that are created; -1 for the servers' default.
    wait_s : float or None
        How long a service waits for the servers at its start; None for as long as it takes.
    config : str
        A file of client settings, empty where none are needed.
    """

    servers: str
    prefix: str = PREFIX
    partitions: int | None = None
    replication: int = -1
    wait_s: float | None = None
    config: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the address that a URL names.

        Raises
        ------
        ConfigError
            When it is not valid.
        """
        try:
            parts = urlsplit(url)
            is_strict = bool(parts.query)  # a strict parser rejects an empty query
            given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=is_strict))
        except ValueError as error:
            raise ConfigError(f"{url}: {error}; give {_FORM}") from error
        if parts.scheme != SCHEME or parts.path.strip("/") or parts.fragment:
            raise ConfigError(f"{url}: is not the URL of a bus; give {_FORM}")
        try:
            for server in parts.netloc.split(","):
                parse_address(server)
        except UsageError as error:
            raise ConfigError(f"{url}: {error}") from error
        address = cls(
            parts.netloc,
            given.pop("prefix", PREFIX),
            _whole(url, given.pop("partitions", None), None, 1, _MAX_PARTITIONS),
            _whole(url, given.pop("replication", None), -1, 1, 32_767) or -1,
            _whole(url, given.pop("wait_s", None), None, 1, 3_600),
            given.pop("config", ""),
        )
        if given:
            raise ConfigError(f"{url}: {', '.join(sorted(given))} is not an option; give {_FORM}")
        if not _PREFIX.fullmatch(address.prefix):
            raise ConfigError(f"{url}: prefix expects 1 to 200 letters, digits, dots, _ and -")
        return address

    def __str__(self) -> str:
        return f"kafka {self.servers}"

    def topic(self, name: str) -> str:
        """Return the full name of a topic."""
        return f"{self.prefix}.{name}"


def _whole(url: str, text: str | None, default: int | None, low: int, high: int) -> int | None:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ConfigError(f"{url}: {text!r} is not an integer from {low} to {high}")
    return int(text)
