"""A market of a million symbols: what its readers get does not fit one message of gRPC."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from mdtool.adapters import rpc
from mdtool.wire._pb import marketdata_pb2
from tests.support.aggregators import aggregator
from tests.support.gateways import gateway_of

SYMBOLS = 1_000_000
AT_ONCE = 50_000
NOON_NS = 1_735_214_400 * 10**9
DEFAULT_BYTES = 4 << 20
"""What a client of gRPC accepts unless it is told otherwise."""


def name(number: int) -> str:
    """A symbol as long as they may be."""
    return f"{number:070}"


def batch(first: int) -> marketdata_pb2.TickBatch:
    """One trade each of `AT_ONCE` symbols that are new."""
    columns = {"price": 10**9, "volume": 1, "exchange_timestamp": NOON_NS}
    return marketdata_pb2.TickBatch(
        stream_id="stream",
        first_sequence=first,
        frames=AT_ONCE,
        new_symbols=[name(number) for number in range(first, first + AT_ONCE)],
        symbol=np.arange(first, first + AT_ONCE, dtype="<u4").tobytes(),
        ingest_timestamp=np.full(AT_ONCE, NOON_NS, "<i8").tobytes(),
        **{key: np.full(AT_ONCE, value, "<i8").tobytes() for key, value in columns.items()},
    )


async def count(call, column: str) -> tuple[int, int]:
    """Return how many rows a call has sent once it has sent all symbols, in how many messages."""
    rows = messages = 0
    async for message in call:
        messages += 1
        assert message.ByteSize() < DEFAULT_BYTES
        rows += len(getattr(message, column)) // 4
        if rows >= SYMBOLS:
            call.cancel()
            return rows, messages
    raise AssertionError(f"the call ended after {rows} rows")


@pytest.mark.timeout(600)
async def test_gateways_and_plain_clients_get_every_symbol():
    async with aggregator(max_symbols=SYMBOLS) as service:
        call = service.stub.StreamTickBatches()
        for first in range(0, SYMBOLS, AT_ONCE):
            await call.write(batch(first))
            await call.read()
        async with grpc.aio.insecure_channel(service.address) as channel:
            plain = rpc.Stub(channel)
            updates = plain.StreamUpdates(marketdata_pb2.UpdatesRequest())
            assert await count(updates, "symbol") == (SYMBOLS, -(-SYMBOLS // (1 << 14)))
            bars = plain.StreamBars(marketdata_pb2.BarUpdatesRequest(interval="1m"))
            rows, _ = await count(bars, "symbol")
            assert rows == SYMBOLS
        for _ in range(2):  # and again after it was restarted
            async with gateway_of(service.address) as client:
                while (report := (await client.answer("/health"))[1])["status"] != "ok":
                    pass
                assert report["symbols"]["known"] == SYMBOLS
                for number in (0, SYMBOLS // 2, SYMBOLS - 1):
                    status, answer = await client.answer(f"/api/v1/marketdata/{name(number)}")
                    assert (status, answer["volume"]) == (200, "1")
