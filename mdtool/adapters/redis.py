"""A channel of a Redis server, for what several processes share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

from mdtool.core.addresses import format_address, parse_address
from mdtool.core.backoff import delays
from mdtool.core.errors import ConfigError, StartupError, UsageError
from mdtool.core.lifecycle import first_error

try:
    from redis.asyncio import Redis
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, RedisError, ResponseError
except ImportError as error:
    raise ConfigError(
        "redis: the client of redis is not installed; pip install 'mdtool[redis]'"
    ) from error

log = logging.getLogger(__name__)

_RESPONSE_S: Final = 2.0
"""How long the server may take to respond."""
_PING_S: Final = 1.0
"""How often the server is pinged, where nothing is written."""
_LONGEST_DELAY_S: Final = 1.0
_STEADY_S: Final = 10.0
"""A connection that lasted as long was sound: its loss is followed by a reconnect at once."""
_UNTRUSTED: Final = "certificate verify failed"
_CANCEL_S: Final = 0.1
_PORT: Final = 6379
_SENTINEL: Final = "+sentinel"
_SENTINEL_PORT: Final = 26379


class RedisServer:
    """The server of a URL: at an address, or the one that sentinels name at each connection.

    Parameters
    ----------
    setting : str
        Which setting has the URL, for errors.
    url : str
        `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, and `rediss://` with TLS, of which
        `?ssl_ca_certs=FILE` is whom to trust. For sentinels
        `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST[:PORT]/NAME[?db=DATABASE]`, and
        `rediss+sentinel://`, where sentinels have TLS too; the user is the server's.

    Attributes
    ----------
    address : str
        For people, without secrets.

    Raises
    ------
    ConfigError
        When it is not valid.
    """

    def __init__(self, setting: str, url: str) -> None:
        self._url = url
        self._sentinel: Sentinel | None = None
        scheme, _, rest = url.partition("://")
        try:
            if scheme.endswith(_SENTINEL):
                self._find(scheme.removesuffix(_SENTINEL), rest)
                return
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORT
            self.client()
        except (ValueError, UsageError) as error:
            raise ConfigError(
                f"{setting}: not a valid URL: {error}; write redis://HOST:PORT, or "
                "redis+sentinel://HOST:PORT,HOST:PORT/NAME"
            ) from error
        if not host:
            raise ConfigError(f"{setting}: the URL names no host; write redis://HOST:PORT")
        self.address = format_address(host, port)

    def client(self) -> Redis:
        """Return a client, not connected yet."""
        if self._sentinel is not None:
            client: Redis = self._sentinel.master_for(self._name)
            return client
        return Redis.from_url(self._url, **_limits())

    async def close(self) -> None:
        """Close the connections to sentinels."""
        if self._sentinel is not None:
            for each in self._sentinel.sentinels:
                await each.aclose()

    def _find(self, scheme: str, rest: str) -> None:
        authority, _, tail = rest.partition("/")
        user, at, hosts = authority.rpartition("@")
        self._name, _, query = tail.partition("?")
        if not self._name:
            raise ValueError("it names no server of the sentinels")
        options: dict[str, Any] = dict(parse_url(f"{scheme}://{user}{at}server/?{query}"))
        del options["host"]
        tls: dict[str, Any] = {}
        if options.pop("connection_class", None) is not None:
            names = [name for name in options if name.startswith("ssl_")]
            tls = {"ssl": True} | {name: options.pop(name) for name in names}
        addresses = [
            parse_address(each if ":" in each else f"{each}:{_SENTINEL_PORT}")
            for each in hosts.split(",")
        ]
        sentinel: Any = Sentinel  # which has no types
        self._sentinel = sentinel(
            addresses, sentinel_kwargs={**_limits(), **tls}, **_limits(), **tls, **options
        )
        self.address = f"{self._name} of sentinels {hosts}"


def _limits() -> dict[str, Any]:
    return {
        "socket_timeout": _RESPONSE_S,
        "socket_connect_timeout": _RESPONSE_S,
        "retry": Retry(NoBackoff(), 0),
    }


class ChannelUser(Protocol):
    """What a channel connects: it receives messages, and writes when it was woken."""

    async def connected(self, client: Redis) -> None:
        """Read and write what goes before the first message.

        Raises
        ------
        OSError, RedisError
            Why the connection cannot be used.
        """
        ...

    def receive(self, data: bytes) -> None:
        """Take a message of the channel, also one that this process has published."""
        ...

    async def write(self, client: Redis) -> None:
        """Write what waits; raise as `connected`."""
        ...

    def lost(self) -> None:
        """Take notice that the connection is lost, with what was not written."""
        ...


class RedisChannel:
    """A channel of a server, connected again whenever its connection is lost.

    An async context manager, which does not wait for the connection.

    Parameters
    ----------
    server : RedisServer
    name : str
    user : ChannelUser
    needs : str, optional
        What the user of the URL needs on the server. Without it, a server that refuses the first
        connection is tried again; else `opened` raises.

    Attributes
    ----------
    address : str
        For people, without secrets.
    is_connected : bool
    lost_because : str or None
        Why it is unavailable, None where it is available.
    """

    def __init__(
        self, server: RedisServer, name: str, user: ChannelUser, needs: str | None = None
    ) -> None:
        self.address = f"redis {server.address}"
        self.is_connected = False
        self.lost_because: str | None = "not connected yet"
        self._server = server
        self._name = name
        self._user = user
        self._needs = needs
        self._redis = server.client()
        self._has_work = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._task: asyncio.Task[None]
        self._exchanging: tuple[asyncio.Task[None], ...] = ()
        self._opened: asyncio.Future[None]

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._opened = asyncio.get_running_loop().create_future()
        self._task = self._tasks.create_task(self._run())
        return self

    async def opened(self, within_s: float) -> None:
        """Wait for the first connection, for a time at most.

        Raises
        ------
        StartupError
            When the server refuses it.
        """
        await asyncio.wait({self._opened}, timeout=within_s)
        if self._opened.done():
            self._opened.result()
        self._opened.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while not self._task.done():
            # The client of redis can lose a cancellation that comes with an error.
            for task in (self._task, *self._exchanging):
                task.cancel()
            await asyncio.wait({self._task}, timeout=_CANCEL_S)
        # The last cancellation may have come while it closed its connections.
        await self._redis.aclose()
        await self._server.close()
        if kind is asyncio.CancelledError:
            await self._tasks.__aexit__(kind, error, traceback)
        else:  # which the group would wrap in a group
            await self._tasks.__aexit__(None, None, None)

    def wake(self) -> None:
        """Have the user write."""
        self._has_work.set()

    async def _run(self) -> None:
        waits = delays(cap_s=_LONGEST_DELAY_S)
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                await self._exchange()
            except (OSError, RedisError, ExceptionGroup) as raised:
                error = first_error(raised)
                if not isinstance(error, OSError | RedisError):
                    raise
                reason = str(error) or type(error).__name__
                if self._refuse(error, reason):
                    return
                if loop.time() - began_s >= _STEADY_S:
                    waits = delays(cap_s=_LONGEST_DELAY_S)
                self._lose(reason)
            await asyncio.sleep(next(waits))

    def _refuse(self, error: OSError | RedisError, reason: str) -> bool:
        """End the start, if this is one, as a server that answers so will not answer better."""
        if self._needs is None or self._opened.done():
            return False
        if isinstance(error, ResponseError | AuthenticationError):
            needs = f"its user needs {self._needs}"
        elif _UNTRUSTED in reason:
            needs = "name whom to trust as ssl_ca_certs"
        else:
            return False
        self._opened.set_exception(StartupError(f"{self.address}: {reason}; {needs}"))
        return True

    async def _exchange(self) -> None:
        """Read and write until the connection is lost.

        Raises
        ------
        OSError, RedisError, ExceptionGroup
            Why it was lost.
        """
        self._redis = self._server.client()
        async with self._redis as client, client.pubsub() as channel:
            await channel.subscribe(self._name)
            if await channel.get_message(timeout=_RESPONSE_S) is None:
                raise TimeoutError("no answer to a subscription")
            await self._user.connected(client)
            self.lost_because = None
            self.is_connected = True
            if not self._opened.done():
                self._opened.set_result(None)
            log.info("%s: connected", self.address)
            async with asyncio.TaskGroup() as tasks:
                self._exchanging = (
                    tasks.create_task(self._listen(channel)),
                    tasks.create_task(self._write(client)),
                )

    async def _listen(self, channel: Any) -> None:
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=_PING_S)
            if message is not None:
                self._user.receive(message["data"])

    async def _write(self, client: Redis) -> None:
        while True:
            try:
                async with asyncio.timeout(_PING_S):
                    await self._has_work.wait()
            except TimeoutError:
                with contextlib.suppress(ResponseError):  # which is an answer
                    await client.ping()  # finds a server that hangs, and a silent network
            self._has_work.clear()
            await self._user.write(client)

    def _lose(self, reason: str) -> None:
        if reason != self.lost_because:
            log.warning("%s: %s; reconnecting", self.address, reason)
        self.lost_because = reason
        self.is_connected = False
        self._user.lost()
