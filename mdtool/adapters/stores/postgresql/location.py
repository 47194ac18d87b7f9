"""Where a store in PostgreSQL is, as its URL says, and how that is told without secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from mdtool.core.addresses import format_address
from mdtool.core.errors import ConfigError

SCHEMA: Final = "mdtool"
_FORM: Final = "postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTIONS]"
_PORT: Final = "5432"
_DEFAULTS: Final[dict[str, str | int | None]] = {
    "connect_timeout": 5,
    "fallback_application_name": "mdtool",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""So that a server whose machine is gone is given up before long; a URL may say otherwise."""


@dataclass(frozen=True, slots=True)
class Location:
    """A schema of a database of a server.

    Attributes
    ----------
    parameters : str
        libpq's, the password among them.
    schema : str
        Where the tables are.
    address : str
        For people.
    """

    parameters: str
    schema: str
    address: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return what a URL names.

        Raises
        ------
        ConfigError
            When it is none; what it holds is not repeated, for a password may be in it.
        """
        base, _, query = url.partition("?")
        options = parse_qsl(query, keep_blank_values=True)
        schema = dict(options).get("schema", SCHEMA)
        rest = urlencode([option for option in options if option[0] != "schema"], quote_via=quote)
        try:
            urlsplit(base)
            given = conninfo_to_dict(f"{base}?{rest}" if rest else base)
        except (ValueError, psycopg.Error):
            # Not even as a cause, for libpq repeats the URL.
            raise ConfigError(
                f"the URL of the store is none that PostgreSQL knows: say {_FORM}, with what is "
                "special in a password as %40"
            ) from None
        host = str(given.get("host") or "")
        if "@" in host:
            raise ConfigError("the URL of the store has two @: write that in a password as %40")
        if not schema or "\0" in schema:
            raise ConfigError("the URL of the store names no schema after schema=")
        return cls(make_conninfo("", **(_DEFAULTS | given)), schema, _address(given, schema))

    @property
    def lock_key(self) -> int:
        """The number of the advisory lock that stands for the schema's market, an int64."""
        digest = hashlib.sha256(f"mdtool market {self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def _address(given: Mapping[str, object], schema: str) -> str:
    hosts = str(given.get("host") or "").split(",")
    ports = str(given.get("port") or _PORT).split(",")
    ports += ports[-1:] * (len(hosts) - len(ports))
    places = [
        host if host.startswith("/") or not host else format_address(host, int(port or _PORT))
        for host, port in zip(hosts, ports, strict=False)
    ]
    place = f"{','.join(places)}/{given.get('dbname') or ''}".removesuffix("/")
    return f"postgresql {place}" + (f" schema {schema}" if schema != SCHEMA else "")
