"""The aggregation service on a free port, in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

import grpc.aio

from mdtool.adapters import rpc
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.services.aggregator.subscribers import Subscribers
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import encode_batch
from tests.reference.market import Frame, Tick, batch
from tests.support.services import running

NOON_NS = 1_735_214_400 * 10**9


class WatchedSubscribers(Subscribers):
    """Says when a reader has left, and when the last one has."""

    def __init__(self) -> None:
        super().__init__()
        self.left = asyncio.Event()
        self.deserted = asyncio.Event()

    @contextlib.contextmanager
    def join(self, symbol: str = ""):
        try:
            with super().join(symbol) as wakeups:
                yield wakeups
        finally:
            self.left.set()
            if not len(self):
                self.deserted.set()


class RunningAggregator:
    """A service, its address, and a client of it."""

    def __init__(
        self,
        service: Aggregator,
        addresses: Mapping[str, str],
        channel: grpc.aio.Channel,
        task: asyncio.Task[None],
    ) -> None:
        self.service = service
        self.task = task
        self.market, self.subscribers = service.market, service.subscribers
        self.address = addresses["grpc"]
        self.metrics_address = addresses.get("metrics")
        self.channel = channel
        self.stub = rpc.Stub(channel)

    async def send(self, *batches: marketdata_pb2.TickBatch) -> list[int]:
        """Send batches in one call of their own; return the positions acknowledged."""
        call = self.stub.StreamTickBatches()
        for message in batches:
            await call.write(message)
        await call.done_writing()
        return [ack.next_sequence async for ack in call]


@contextlib.asynccontextmanager
async def aggregator(**settings):
    """A service that runs until the block ends."""
    service = Aggregator(AggregatorConfig(**{"port": 0} | settings))
    service.subscribers = WatchedSubscribers()
    async with (
        running(service) as (addresses, task),
        grpc.aio.insecure_channel(addresses["grpc"], rpc.OPTIONS) as channel,
    ):
        yield RunningAggregator(service, addresses, channel, task)


def tick(cents: int, volume: int = 1, symbol: int = 0, at_s: int = 0) -> Tick:
    """A tick so many seconds after noon, its price in cents."""
    at_ns = NOON_NS + at_s * 10**9
    return Tick(symbol, cents * 10**7, volume, at_ns, at_ns + 5)


def message(
    first_sequence: int, frames: Sequence[Frame], symbols: Sequence[str] = (), stream: str = "s"
):
    """A batch as it travels; `symbols` are new to the call."""
    run = TradeRun(SymbolTable(symbols), stream, first_sequence, batch(frames))
    return encode_batch(run, symbols)
