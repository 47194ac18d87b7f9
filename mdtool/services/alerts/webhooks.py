"""Webhooks: alerts as signed HTTP requests, which hold up nobody when they hang or fail."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

import aiohttp
from yarl import URL

from mdtool.core.backoff import delays
from mdtool.core.errors import UsageError

log = logging.getLogger(__name__)

SIGNATURE: Final = "Mdtool-Signature"
MAX_WAITING: Final = 1_000
"""Alerts that wait for one webhook; further ones are dropped, and counted."""
ATTEMPTS: Final = 6
_FIRST_DELAY_S: Final = 1.0
_LONGEST_DELAY_S: Final = 60.0
_TIMEOUT_S: Final = 10.0
_TRANSIENT: Final = frozenset({408, 425, 429})
"""What besides 5xx may be different the next time."""
_V4_SPECIAL: Final = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("192.88.99.0/24"))
"""Of protocols (RFC 6890) and of relays (RFC 7526): they are global, and no public server."""
_V6_PUBLIC: Final = ipaddress.ip_network("2000::/3")
_V6_DOCUMENTATION: Final = ipaddress.ip_network("3fff::/20")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class InsideError(OSError):
    """An address is inside the network."""


_FINAL: Final = (InsideError, aiohttp.InvalidURL)
"""Errors that the next attempt would have, too."""


def is_outside(address: str) -> bool:
    """Return whether an IP address is that of a public server, in any of its notations.

    Parameters
    ----------
    address : str
        Of IPv4 in any form that the system takes, such as `127.1`, or of IPv6. One with a zone is
        of a link.

    Raises
    ------
    ValueError
        When it is not an IP address.
    """
    plain, _, zone = address.partition("%")
    try:
        parsed = ipaddress.ip_address(plain)
    except ValueError:
        parsed = _short_form(plain)
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = _carried(parsed)
        if inner is None:
            is_public = parsed in _V6_PUBLIC and parsed not in _V6_DOCUMENTATION
            return is_public and parsed.is_global and not zone
        parsed = inner
    is_special = any(parsed in network for network in _V4_SPECIAL)
    return parsed.is_global and not parsed.is_multicast and not is_special


def _short_form(text: str) -> ipaddress.IPv4Address:
    """Return an address of fewer parts, or of octal or hexadecimal ones."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(text))
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{text} is not an IP address") from error


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the address of IPv4 that packets to one of IPv6 reach, None for others."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _outside_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Make the socket of a connection, unless that would lead inside the network.

    Every connection begins here, with the address that it goes to: of whatever notation in the
    URL, and of whatever answer of the name server, which may be another one each time.
    """
    family, kind, protocol, _, address = info
    if not is_outside(str(address[0])):
        raise InsideError("is at an address inside the network; webhook-inside allows that")
    return socket.socket(family, kind, protocol)


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of the header `Mdtool-Signature`."""
    signed = hmac.new(secret.encode(), b"%d." % timestamp_s + body, hashlib.sha256)
    return f"t={timestamp_s},v1={signed.hexdigest()}"


def _not_valid(url: str) -> UsageError:
    return UsageError(f"--webhook {url}: is not a valid URL; give https://HOST/PATH")


class Webhooks:
    """Sends alerts to URLs, to each in order.

    Parameters
    ----------
    urls : sequence of str
    secret : str
        The key of signatures.
    allows_inside : bool
        Whether a URL may lead inside the network.

    Attributes
    ----------
    counts : Counter
        How many alerts were `delivered`, `failed` or `dropped`.

    Raises
    ------
    UsageError
        When a URL is not valid, leads inside the network, or there is no secret.
    """

    def __init__(self, urls: Sequence[str], secret: str, *, allows_inside: bool = False) -> None:
        if urls and not secret:
            raise UsageError("--webhook: requests are signed; give a key as webhook-secret")
        self.counts: Counter[str] = Counter(delivered=0, failed=0, dropped=0)
        self._allows_inside = allows_inside
        self._webhooks = [_Webhook(url, secret, self.counts) for url in urls]
        if not allows_inside:
            for webhook in self._webhooks:
                webhook.check_outside()

    def __bool__(self) -> bool:
        return bool(self._webhooks)

    def publish(self, body: bytes) -> None:
        """Have an alert sent, without waiting."""
        for webhook in self._webhooks:
            webhook.publish(body)

    async def run(self) -> None:
        """Send what is published until cancelled."""
        if not self._webhooks:
            return
        make_socket = None if self._allows_inside else _outside_socket
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=make_socket),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for webhook in self._webhooks:
                tasks.create_task(webhook.run(session))


class _Webhook:
    """One URL, and what waits for it."""

    def __init__(self, url: str, secret: str, counts: Counter[str]) -> None:
        try:
            self._url = URL(url)
        except ValueError as error:
            raise _not_valid(url) from error
        if self._url.scheme not in {"http", "https"} or not self._url.host:
            raise _not_valid(url)
        self._host = self._url.host
        self._name = f"webhook {self._url.scheme}://{self._host}"
        self._secret = secret
        self._counts = counts
        self._waiting: deque[bytes] = deque()
        self._is_waiting = asyncio.Event()
        self._is_failing = False

    def check_outside(self) -> None:
        """Raise UsageError where the URL has an address inside the network.

        What a name leads to is known when it is connected to.
        """
        try:
            outside = is_outside(self._host)
        except ValueError:
            return
        if not outside:
            raise UsageError(
                f"--webhook {self._url}: is an address inside the network; --webhook-inside allows "
                "that"
            )

    def publish(self, body: bytes) -> None:
        """Add an alert to those that wait, unless these are too many."""
        if len(self._waiting) == MAX_WAITING:
            self._counts["dropped"] += 1
            return
        self._waiting.append(body)
        self._is_waiting.set()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Send one alert after the other until cancelled."""
        while True:
            while self._waiting:
                body = self._waiting[0]
                outcome = "delivered" if await self._deliver(session, body) else "failed"
                self._counts[outcome] += 1
                self._waiting.popleft()
            self._is_waiting.clear()
            await self._is_waiting.wait()

    async def _deliver(self, session: aiohttp.ClientSession, body: bytes) -> bool:
        """Send an alert, several times where that may help; return whether it was accepted."""
        waits = delays(_FIRST_DELAY_S, _LONGEST_DELAY_S)
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(next(waits))
            reason, may_help = await self._send(session, body)
            if not reason:
                if self._is_failing:
                    log.info("%s: accepts alerts again", self._name)
                self._is_failing = False
                return True
            if not self._is_failing:
                log.warning("%s: %s", self._name, reason)
            self._is_failing = True
            if not may_help:
                break
        return False

    async def _send(self, session: aiohttp.ClientSession, body: bytes) -> tuple[str, bool]:
        """Return why an alert was not accepted, empty if it was, and whether a retry may help."""
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature(self._secret, int(time.time()), body),
        }
        try:
            async with session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except TimeoutError:
            return f"no answer within {_TIMEOUT_S:g} s", True
        except (aiohttp.ClientError, OSError) as error:
            cause = getattr(error, "os_error", error)
            return str(cause) or type(cause).__name__, not isinstance(cause, _FINAL)
        if 200 <= status < 300:
            return "", False
        if 300 <= status < 400:
            return f"redirects ({status}), which is not followed", False
        return f"answered {status}", status >= 500 or status in _TRANSIENT
