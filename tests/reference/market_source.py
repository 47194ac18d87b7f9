"""What an aggregator owes its readers, symbol by symbol in plain dicts, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, fields

import grpc
import grpc.aio
import numpy as np

from mdtool.adapters import rpc
from mdtool.wire._pb import marketdata_pb2
from tests.support.services import port_for

TIME_NS = 1_735_201_234_567_000_000
COLUMNS = ("open", "high", "low", "close", "volume", "count", "timestamp", "ingest_timestamp")


@dataclass
class Session:
    """Of a symbol; prices at 1e-9, times in ns."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    count: int = 1
    timestamp: int = TIME_NS
    ingest_timestamp: int = TIME_NS


@dataclass
class Bar:
    """Of a symbol; prices at 1e-9, its start in ns."""

    start: int
    open: int = 1_000_000_000
    high: int = 3_000_000_000
    low: int = 500_000_000
    close: int = 2_000_000_000
    volume: int = 7
    count: int = 2


@dataclass
class MarketSource:
    """Tells its readers of every change in the order of `trade` calls, one message each."""

    sessions: dict[str, Session] = field(default_factory=dict)
    bars: dict[tuple[str, str], list[Bar]] = field(default_factory=dict)
    untraded: list[str] = field(default_factory=list)
    """Symbols of the table that no update is about."""
    refused: dict[str, int] = field(default_factory=dict)
    lots: dict[str, int] = field(default_factory=dict)
    """Of symbols, in units of 1e-9, told with their first update."""
    is_silent: bool = False
    """Whether questions stay unanswered."""
    address: str = ""
    asked: list[marketdata_pb2.BarsRequest] = field(default_factory=list)
    _readers: set[asyncio.Queue[str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.address = self.address or f"127.0.0.1:{port_for(self)}"

    @contextlib.asynccontextmanager
    async def serving(self):
        """Serve until the block ends, on the same port each time it is entered."""
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers((rpc.handler(self),))
        server.add_insecure_port(self.address)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    def trade(self, symbol: str, price: float, volume: int, timestamp: int = TIME_NS) -> None:
        """Let a symbol trade, and tell the readers."""
        fixed = round(price * 10**9)
        session = self.sessions.setdefault(symbol, Session(fixed, fixed, fixed, fixed, 0, 0))
        session.high = max(session.high, fixed)
        session.low = min(session.low, fixed)
        session.close = fixed
        session.volume += volume
        session.count += 1
        session.timestamp = timestamp
        for reader in self._readers:
            reader.put_nowait(symbol)

    async def StreamUpdates(self, request, context):  # noqa: N802
        changes: asyncio.Queue[str] = asyncio.Queue()
        self._readers.add(changes)
        table = [*self.untraded, *self.sessions]
        try:
            yield self._message(table, list(self.sessions), table)
            while True:
                symbol = await changes.get()
                new = [] if symbol in table else [symbol]
                table += new
                yield self._message(table, [symbol], new)
        finally:
            self._readers.discard(changes)

    async def GetBars(self, request, context):  # noqa: N802
        self.asked.append(request)
        if self.is_silent:
            await asyncio.Event().wait()
        if request.symbol not in self.sessions:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no trades of {request.symbol}")
        bars = self.bars.get((request.symbol, request.interval))
        if bars is None:
            message = f"no bars of {request.interval} are kept"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        if request.since:
            bars = [bar for bar in bars if bar.start >= request.since]
            bars = sorted(bars, key=lambda bar: bar.start)[: request.limit]
        else:
            bars = [bar for bar in bars if not request.before or bar.start < request.before]
            bars = sorted(bars, key=lambda bar: -bar.start)[: request.limit]
        return marketdata_pb2.Bars(**_columns(bars, [name.name for name in fields(Bar)]))

    def __getattr__(self, name):
        async def unimplemented(request, context):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, name)

        if name[0].isupper():
            return unimplemented
        raise AttributeError(name)

    def _message(self, table, changed, new) -> marketdata_pb2.UpdateBatch:
        total = sum(session.count for session in self.sessions.values())
        return marketdata_pb2.UpdateBatch(
            new_symbols=new,
            symbol=np.array([table.index(symbol) for symbol in changed], "<u4").tobytes(),
            counts=marketdata_pb2.IngestCounts(ticks=total, refused=self.refused),
            new_lots=(
                marketdata_pb2.SymbolLot(symbol=table.index(symbol), step=self.lots[symbol])
                for symbol in new
                if symbol in self.lots
            ),
            **_columns([self.sessions[symbol] for symbol in changed], COLUMNS),
        )


def _columns(rows, names) -> dict[str, bytes]:
    return {name: np.array([getattr(row, name) for row in rows], "<i8").tobytes() for name in names}
