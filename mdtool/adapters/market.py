"""The ports to the market: readers of its state, and feeds of its trades."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias

from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.wire.batches import BarColumns, BarUpdates, Updates

if TYPE_CHECKING:
    from mdtool.adapters.local_market import LocalMarket

Receiver = Callable[[SymbolTable, Updates], None]
"""Takes a message of updates, and the table that its symbol indices point into."""

BarReceiver = Callable[[SymbolTable, BarUpdates], None]
"""Takes a message of bars, and the table that its symbol indices point into."""


class UnavailableError(PeerError):
    """The source of the market's state is unavailable."""


class UnansweredError(PeerError):
    """There was no answer in time."""


class UnknownSymbolError(PeerError):
    """There are no trades of the symbol."""


class RefusedError(PeerError):
    """The request was rejected: a retry would not help."""


class MarketReader(Protocol):
    """Sessions and bars of every symbol, as they are and as they change."""

    @property
    def address(self) -> str:
        """The address of the state, for messages."""
        ...

    @property
    def blocked_reason(self) -> str:
        """Why nothing can be committed when `follow_commits` reports so, for messages."""
        ...

    async def follow(self, receive: Receiver) -> None:
        """Pass on the state of every symbol, then what changes, until the connection is lost.

        A slow receiver is conflated: it gets the latest state of each symbol only.

        Raises
        ------
        PeerError
            When the connection is lost, or brings wrong messages. Always: it does not end by
            itself.
        """
        ...

    async def follow_commits(self, receive: Callable[[bool], None]) -> None:
        """Pass on whether ticks can be committed, now and when that changes, until it is lost.

        Raises
        ------
        PeerError
            When it is lost. Always: it does not end by itself.
        """
        ...

    async def session(self, symbol: str, which: str, timeout_s: float) -> Updates:
        """Return a session of a symbol, as updates of that one symbol.

        Parameters
        ----------
        symbol : str
            Upper-case.
        which : str
            Empty for the current one, `previous`, or the date of one of these, YYYY-MM-DD.
        timeout_s : float
            How long the answer may take.

        Raises
        ------
        UnknownSymbolError, RefusedError, UnansweredError, UnavailableError
            As their names say; UnknownSymbolError also for a session that is not kept.
        """
        ...

    async def bars(
        self, symbol: str, interval: str, limit: int, before_ns: int, timeout_s: float
    ) -> BarColumns:
        """Return at most `limit` bars that start before `before_ns`, newest first.

        Parameters
        ----------
        symbol : str
            Upper-case.
        interval : str
            A duration such as `1m`.
        limit : int
            From 1.
        before_ns : int
            Exclusive; 0 means from the newest.
        timeout_s : float
            How long the answer may take.

        Raises
        ------
        UnknownSymbolError, RefusedError, UnansweredError, UnavailableError
            As their names say; RefusedError for an interval that has no bars.
        """
        ...

    async def bars_since(
        self, symbol: str, interval: str, limit: int, since_ns: int, timeout_s: float
    ) -> BarColumns:
        """Return at most `limit` bars that start at `since_ns`, above 0, or later, oldest first.

        Other parameters and errors are those of `bars`.
        """
        ...

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> None:
        """Pass on the newest bar of a symbol, then the bars that change, until it is lost.

        A slow receiver is conflated: it gets the latest state of each bar only.

        Parameters
        ----------
        symbol : str
            Upper-case; empty means every symbol. A symbol may not have traded yet.
        interval : str
            A duration such as `1m`.
        receive : callable
            Called with the bars.

        Raises
        ------
        RefusedError
            For an interval that has no bars.
        PeerError
            When it is lost. Always: it does not end by itself.
        """
        ...


class TradeStream:
    """A stream of trades that is connected: its reader chooses how far apart they come.

    Parameters
    ----------
    request : callable
        Requests runs so many ms apart. The source passes on what is committed by then, and behind
        it a run without frames and stream.
    receive : callable
        Takes the other runs.
    """

    def __init__(self, request: Callable[[int], None], receive: Callable[[TradeRun], None]) -> None:
        self._request = request
        self._receive = receive
        self._interval_ms = 0
        self._requested: deque[asyncio.Future[None]] = deque()

    @property
    def is_collecting(self) -> bool:
        """Whether trades that are committed may wait at their source."""
        return self._interval_ms > 0 or len(self._requested) > 0

    def collect(self, interval_ms: int) -> None:
        """Have runs passed on so far apart at least, by default each as it is committed."""
        if interval_ms != self._interval_ms:
            self._interval_ms = interval_ms
            self._send()

    async def catch_up(self) -> None:
        """Wait until everything committed by now is passed on, or the stream is lost."""
        await self._send()

    def received(self, run: TradeRun) -> None:
        """Take the next run of the source; one of a stream without frames brought symbols alone."""
        if run.frames.count:
            self._receive(run)
        elif not run.stream_id:
            _settle(self._requested.popleft())

    def lost(self) -> None:
        """Let nobody wait any more."""
        while self._requested:
            _settle(self._requested.popleft())

    def _send(self) -> asyncio.Future[None]:
        answered = asyncio.get_running_loop().create_future()
        self._requested.append(answered)
        self._request(self._interval_ms)
        return answered


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


Connected: TypeAlias = Callable[[TradeStream], None]
"""Called once, when everything that is committed later will be passed on."""


class TradeFeed(Protocol):
    """Every trade that is committed, in the order in which that happened."""

    @property
    def name(self) -> str:
        """The name of the feed in messages."""
        ...

    async def follow_trades(
        self, connected: Connected, receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """Pass on trades that are committed from now on, until the feed is lost.

        It may be called again then.

        Parameters
        ----------
        connected : callable
            Gets the stream, which ends with the call.
        receive : callable
            Called with each run.

        Raises
        ------
        PeerError
            When the feed is lost, or unavailable; trades that are committed until the next call are
            not passed on.
        """
        ...


def open_trade_feed(
    aggregator: str, bus: str, local: LocalMarket | None = None, socket: str = ""
) -> contextlib.AbstractAsyncContextManager[TradeFeed]:
    """Return the feed of an aggregator's trades, or of a bus's where there is one.

    Parameters
    ----------
    aggregator : str
        `HOST:PORT`; it need not be available yet.
    bus : str
        `kafka://HOST:PORT`, or empty; entering the feed waits for its servers.
    local : LocalMarket, optional
        The market of an aggregator in this process, which is then followed instead.
    socket : str, optional
        The Unix socket of the aggregator.

    Raises
    ------
    ConfigError
        When the URL is not valid, or what it needs is not installed.
    """
    if local is not None:
        from mdtool.adapters.local_market import LocalAggregatorClient

        return LocalAggregatorClient(local)
    if bus:
        from mdtool.adapters.kafka.address import KafkaAddress
        from mdtool.adapters.kafka.trade_feed import trade_feed

        return trade_feed(KafkaAddress.parse(bus))
    from mdtool.adapters.aggregator import AggregatorClient

    return AggregatorClient(aggregator, socket)
