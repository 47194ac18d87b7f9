"""An aggregator that keeps every tick in a ledger, over real gRPC."""

from __future__ import annotations

import contextlib

import grpc
import grpc.aio

from mdtool.adapters import rpc
from mdtool.core.symbols import SymbolTable
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import decode_batch
from tests.reference.ledger import Ledger
from tests.support.services import port_for


class PlainAggregator:
    """Answers what a bus calls; it can be stopped and started again on the same port."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.address = f"127.0.0.1:{port_for(self)}"

    @contextlib.asynccontextmanager
    async def serving(self):
        """Serve until the block ends, which breaks every call off."""
        server = grpc.aio.server(options=(*rpc.OPTIONS, ("grpc.so_reuseport", 0)))
        server.add_generic_rpc_handlers((rpc.handler(self),))
        server.add_insecure_port(self.address)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def StreamTickBatches(self, requests, context):  # noqa: N802
        table = SymbolTable()
        async for message in requests:
            if self.ledger.refusal is not None:
                await context.abort(self.ledger.refusal, "told to")
            run = decode_batch(message, table)
            next_sequence = await self.ledger.commit(
                run.stream_id, run.first_sequence, run.frames, table
            )
            if self.ledger.loses_ack:
                self.ledger.loses_ack = False
                await context.abort(grpc.StatusCode.UNAVAILABLE, "told to")
            yield marketdata_pb2.BatchAck(stream_id=run.stream_id, next_sequence=next_sequence)

    async def GetStreamPosition(self, request, context):  # noqa: N802
        position = self.ledger.position(request.stream_id)
        return marketdata_pb2.StreamPosition(
            known=position is not None, next_sequence=position or 0
        )

    async def ClaimStream(self, request, context):  # noqa: N802
        owner = self.ledger.own(request.stream_id, request.principal)
        return marketdata_pb2.StreamOwner(principal=owner)

    async def unused(self, request, context):
        """Stands for the calls that no bus makes."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no bus calls this")

    GetAggregate = GetBars = GetSession = StreamAggregates = unused
    StreamBars = StreamTicks = StreamTrades = StreamUpdates = unused
