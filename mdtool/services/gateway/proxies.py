"""Proxies in front of the gateway: what their headers say of clients and of the gateway's path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mdtool.core.errors import ConfigError
from mdtool.services.client_address import client_address

if TYPE_CHECKING:
    from aiohttp import web

X_FORWARDED_FOR: Final = "x-forwarded-for"
FORWARDED: Final = "forwarded"
_X_FORWARDED_PREFIX: Final = "X-Forwarded-Prefix"
# An element of `Forwarded` is PAIR;PAIR, a value a token or a quoted text (RFC 7239, section 4).
_PAIR: Final = re.compile(r'\s*([\w!#$%&\'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*(?:;|$)')
_ESCAPE: Final = re.compile(r"\\(.)")
_PATH: Final = re.compile(r"(/[\w.~-]+)+")
_MAX_PREFIX_CHARS: Final = 200


class Proxies:
    """The proxies whose headers are believed.

    Parameters
    ----------
    count : int
        How many there are. Each appends its client to the header; a client can forge whatever
        precedes that.
    header : str
        X_FORWARDED_FOR or FORWARDED, whichever they append to.
    base_path : str
        Where they publish the gateway without removing that from requests, such as `/md`.

    Attributes
    ----------
    base_path : str
        Without the slash at its end; empty for none.

    Raises
    ------
    ConfigError
        When the base path is not a path.
    """

    def __init__(self, count: int = 0, header: str = X_FORWARDED_FOR, base_path: str = "") -> None:
        self.base_path = base_path.rstrip("/")
        if self.base_path and not _PATH.fullmatch(self.base_path):
            raise ConfigError(
                f"base_path: {base_path!r} is not a valid path; write one as /market-data"
            )
        self._count = count
        self._header = header

    def client_of(self, request: web.Request) -> str:
        """Return what stands for an anonymous client: its IPv4 address, or its IPv6 network."""
        if self._count:
            text = ",".join(request.headers.getall(self._header, ()))
            is_forwarded = self._header == FORWARDED
            clients = _forwarded(text, self._count) if is_forwarded else text.split(",")
            if len(clients) >= self._count:
                return client_address(clients[-self._count].strip())
        return client_address(request.remote or "")

    def base_of(self, request: web.Request) -> str:
        """Return the path below which the client of a request sees the gateway; empty for none.

        It is what proxies have removed, which `X-Forwarded-Prefix` says, before the base path.
        """
        below = self.base_path
        if not f"{request.path}/".startswith(f"{below}/"):
            below = ""
        if not self._count:
            return below
        removed = request.headers.get(_X_FORWARDED_PREFIX, "").split(",")[-self._count :]
        prefix = "".join(part.strip().rstrip("/") for part in removed)
        is_valid = len(prefix) <= _MAX_PREFIX_CHARS and _PATH.fullmatch(prefix)
        return prefix + below if is_valid else below


def _forwarded(text: str, count: int) -> list[str]:
    """Return the clients of the last elements of a header `Forwarded`, empty for an unknown.

    It is read from its end, where proxies append: a quote that a client leaves open before that
    does not reach into what they wrote.
    """
    clients: list[str] = []
    comma = end = len(text)
    while len(clients) < count and comma >= 0:
        comma = text.rfind(",", 0, comma)
        client = _client_of_element(text[comma + 1 : end])
        if client is not None:
            clients.insert(0, client)
            end = comma
    return clients


def _client_of_element(text: str) -> str | None:
    """Return what an element of `Forwarded` says of the client; None where it is not an element."""
    client, place = "", 0
    while place < len(text):
        pair = _PAIR.match(text, place)
        if pair is None:
            return None
        name, value = pair.groups()
        if name.lower() == "for":
            client = _ESCAPE.sub(r"\1", value[1:-1]) if value.startswith('"') else value
        place = pair.end()
    return client
