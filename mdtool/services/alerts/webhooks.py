"""Webhooks: alerts as signed HTTP requests, which hold up nobody when they hang or fail."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

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
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class InsideError(OSError):
    """An address is inside the network."""


def is_outside(address: str) -> bool:
    """Return whether an IP address is a public one, in any of its notations."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed.sixtofour is not None:
            parsed = parsed.sixtofour
        elif parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return parsed.is_global and not parsed.is_multicast


class OutsideResolver(AbstractResolver):
    """Resolves names, and refuses those with an address inside the network.

    The connection goes to the addresses that were looked at, so that a name which changes in
    between gains nothing.

    Parameters
    ----------
    resolver : AbstractResolver, optional
    """

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or DefaultResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Return the addresses of a host; raise InsideError where one is inside the network."""
        found = await self._resolver.resolve(host, port, family)  # type: ignore[arg-type]
        for each in found:
            if not is_outside(each["host"]):
                raise InsideError(f"{host} is {each['host']}, an address inside the network")
        return found

    async def close(self) -> None:
        """Release what it uses."""
        await self._resolver.close()


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """Return the value of the header `Mdtool-Signature`."""
    signed = hmac.new(secret.encode(), b"%d." % timestamp_s + body, hashlib.sha256)
    return f"t={timestamp_s},v1={signed.hexdigest()}"


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
        resolver = None if self._allows_inside else OutsideResolver()
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver),
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
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"--webhook {url}: is not a valid URL; give https://HOST/PATH")
        self._url = url
        self._host = parts.hostname
        self._name = f"webhook {parts.scheme}://{parts.hostname}"
        self._secret = secret
        self._counts = counts
        self._waiting: deque[bytes] = deque()
        self._is_waiting = asyncio.Event()
        self._is_failing = False

    def check_outside(self) -> None:
        """Raise UsageError where the URL has an address inside the network; names are resolved."""
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
            return str(cause) or type(cause).__name__, not isinstance(cause, InsideError)
        if 200 <= status < 300:
            return "", False
        if 300 <= status < 400:
            return f"redirects ({status}), which is not followed", False
        return f"answered {status}", status >= 500 or status in _TRANSIENT
