"""The trades of a store: read by threads that are interrupted when the store is slow."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import numpy as np

from mdtool.adapters.market import UnansweredError, UnavailableError, UnknownSymbolError
from mdtool.adapters.stores import is_remote, open_history
from mdtool.adapters.stores.errors import (
    StoreError,
    StoreInterruptedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.port import (
    MAX_NS,
    MIN_NS,
    SymbolTotals,
    TradeHistory,
    TradeKey,
    TradePage,
)
from mdtool.core.errors import PeerError
from mdtool.services.client import Client
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.upstream import Upstream, peer_state

log = logging.getLogger(__name__)

T = TypeVar("T")

THREADS: Final = 4
MAX_WAITING: Final = 1_024
"""Requests that no thread has begun yet."""
CHECK_S: Final = 1.0
"""How often the store is checked."""
_INTERRUPT_EVERY_S: Final = 0.02
"""An interrupt between two statements of one request ends nothing, and is repeated."""
_CLOSE_S: Final = 1.0
"""How long threads may take to end; one that hangs in the kernel ends with the process."""


class Range(NamedTuple):
    """Which of a symbol's trades are requested.

    `behind` is the trade after which a page begins, None for the first of its order; times are
    inclusive and exclusive.
    """

    limit: int
    behind: TradeKey | None = None
    from_ns: int = MIN_NS
    to_ns: int = MAX_NS
    is_ascending: bool = False


class StoredTrades(NamedTuple):
    """Trades in the order requested, the id of the stream of each, and whether more follow."""

    page: TradePage
    streams: Sequence[str]
    has_more: bool


class History:
    """What a store holds, which is written meanwhile. An async context manager.

    The store need not be available yet.

    Parameters
    ----------
    config : GatewayConfig
        Names the store.

    Attributes
    ----------
    upstream : Upstream
        How it gets requests.
    lost_because : str or None
        Why the store does not respond.

    Raises
    ------
    ConfigError
        When there is no such kind of store, or its package is not installed.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._readers = Readers(config.store)
        self._timeout_s = config.timeout_ms / 1_000
        of = Upstream.remote if is_remote(config.store) else Upstream.local
        self.upstream = of(f"store {self._readers.address}", config)
        self.lost_because: str | None = "not checked yet"
        self._stream_ids: dict[int, str] = {}

    async def __aenter__(self) -> Self:
        await self._readers.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._readers.__aexit__(*exc_info)

    async def run(self) -> None:
        """Check the store until cancelled, so that operators learn of an outage before clients."""
        while True:
            try:
                await self._readers.request(lambda history: history.has(""), self._timeout_s)
            except PeerError as error:
                self._note(str(error))
            else:
                self._note(None)
            await asyncio.sleep(CHECK_S)

    def report(self) -> Mapping[str, Any]:
        """Return the state of the store, for `/health`."""
        return peer_state(self._readers.address, self.lost_because)

    async def symbols(self, client: Client) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order.

        Raises
        ------
        LimitError
            When the client requested too much.
        PeerError
            As `Readers.request` does.
        """
        return await self._request(client, lambda history: history.symbols())

    async def trades(self, client: Client | None, symbol: str, part: Range) -> StoredTrades:
        """Return trades of a symbol.

        Parameters
        ----------
        client : Client or None
            The client that is charged for the request, None where one was charged before.
        symbol : str
        part : Range

        Pages of which each is behind the last trade of the one before have every trade once that
        was stored when the first was requested, whatever is written meanwhile.

        Raises
        ------
        UnknownSymbolError
            When it has no trades at all.
        LimitError, PeerError
            As `symbols` does.
        """

        def read(history: TradeHistory) -> StoredTrades | None:
            page = _page(history, symbol, part)
            if not len(page) and not history.has(symbol):
                return None
            numbers = page.stream[: part.limit].tolist()
            if not self._stream_ids.keys() >= set(numbers):
                known = {stream.number: stream.stream_id for stream in history.streams()}
                self._stream_ids.update(known)
            return StoredTrades(
                page, [self._stream_ids[number] for number in numbers], len(page) > part.limit
            )

        stored = await self._request(client, read)
        if stored is None:
            raise UnknownSymbolError(f"no trade of {symbol} is stored")
        return stored

    async def _request(self, client: Client | None, call: Callable[[TradeHistory], T]) -> T:
        if client is not None:
            client.spend_upstream()
        return await self.upstream.request(lambda timeout_s: self._readers.request(call, timeout_s))

    def _note(self, lost_because: str | None) -> None:
        before, self.lost_because = self.lost_because, lost_because
        if lost_because is None and before is not None:
            log.info("store %s: connected", self._readers.address)
        elif lost_because is not None and before is None:
            log.warning("store %s; reconnecting, and serving no history", lost_because)
        elif lost_because != before:
            log.info("store %s; waiting for it", lost_because)


def _page(history: TradeHistory, symbol: str, part: Range) -> TradePage:
    """Return one trade more than requested where there are more."""
    limit = part.limit + 1
    if part.is_ascending:
        first = TradeKey(part.from_ns, 0, 0)  # streams have numbers from 1
        behind = first if part.behind is None else max(part.behind, first)
        return history.page_after(symbol, limit, behind, part.to_ns)
    # No trade of that very nanosecond is below.
    before = TradeKey(part.to_ns, 0, 0) if part.to_ns != MAX_NS else None
    if part.behind is not None:
        before = part.behind if before is None else min(before, part.behind)
    page = history.page(symbol, limit, before)
    times = page.trades.ts_event
    if not len(page) or times[-1] >= part.from_ns:
        return page
    return page.head(int(np.count_nonzero(times >= part.from_ns)))


class Readers:
    """Makes requests of a store that only read. An async context manager that owns the threads.

    Parameters
    ----------
    url : str
        The store's. It need not be available yet.
    threads : int
        How many requests are served at once.

    Raises
    ------
    ConfigError
        When there is no such kind of store, or what it needs is not installed.
    """

    def __init__(self, url: str, threads: int = THREADS) -> None:
        self._histories = [open_history(url) for _ in range(threads)]
        self._waiting: queue.Queue[_Request[Any] | None] = queue.Queue(MAX_WAITING)
        self._abandoned: queue.SimpleQueue[_Request[Any] | None] = queue.SimpleQueue()
        self._pending: set[_Request[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    @property
    def address(self) -> str:
        """What the store is, for people, without secrets."""
        return self._histories[0].address

    async def __aenter__(self) -> Self:
        self._threads = [_thread(self._interrupt)]
        self._threads += [_thread(self._read, history) for history in self._histories]
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_closed = True
        for request in self._pending:  # handlers may have been cancelled, and not know it yet
            self._abandon(request)
        self._abandoned.put(None)
        with contextlib.suppress(queue.Full):  # then there are enough to wake every thread
            for _ in self._histories:
                self._waiting.put_nowait(None)
        await asyncio.to_thread(self._join)

    async def request(self, call: Callable[[TradeHistory], T], timeout_s: float) -> T:
        """Return the result of a call that one of the threads makes with its history.

        A call that takes too long, or whose caller is cancelled, is interrupted.

        Raises
        ------
        UnansweredError
            When it takes longer than `timeout_s`, waiting for a thread included.
        UnavailableError
            When the store is unavailable, or too many requests wait.
        PeerError
            When the store is damaged.
        """
        request = _Request(call, asyncio.get_running_loop())
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            raise UnavailableError(
                f"{self.address}: {MAX_WAITING:,} requests are waiting; retry later"
            ) from None
        self._pending.add(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await request.result
        except (TimeoutError, StoreInterruptedError) as error:
            raise UnansweredError(f"{self.address} did not answer in time") from error
        except StoreUnavailableError as error:
            raise UnavailableError(str(error)) from error
        except StoreError as error:
            raise PeerError(str(error)) from error
        finally:
            self._pending.discard(request)
            if request.result.cancelled():
                self._abandon(request)

    def _abandon(self, request: _Request[Any]) -> None:
        request.is_abandoned = True
        self._abandoned.put(request)

    def _read(self, history: TradeHistory) -> None:
        """Serve requests, in a thread of its own."""
        with history:
            while (request := self._waiting.get()) is not None and not self._is_closed:
                request.make(history)

    def _interrupt(self) -> None:
        """Interrupt abandoned requests, in a thread of its own, until the last one has ended."""
        reading: list[_Request[Any]] = []
        is_closing = False
        while reading or not is_closing:
            try:
                request = self._abandoned.get(timeout=_INTERRUPT_EVERY_S if reading else None)
            except queue.Empty:
                pass
            else:
                if request is None:
                    is_closing = True
                else:
                    reading.append(request)
            reading = [each for each in reading if each.interrupt()]

    def _join(self) -> None:
        ends_s = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))


def _thread(work: Callable[..., None], *arguments: object) -> threading.Thread:
    # It delays no exit: a file system may block a thread for as long as it likes.
    return threading.Thread(target=work, args=arguments, name="history", daemon=True)


class _Request(Generic[T]):
    """One request, on its way from the event loop to the thread that serves it, and back.

    Attributes
    ----------
    result : Future
        Cancelled with its caller.
    is_abandoned : bool
        Whether it is not to be served, or not any longer.
    """

    def __init__(self, call: Callable[[TradeHistory], T], loop: asyncio.AbstractEventLoop) -> None:
        self.result: asyncio.Future[T] = loop.create_future()
        self.is_abandoned = False
        self._loop = loop
        self._call = call
        self._lock = threading.Lock()
        """Held during an interrupt, so that it never interrupts the next request."""
        self._history: TradeHistory | None = None

    def make(self, history: TradeHistory) -> None:
        """Serve it, in a reader's thread, unless it was abandoned before."""
        with self._lock:
            if self.is_abandoned:
                return
            self._history = history
        try:
            settle = functools.partial(self._resolve, self._call(history))
        except Exception as error:  # noqa: BLE001 - it is raised where the request was made
            settle = functools.partial(self._fail, error)
        with self._lock:
            self._history = None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(settle)

    def interrupt(self) -> bool:
        """Interrupt it, and return whether it is still being served."""
        with self._lock:
            if self._history is None:
                return False
            with contextlib.suppress(StoreError):  # such as a server that cannot be reached
                self._history.interrupt()
            return True

    def _resolve(self, result: T) -> None:
        if not self.result.done():
            self.result.set_result(result)

    def _fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)
