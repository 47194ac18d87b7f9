"""Quotes shared by many gateways through a Redis server.

Each quote is published on the channel `quotes`, and is the value of the key `quote:SYMBOL` for
`TTL_S`, both as JSON: any client of Redis can read them, or write its own. The key `quote:` is the
set of these symbols: a search among all keys would keep a server that others share busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from mdtool.adapters.quotes.port import TTL_S, QuoteListener
from mdtool.core.addresses import format_address, parse_address
from mdtool.core.backoff import delays
from mdtool.core.errors import ConfigError, StartupError, UsageError
from mdtool.core.lifecycle import first_error
from mdtool.wire.quotes import Quote, QuoteError, decode_quote, encode_quote

try:
    from redis.asyncio import Redis
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, RedisError, ResponseError
except ImportError as error:
    raise ConfigError(
        "quotes_hub: the client of redis is not installed; pip install 'mdtool[redis]'"
    ) from error

log = logging.getLogger(__name__)

CHANNEL: Final = "quotes"
KEY_PREFIX: Final = "quote:"
_SYMBOLS: Final = KEY_PREFIX
"""The key of the set of symbols; no symbol is empty."""
START_S: Final = 5.0
"""How long a start waits for the server; after that it is waited for as when it is lost later."""
_TTL_MS: Final = int(TTL_S * 1_000)
_RESPONSE_S: Final = 2.0
"""How long the server may take to respond."""
_PING_S: Final = 1.0
"""How often the server is pinged, where nothing is written."""
_LONGEST_DELAY_S: Final = 1.0
_STEADY_S: Final = 10.0
"""A connection that lasted as long was sound: its loss is followed by a reconnect at once."""
_REFUSED_S: Final = 5.0
"""How long nothing is written again that the server refused."""
_UNTRUSTED: Final = "certificate verify failed"
_CANCEL_S: Final = 0.1
_PORT: Final = 6379
_SENTINEL: Final = "+sentinel"
_SENTINEL_PORT: Final = 26379
_AT_ONCE: Final = 500
"""Quotes that are written, or keys that are read, at once."""


def _key(symbol: str | bytes) -> str:
    return KEY_PREFIX + (symbol if isinstance(symbol, str) else symbol.decode("ascii", "replace"))


def _failed(result: object) -> bool:
    return isinstance(result, Exception)


class _Server:
    """The server of a URL: at an address, or the one that sentinels name at each connection.

    Parameters
    ----------
    url : str
        `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, and `rediss://` with TLS, of which
        `?ssl_ca_certs=FILE` is whom to trust. For sentinels
        `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST[:PORT]/NAME[?db=DATABASE]`, and
        `rediss+sentinel://`, where sentinels have TLS too; the user is the server's.

    Raises
    ------
    ConfigError
        When it is not valid.
    """

    def __init__(self, url: str) -> None:
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
                f"quotes_hub: not a valid URL: {error}; write redis://HOST:PORT, or "
                "redis+sentinel://HOST:PORT,HOST:PORT/NAME"
            ) from error
        if not host:
            raise ConfigError("quotes_hub: the URL names no host; write redis://HOST:PORT")
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


class RedisQuoteHub:
    """Publishes quotes on a server, and sends listeners all that come from it, its own too.

    While the server is unavailable, or refuses them, quotes reach local listeners directly. After a
    reconnect, fresh quotes are read from the server, and sources publish theirs again.

    Parameters
    ----------
    url : str
        See `_Server`.
    start_s : float
        How long entering the hub waits for the server.

    Attributes
    ----------
    malformed : int
        Messages on the channel that were not valid quotes.

    Raises
    ------
    ConfigError
        When the URL is not valid.
    """

    is_shared = True

    def __init__(self, url: str, start_s: float = START_S) -> None:
        self.malformed = 0
        self.lost_because: str | None = "not connected yet"
        self._start_s = start_s
        self._server = _Server(url)
        self._redis = self._server.client()
        self.address = f"redis {self._server.address}"
        self._listeners: list[QuoteListener] = []
        self._waiting: dict[str, Quote] = {}
        self._being_written: dict[str, Quote] = {}
        self._has_work = asyncio.Event()
        self._is_connected = False
        self._published_from_s = self._stored_from_s = float("-inf")
        """When what the server refused is tried again, by the clock of the loop."""
        self._tasks = asyncio.TaskGroup()
        self._task: asyncio.Task[None]
        self._exchanging: tuple[asyncio.Task[None], ...] = ()
        self._opened: asyncio.Future[None]

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._opened = asyncio.get_running_loop().create_future()
        self._task = self._tasks.create_task(self._run())
        try:
            await asyncio.wait({self._opened}, timeout=self._start_s)
            if self._opened.done():
                self._opened.result()
            self._opened.cancel()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

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

    def subscribe(self, listener: QuoteListener) -> None:
        """Have a listener receive quotes."""
        self._listeners.append(listener)

    def publish(self, quotes: Sequence[Quote]) -> None:
        """Write quotes once those before them are written, the last of each symbol only."""
        now_s = asyncio.get_running_loop().time()
        if self._is_connected and now_s >= self._published_from_s:
            self._waiting.update((quote.symbol, quote) for quote in quotes)
            self._has_work.set()
        else:
            self._send(quotes)

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
        if self._opened.done():
            return False
        if isinstance(error, ResponseError | AuthenticationError):
            needs = f"its user needs the channel {CHANNEL} and the keys {KEY_PREFIX}*"
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
            await channel.subscribe(CHANNEL)
            if await channel.get_message(timeout=_RESPONSE_S) is None:
                raise TimeoutError("no answer to a subscription")
            await self._read_keys(client)
            self.lost_because = None
            self._is_connected = True
            if not self._opened.done():
                self._opened.set_result(None)
            log.info("%s: connected", self.address)
            async with asyncio.TaskGroup() as tasks:
                self._exchanging = (
                    tasks.create_task(self._listen(channel)),
                    tasks.create_task(self._write(client)),
                )

    async def _read_keys(self, client: Redis) -> None:
        """Send listeners the fresh quotes, of which there may be no message any more."""
        symbols = list(await client.smembers(_SYMBOLS))
        for begin in range(0, len(symbols), _AT_ONCE):
            part = symbols[begin : begin + _AT_ONCE]
            values = await client.mget([_key(symbol) for symbol in part])
            self._send(self._decode(filter(None, values)))

    async def _listen(self, channel: Any) -> None:
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=_PING_S)
            if message is not None:
                self._send(self._decode([message["data"]]))

    async def _write(self, client: Redis) -> None:
        while True:
            try:
                async with asyncio.timeout(_PING_S):
                    await self._has_work.wait()
            except TimeoutError:
                with contextlib.suppress(ResponseError):  # which is an answer
                    await client.ping()  # finds a server that hangs, and a silent network
            self._has_work.clear()
            self._being_written, self._waiting = self._waiting, {}
            quotes = iter(self._being_written.values())
            while part := list(islice(quotes, _AT_ONCE)):
                await self._write_part(client, part)
            self._being_written = {}

    async def _write_part(self, client: Redis, quotes: Sequence[Quote]) -> None:
        now_s = asyncio.get_running_loop().time()
        stores = now_s >= self._stored_from_s
        async with client.pipeline(transaction=False) as commands:
            for quote in quotes:
                commands.publish(CHANNEL, encode_quote(quote))
            if stores:
                for quote in quotes:
                    commands.set(KEY_PREFIX + quote.symbol, encode_quote(quote), px=_TTL_MS)
                commands.sadd(_SYMBOLS, *(quote.symbol for quote in quotes))
                commands.pexpire(_SYMBOLS, _TTL_MS)
            results = await commands.execute(raise_on_error=False)
        published, stored = results[: len(quotes)], results[len(quotes) :]
        results_of = zip(quotes, published, strict=True)
        refused = [quote for quote, result in results_of if _failed(result)]
        self._send(refused)
        if refused:
            self._published_from_s = now_s + _REFUSED_S
        error = next(filter(_failed, results), None)
        if any(map(_failed, stored)):
            self._stored_from_s = now_s + _REFUSED_S
        if error is not None:
            self._note(f"refuses quotes: {error}")
        elif stores:
            self._note(None)

    def _note(self, reason: str | None) -> None:
        """Report why the server refuses quotes, or that it accepts them again, once each."""
        if reason == self.lost_because:
            return
        self.lost_because = reason
        if reason is None:
            log.info("%s: accepts quotes again", self.address)
        else:
            log.warning("%s: %s; trying again every %g s", self.address, reason, _REFUSED_S)

    def _lose(self, reason: str) -> None:
        if reason != self.lost_because:
            log.warning("%s: %s; reconnecting", self.address, reason)
        self.lost_because = reason
        self._is_connected = False
        unwritten = {**self._being_written, **self._waiting}
        self._being_written, self._waiting = {}, {}
        self._send(list(unwritten.values()))

    def _decode(self, texts: Iterable[Any]) -> list[Quote]:
        quotes = {}
        for text in texts:
            try:
                quote = decode_quote(text)
            except QuoteError as error:
                self.malformed += 1
                log.debug("%s: %s", self.address, error)
            else:
                quotes[quote.symbol] = quote
        return list(quotes.values())

    def _send(self, quotes: Sequence[Quote]) -> None:
        if quotes:
            for listener in self._listeners:
                listener(quotes)
