"""Quotes shared by many gateways through a Redis server.

Each quote is published on the channel `quotes`, and is the value of the key `quote:SYMBOL` for
`TTL_S`, both as JSON: any client of Redis can read them, or write its own. The key `quote:` is the
set of these symbols: a search among all keys would keep a server that others share busy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from mdtool.adapters.quotes.port import TTL_S, QuoteListener
from mdtool.adapters.redis import RedisChannel, RedisServer
from mdtool.wire.quotes import Quote, QuoteError, decode_quote, encode_quote

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

CHANNEL: Final = "quotes"
KEY_PREFIX: Final = "quote:"
_SYMBOLS: Final = KEY_PREFIX
"""The key of the set of symbols; no symbol is empty."""
START_S: Final = 5.0
"""How long a start waits for the server; after that it is waited for as when it is lost later."""
_TTL_MS: Final = int(TTL_S * 1_000)
_REFUSED_S: Final = 5.0
"""How long nothing is written again that the server refused."""
_AT_ONCE: Final = 500
"""Quotes that are written, or keys that are read, at once."""


def _key(symbol: str | bytes) -> str:
    return KEY_PREFIX + (symbol if isinstance(symbol, str) else symbol.decode("ascii", "replace"))


def _failed(result: object) -> bool:
    return isinstance(result, Exception)


class RedisQuoteHub:
    """Publishes quotes on a server, and sends listeners all that come from it, its own too.

    While the server is unavailable, or refuses them, quotes reach local listeners directly. After a
    reconnect, fresh quotes are read from the server, and sources publish theirs again.

    Parameters
    ----------
    url : str
        See `RedisServer`.
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
        self._start_s = start_s
        needs = f"the channel {CHANNEL} and the keys {KEY_PREFIX}*"
        self._channel = RedisChannel(RedisServer("quotes_hub", url), CHANNEL, self, needs)
        self.address = self._channel.address
        self._listeners: list[QuoteListener] = []
        self._waiting: dict[str, Quote] = {}
        self._being_written: dict[str, Quote] = {}
        self._published_from_s = self._stored_from_s = float("-inf")
        """When what the server refused is tried again, by the clock of the loop."""

    @property
    def lost_because(self) -> str | None:
        """Why the server is unavailable or refuses quotes, None where it takes them."""
        return self._channel.lost_because

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        try:
            await self._channel.opened(self._start_s)
        except BaseException:
            await self._channel.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._channel.__aexit__(kind, error, traceback)

    def subscribe(self, listener: QuoteListener) -> None:
        """Have a listener receive quotes."""
        self._listeners.append(listener)

    def publish(self, quotes: Sequence[Quote]) -> None:
        """Write quotes once those before them are written, the last of each symbol only."""
        now_s = asyncio.get_running_loop().time()
        if self._channel.is_connected and now_s >= self._published_from_s:
            self._waiting.update((quote.symbol, quote) for quote in quotes)
            self._channel.wake()
        else:
            self._send(quotes)

    async def connected(self, client: Redis) -> None:
        """Send listeners the fresh quotes, of which there may be no message any more."""
        symbols = list(await client.smembers(_SYMBOLS))
        for begin in range(0, len(symbols), _AT_ONCE):
            part = symbols[begin : begin + _AT_ONCE]
            values = await client.mget([_key(symbol) for symbol in part])
            self._send(self._decode(filter(None, values)))

    def receive(self, data: bytes) -> None:
        """Send listeners a quote of the channel."""
        self._send(self._decode([data]))

    async def write(self, client: Redis) -> None:
        """Write the quotes that wait."""
        self._being_written, self._waiting = self._waiting, {}
        quotes = iter(self._being_written.values())
        while part := list(islice(quotes, _AT_ONCE)):
            await self._write_part(client, part)
        self._being_written = {}

    def lost(self) -> None:
        """Send listeners the quotes that were not written."""
        unwritten = {**self._being_written, **self._waiting}
        self._being_written, self._waiting = {}, {}
        self._send(list(unwritten.values()))

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
        self._channel.lost_because = reason
        if reason is None:
            log.info("%s: accepts quotes again", self.address)
        else:
            log.warning("%s: %s; trying again every %g s", self.address, reason, _REFUSED_S)

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
