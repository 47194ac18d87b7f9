"""Where a Kafka is and which topics of it are meant, as a URL says it."""

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
"""Of topics that are made, unless the URL says how many."""
_MAX_PARTITIONS: Final = 256
"""One aggregator may have all of them, two clients each, of which a process can have 1,024."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_FORM: Final = (
    "kafka://HOST:PORT[,HOST:PORT...][?prefix=NAME&partitions=N&replication=N&wait_s=N&config=FILE]"
)


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """The servers to begin with, and the topics that are meant.

    Attributes
    ----------
    servers : str
        `HOST:PORT`, several with commas.
    prefix : str
        What names of topics begin with.
    partitions : int or None
        How many partitions topics of ticks have; None for as many as there are, `PARTITIONS` where
        there is no topic yet.
    replication : int
        How often each record is kept in topics that are made; -1 for the servers' own default.
    wait_s : float
        How long a service that starts waits for the servers.
    config : str
        The file of `client_file`, empty where clients need none.
    """

    servers: str
    prefix: str = PREFIX
    partitions: int | None = None
    replication: int = -1
    wait_s: float = 10.0
    config: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return what a URL says.

        Raises
        ------
        ConfigError
            When it is not as it should be.
        """
        try:
            parts = urlsplit(url)
            is_strict = bool(parts.query)  # nothing is no query to a strict parser
            given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=is_strict))
        except ValueError as error:
            raise ConfigError(f"{url}: {error}; give {_FORM}") from error
        if parts.scheme != SCHEME or parts.path.strip("/") or parts.fragment:
            raise ConfigError(f"{url}: is no bus; give {_FORM}")
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
            _whole(url, given.pop("wait_s", None), 10, 1, 3_600) or 10,
            given.pop("config", ""),
        )
        if given:
            raise ConfigError(f"{url}: {', '.join(sorted(given))} is no part of {_FORM}")
        if not _PREFIX.fullmatch(address.prefix):
            raise ConfigError(f"{url}: prefix wants 1 to 200 letters, digits, dots, _ and -")
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
        raise ConfigError(f"{url}: {text!r} is no whole number from {low} to {high}")
    return int(text)
