"""A client of the aggregation service, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, NoReturn, Self, TypeVar

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mdtool.adapters import rpc
from mdtool.adapters.local_rpc import LocalStub
from mdtool.adapters.market import (
    BarReceiver,
    Connected,
    Receiver,
    RefusedError,
    TradeStream,
    UnansweredError,
    UnavailableError,
    UnknownSymbolError,
)
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import (
    BarColumns,
    Updates,
    decode_bar_updates,
    decode_bars,
    decode_batch,
    decode_updates,
)

Decoded = TypeVar("Decoded")


_ERRORS: Final[dict[grpc.StatusCode, type[PeerError]]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnansweredError,
    grpc.StatusCode.NOT_FOUND: UnknownSymbolError,
    grpc.StatusCode.INVALID_ARGUMENT: RefusedError,
}


class AggregatorClient:
    """A `MarketReader` and a `TradeFeed` of one aggregation service.

    An async context manager, which owns the connection. What it has not read yet waits in the
    service, which conflates states, and joins trades.

    Parameters
    ----------
    address : str
        Its `HOST:PORT`. It need not be available yet.
    socket : str, optional
        Its Unix socket, over which updates and trades then come.
    token : str, optional
        By which the client authenticates; by default, that of services.
    """

    def __init__(self, address: str, socket: str = "", token: str | None = None) -> None:
        self.address = address
        self._token = token
        self._socket = socket

    async def __aenter__(self) -> Self:
        self._channel = rpc.open_channel(self.address, bounds_unread=True)
        self._stub = rpc.Stub(self._channel, self._token)
        self._streams: Any = LocalStub(self._socket) if self._socket else self._stub
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.close()

    @property
    def name(self) -> str:
        """The aggregator and its address."""
        return f"aggregator {self.address}"

    @property
    def blocked_reason(self) -> str:
        """That its store is unavailable."""
        return "its store is unavailable, and it accepts no more ticks until it is available again"

    async def follow(self, receive: Receiver) -> None:
        """As `MarketReader.follow`."""
        call = self._streams.StreamUpdates(marketdata_pb2.UpdatesRequest())
        await self._read(call, decode_updates, receive)

    async def follow_commits(self, receive: Callable[[bool], None]) -> None:
        """As `MarketReader.follow_commits`; also lost where the service has no such call."""
        request = health_pb2.HealthCheckRequest(service=rpc.STORE_HEALTH)
        call = health_pb2_grpc.HealthStub(self._channel).Watch(request)
        await self._read(
            call,
            lambda message, _: message.status != health_pb2.HealthCheckResponse.NOT_SERVING,
            lambda _, can_commit: receive(can_commit),
        )

    async def session(self, symbol: str, which: str, timeout_s: float) -> Updates:
        """As `MarketReader.session`."""
        request = marketdata_pb2.AggregateRequest(symbol=symbol, session=which)
        message = await self._call(self._stub.GetSession, request, timeout_s)
        return decode_updates(message, SymbolTable())

    async def bars(
        self, symbol: str, interval: str, limit: int, before_ns: int, timeout_s: float
    ) -> BarColumns:
        """As `MarketReader.bars`."""
        request = marketdata_pb2.BarsRequest(
            symbol=symbol, interval=interval, limit=limit, before=before_ns
        )
        return decode_bars(await self._call(self._stub.GetBars, request, timeout_s))

    async def bars_since(
        self, symbol: str, interval: str, limit: int, since_ns: int, timeout_s: float
    ) -> BarColumns:
        """As `MarketReader.bars_since`."""
        request = marketdata_pb2.BarsRequest(
            symbol=symbol, interval=interval, limit=limit, since=since_ns
        )
        return decode_bars(await self._call(self._stub.GetBars, request, timeout_s))

    async def follow_bars(self, symbol: str, interval: str, receive: BarReceiver) -> None:
        """As `MarketReader.follow_bars`."""
        request = marketdata_pb2.BarUpdatesRequest(symbol=symbol, interval=interval)
        await self._read(self._stub.StreamBars(request), decode_bar_updates, receive)

    async def follow_trades(
        self, connected: Connected, receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """As `TradeFeed.follow_trades`; also lost by a slow client."""
        call = self._streams.StreamTrades()
        intervals_ms: asyncio.Queue[int] = asyncio.Queue()
        intervals_ms.put_nowait(0)
        stream = TradeStream(intervals_ms.put_nowait, receive)
        requesting = asyncio.create_task(_request_trades(call, intervals_ms))

        def receive_trades(_symbols: SymbolTable, run: TradeRun) -> None:
            stream.received(run)

        try:
            with rpc.cancellable():
                await call.initial_metadata()
            if not call.done():
                connected(stream)
            await self._read(call, decode_batch, receive_trades)
        except grpc.aio.AioRpcError as error:
            raise self._wrapped(error) from error
        finally:
            requesting.cancel()
            call.cancel()
            stream.lost()
            await asyncio.gather(requesting, return_exceptions=True)

    async def _read(
        self,
        call: Any,
        decode: Callable[[Any, SymbolTable], Decoded],
        receive: Callable[[SymbolTable, Decoded], None],
    ) -> NoReturn:
        """Pass on the messages of a stream, until it is lost."""
        symbols = SymbolTable()
        try:
            with rpc.cancellable():
                async for message in call:
                    receive(symbols, decode(message, symbols))
        except grpc.aio.AioRpcError as error:
            raise self._wrapped(error) from error
        finally:
            call.cancel()
        raise UnavailableError(f"aggregator {self.address} ended the stream")

    async def _call(self, call: Any, request: Any, timeout_s: float) -> Any:
        try:
            with rpc.cancellable():
                return await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._wrapped(error) from error

    def _wrapped(self, error: grpc.aio.AioRpcError) -> PeerError:
        kind = _ERRORS.get(error.code(), PeerError)
        details = rpc.reason(error)
        if kind in {UnknownSymbolError, RefusedError}:
            return kind(details)
        if kind is UnansweredError:
            return kind(f"aggregator {self.address} did not answer in time")
        if kind is UnavailableError:
            reason = details.rpartition(": ")[2].rstrip("]")  # the last of nested ones
            return kind(f"aggregator {self.address} is unavailable: {reason}")
        return kind(f"aggregator {self.address} failed: {details}")


async def _request_trades(call: Any, intervals_ms: asyncio.Queue[int]) -> None:
    """Send how far apart trades are to come, whenever that is new."""
    # The reader of the call gets its error.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            interval_ms = await intervals_ms.get()
            await call.write(marketdata_pb2.TradesRequest(interval_ms=interval_ms))
