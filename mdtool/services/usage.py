"""What clients use of several processes: limits count it together, a little later elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import json
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from mdtool.adapters.identity.config import AuthConfig
from mdtool.core.config import load
from mdtool.services.client import BY_PRINCIPAL, Admission
from mdtool.services.holdings import Elsewhere

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

CHANNEL: Final = "quotas"
"""Of the Redis server, for what its processes use."""
_EVERY_S: Final = 0.05
"""How often processes exchange what clients used; in between, a client of several processes may
exceed a limit, and pays for it afterwards."""
_HELD_EVERY_S: Final = 5.0
"""How often a process publishes all that its clients hold."""
_SILENT_S: Final = 15.0
"""After how long a process is forgotten of which nothing is heard."""
_LEAVE_S: Final = 0.5
_HELLO: Final = "hello"
_HELD: Final = "held"
_NEWS: Final = "news"
_BYE: Final = "bye"
_MOST: Final = 1 << 53
"""Of one count, as far as every JSON has integers."""

Outlet = Callable[[Mapping[str, Any]], None]
"""Takes what clients used since its last call."""


@contextlib.asynccontextmanager
async def keeping_current(admission: Admission, usage: Usage | None = None) -> AsyncIterator[None]:
    """Keep current within the block who clients are, and what they use of other processes.

    Parameters
    ----------
    admission : Admission
        Of a service.
    usage : Usage, optional
        What it shares with other workers.

    Raises
    ------
    ConfigError
        When `[auth] quotas-redis` is not valid.
    """
    url, security = load(AuthConfig, "auth", {}).quotas_redis, admission.security
    if url and usage is None:
        usage = Usage(admission)
    if usage is None and security is None:
        yield
        return
    exchange = UsageExchange(url, usage) if url and usage is not None else None
    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        if usage is not None:
            stack.callback(tasks.create_task(usage.run()).cancel)
            if exchange is not None:
                await stack.enter_async_context(exchange)
                stack.callback(tasks.create_task(exchange.run()).cancel)
        if security is not None:
            stack.callback(tasks.create_task(security.run(admission.open)).cancel)
        yield


class Usage:
    """Shares an admission's limits with other processes.

    What clients spend is sent as it grows; what they hold, connections and subscriptions, as the
    number that it has become.

    Parameters
    ----------
    admission : Admission
    gateway : str
        What the workers of one gateway have in common, who exchange their usage directly; of a
        service without workers nothing.

    Attributes
    ----------
    outlets : list of callable
        What sends it to other processes.
    """

    def __init__(self, admission: Admission, gateway: str = "") -> None:
        self.gateway = gateway
        self.outlets: list[Outlet] = []
        self._rates = {
            f"{quota_class}/{name}": rate
            for quota_class, quota in admission.quotas.items()
            for name, rate in quota.rates.items()
        }
        for rate in self._rates.values():
            rate.spent = Counter()
        self._holdings = {
            "connections": admission.connections,
            "subscriptions": admission.subscriptions,
        }
        for holdings in self._holdings.values():
            holdings.changed = set()

    async def run(self) -> None:
        """Send what clients use until cancelled."""
        while True:
            if news := self.news():
                for outlet in self.outlets:
                    outlet(news)
            await asyncio.sleep(_EVERY_S)

    def news(self) -> Mapping[str, Any]:
        """Return what clients used since the last call, empty where they used nothing."""
        news: dict[str, Any] = {}
        for name, rate in self._rates.items():
            if rate.spent:
                news[name] = dict(rate.spent)
                rate.spent.clear()
        for name, holdings in self._holdings.items():
            if holdings.changed:
                news[name] = {
                    identity: holdings.here.get(identity, 0) for identity in holdings.changed
                }
                holdings.changed.clear()
        return news

    def held(self) -> Mapping[str, Any]:
        """Return all that clients hold, as news for a process that knows nothing."""
        return {name: dict(holdings.here) for name, holdings in self._holdings.items()}

    def apply(self, source: str, news: Mapping[str, Any], *, is_worker: bool = False) -> None:
        """Count what clients used of another process.

        Parameters
        ----------
        source : str
            Which process.
        news : mapping
        is_worker : bool
            Whether that is another worker of this service.
        """
        for name, used in news.items():
            if name in self._holdings:
                elsewhere = self._holdings[name].elsewhere
                elsewhere.setdefault(source, Elsewhere(is_worker)).update(used)
            elif name in self._rates:
                for client, count in used.items():
                    self._rates[name].charge(client, count)

    def forget(self, source: str) -> None:
        """Drop what clients hold of a process that has ended."""
        for holdings in self._holdings.values():
            holdings.elsewhere.pop(source, None)


class UsageExchange:
    """Shares usage with the processes that name the same Redis server. An async context manager.

    A process publishes on one channel what its clients use, and every few seconds all that they
    hold, so that what was lost is made up for. While the server is unavailable, each process counts
    for itself: nobody is rejected because of it.

    Principals are published by their names, anonymous clients by their addresses, without those
    that are another machine's elsewhere, such as 127.0.0.1.

    Parameters
    ----------
    url : str
        See `RedisServer`.
    usage : Usage

    Attributes
    ----------
    malformed : int
        Messages on the channel that were not valid.

    Raises
    ------
    ConfigError
        When the URL is not valid, or the client of Redis is not installed.
    """

    def __init__(self, url: str, usage: Usage) -> None:
        from mdtool.adapters.redis import RedisChannel, RedisServer

        self.malformed = 0
        self._channel = RedisChannel(RedisServer("[auth] quotas-redis", url), CHANNEL, self)
        self._usage = usage
        self._source = secrets.token_hex(8)
        self._heard_s: dict[str, float] = {}
        self._waiting: list[bytes] = []
        self._written = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        self._usage.outlets.append(self._send_news)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._usage.outlets.remove(self._send_news)
            if self._channel.is_connected:
                self._written.clear()
                self._send(_BYE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE_S):
                        await self._written.wait()
        finally:
            await self._channel.__aexit__(kind, error, traceback)

    async def run(self) -> None:
        """Publish what clients hold, and forget processes that have ended, until cancelled."""
        now_s = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_HELD_EVERY_S)
            self._send(_HELD, self._usage.held())
            for source, heard_s in [*self._heard_s.items()]:
                if now_s() - heard_s > _SILENT_S:
                    self._forget(source)

    async def connected(self, client: Redis) -> None:
        """Publish what clients hold, and request the same of others."""
        await client.publish(CHANNEL, self._encode(_HELLO, self._usage.held()))

    def receive(self, data: bytes) -> None:
        """Count what clients used of another process."""
        try:
            source, gateway, op, usage = _decode(data)
        except (ValueError, RecursionError) as error:
            self.malformed += 1
            log.debug("%s: %s: %s", self._channel.address, CHANNEL, error)
            return
        if source == self._source or (gateway and gateway == self._usage.gateway):
            return
        if op == _BYE:
            self._forget(source)
            return
        self._heard_s[source] = asyncio.get_running_loop().time()
        if op == _NEWS:
            self._usage.apply(source, usage)
            return
        self._usage.forget(source)
        self._usage.apply(source, usage)
        if op == _HELLO:
            self._send(_HELD, self._usage.held())

    async def write(self, client: Redis) -> None:
        """Publish the messages that wait."""
        messages, self._waiting = self._waiting, []
        async with client.pipeline(transaction=False) as commands:
            for message in messages:
                commands.publish(CHANNEL, message)
            await commands.execute()
        if not self._waiting:
            self._written.set()

    def lost(self) -> None:
        """Drop what waits: all that clients hold is published after a reconnect."""
        self._waiting.clear()

    def _forget(self, source: str) -> None:
        self._heard_s.pop(source, None)
        self._usage.forget(source)

    def _send_news(self, news: Mapping[str, Any]) -> None:
        self._send(_NEWS, news)

    def _send(self, op: str, usage: Mapping[str, Any] | None = None) -> None:
        if self._channel.is_connected:
            self._waiting.append(self._encode(op, usage or {}))
            self._channel.wake()

    def _encode(self, op: str, usage: Mapping[str, Mapping[str, int]]) -> bytes:
        shared = {
            name: {identity: count for identity, count in used.items() if _is_one_client(identity)}
            for name, used in usage.items()
        }
        message = {
            "source": self._source,
            "gateway": self._usage.gateway,
            "op": op,
            "usage": {name: used for name, used in shared.items() if used},
        }
        return json.dumps(message).encode()


@functools.lru_cache(4_096)
def _is_one_client(identity: str) -> bool:
    """Whether an identity is the same client for processes of every machine."""
    if identity.startswith(BY_PRINCIPAL):
        return True
    try:
        address = ipaddress.ip_network(identity).network_address
    except ValueError:  # such as `unknown`, of a proxy
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _decode(data: bytes) -> tuple[str, str, str, Mapping[str, Mapping[str, int]]]:
    """Return the source, the gateway, the op and the usage of a message; raise ValueError."""
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("expects an object")  # noqa: TRY004 - as of JSON that is not valid
    source, gateway, op = (message.get(name) for name in ("source", "gateway", "op"))
    usage = message.get("usage")
    if not (isinstance(source, str) and isinstance(gateway, str) and isinstance(usage, dict)):
        raise ValueError("expects a source, a gateway and usage")  # noqa: TRY004
    if not isinstance(op, str) or op not in {_HELLO, _HELD, _NEWS, _BYE}:
        raise ValueError("expects a known op")
    for used in usage.values():
        counts = used.values() if isinstance(used, dict) else [None]
        if not all(type(count) is int and 0 <= count < _MOST for count in counts):
            raise ValueError("expects counts by identity")
    return source, gateway, op, usage
