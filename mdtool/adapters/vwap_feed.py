"""A client of the VWAP feed: its lines over TCP, with a new connection whenever one is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from typing import Final, NoReturn, Protocol, TypeAlias

from mdtool.adapters.identity.config import services_secret
from mdtool.adapters.tcp_streams import open_stream
from mdtool.core.addresses import parse_address
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError
from mdtool.core.offers import Offer
from mdtool.core.tcp import notice_loss, reason_of
from mdtool.wire.vwap_lines import (
    LineError,
    VwapState,
    decode_state,
    encode_auth,
    encode_subscribe,
    is_of,
)

FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 10.0
MAX_LINE_BYTES: Final = 1 << 20
_CONNECT_S: Final = 10.0
_READ_BYTES: Final = 1 << 18


class Listener(Protocol):
    """What a client calls as its connection comes, delivers and goes."""

    def connected(self) -> None:
        """Take note that a connection is open; the state of every symbol follows."""
        ...

    def received(self, lines: list[bytes]) -> None:
        """Whole lines have arrived, without their ends; `decode_states` reads them."""
        ...

    def lost(self, reason: str, delay_s: float, attempts: int) -> None:
        """Take note that there is no connection; the next attempt follows after a delay.

        `attempts` counts the attempts that failed since the last line arrived.
        """
        ...


class StateListener(Listener, Protocol):
    """What a client within the process calls: it gets states instead of lines."""

    def update(self, states: Collection[VwapState]) -> None:
        """Take states, each the latest of its symbol."""
        ...


class VwapFeedClient:
    """Reads the lines of one feed.

    Parameters
    ----------
    address : str
        The `HOST:PORT` of the feed, which need not be up yet.
    symbols : frozenset of str, optional
        The symbols to subscribe to, None for all. A feed sends the states of all symbols before it
        reads the subscription: states of other symbols are dropped.
    token : str, optional
        By which the client authenticates; by default, that of services.
    """

    def __init__(
        self, address: str, symbols: frozenset[str] | None = None, token: str | None = None
    ) -> None:
        self._token = services_secret() if token is None else token
        self.address = address
        self._where = parse_address(address)
        self._symbols = symbols

    async def follow(self, listener: Listener) -> NoReturn:
        """Notify a listener of lines and connections until cancelled."""
        await follow_lines(self.lines, listener)

    async def lines(
        self, connected: Callable[[], None] | None = None
    ) -> AsyncIterator[list[bytes]]:
        """Yield the lines of one connection, as they arrive.

        Parameters
        ----------
        connected : callable, optional
            Called once the connection is open.

        Raises
        ------
        PeerError
            When the feed cannot be reached, closes the connection, or sends no lines.
        """
        reader, writer = await self._open()
        try:
            if connected is not None:
                connected()
            rest = b""
            while data := await _read(reader):
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    raise PeerError("the peer does not send lines: it is not a VWAP feed")
                if lines:
                    yield self._selected(lines)
            raise PeerError("the feed closed the connection")
        finally:
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await open_stream("vwap", *self._where)
        except TimeoutError as error:
            raise PeerError(f"no connection within {_CONNECT_S:g} s") from error
        except OSError as error:
            raise PeerError(reason_of(error)) from error
        except UnicodeError as error:
            raise PeerError("the host's name is not valid") from error
        notice_loss(writer.get_extra_info("socket"))
        if self._token:
            writer.write(encode_auth(self._token))
        if self._symbols is not None:
            writer.write(encode_subscribe(self._symbols))
        return reader, writer

    def _selected(self, lines: list[bytes]) -> list[bytes]:
        symbols = self._symbols
        return lines if symbols is None else [line for line in lines if is_of(line, symbols)]


async def follow_lines(
    connect: Callable[[Callable[[], None]], AsyncIterator[list[bytes]]], listener: Listener
) -> NoReturn:
    """Notify a listener of lines and connections until cancelled, again whenever one is lost.

    Parameters
    ----------
    connect : callable
        Yields the lines of one connection, as `VwapFeedClient.lines`.
    listener : Listener
    """
    attempts = 0
    waits = delays(FIRST_DELAY_S, LONGEST_DELAY_S)
    while True:
        try:
            async for lines in connect(listener.connected):
                attempts, waits = 0, delays(FIRST_DELAY_S, LONGEST_DELAY_S)
                listener.received(lines)
        except PeerError as error:
            attempts += 1
            delay_s = next(waits)
            listener.lost(str(error), delay_s, attempts)
            await asyncio.sleep(delay_s)


class ServedVwaps(Protocol):
    """What a VWAP service offers within its process."""

    def follow(
        self, update: Callable[[Collection[VwapState]], None]
    ) -> contextlib.AbstractContextManager[None]:
        """Pass on the state of every symbol, and within the block those that change."""
        ...


LocalVwaps: TypeAlias = Offer[ServedVwaps]
"""Where services of a process meet the feed of its VWAP service."""


class LocalVwapFeedClient:
    """Follows the VWAP service of this process: states, which are never encoded.

    Parameters
    ----------
    feed : LocalVwaps
    """

    def __init__(self, feed: LocalVwaps) -> None:
        self.address = feed.address
        self._feed = feed

    async def follow(self, listener: StateListener) -> NoReturn:
        """Notify a listener of states until cancelled."""
        while True:
            served = await self._feed.taken()
            listener.connected()
            with served.follow(listener.update):
                await self._feed.ended()
            listener.lost("the feed has ended", 0.0, 1)


def decode_states(lines: Iterable[bytes]) -> tuple[list[VwapState], list[LineError]]:
    """Return the states that lines contain, and an error for each line that contains none."""
    states, errors = [], []
    for line in lines:
        try:
            states.append(decode_state(line))
        except LineError as error:
            errors.append(error)
    return states, errors


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_READ_BYTES)
    except OSError as error:
        raise PeerError(reason_of(error)) from error
