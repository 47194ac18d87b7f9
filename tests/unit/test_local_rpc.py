"""Calls over a Unix socket: messages both ways, ends, errors, losses, and a slow reader."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest

from mdtool.adapters.local_rpc import LocalServer, LocalStub
from mdtool.core.errors import StartupError
from mdtool.wire._pb import marketdata_pb2

LARGE = b"\x01" * 3_000_000


class Servicer:
    """Acknowledges batches, and answers readers as it is told."""

    def __init__(self):
        self.wrote = 0
        self.cancelled = asyncio.Event()
        self.answers = [b"a", b"b"]

    async def StreamTickBatches(self, requests, context):  # noqa: N802
        async for batch in requests:
            if batch.stream_id == "bad":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a bad stream")
            ack = marketdata_pb2.BatchAck(
                stream_id=batch.stream_id, next_sequence=batch.first_sequence + len(batch.symbol)
            )
            await context.write(ack)

    async def StreamTrades(self, _requests, context):  # noqa: N802
        await context.send_initial_metadata(())
        for symbol in self.answers:
            await context.write(marketdata_pb2.TickBatch(symbol=symbol))

    async def StreamUpdates(self, _request, context):  # noqa: N802
        try:
            while True:
                await context.write(marketdata_pb2.UpdateBatch(symbol=bytes(1_000)))
                self.wrote += 1
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@pytest.fixture
def path(tmp_path_factory):
    return str(tmp_path_factory.mktemp("s") / "socket")


@pytest.fixture
async def servicer(path):
    servicer = Servicer()
    async with LocalServer(path, servicer):
        yield servicer


def batch(stream_id="s", first=0, symbol=b"x"):
    return marketdata_pb2.TickBatch(stream_id=stream_id, first_sequence=first, symbol=symbol)


@pytest.mark.usefixtures("servicer")
async def test_messages_of_any_size_arrive_in_order(path):
    call = LocalStub(path).StreamTickBatches()
    sizes = [1, 0, len(LARGE), 2, len(LARGE)]

    async def write():
        for size in sizes:
            await call.write(batch(symbol=LARGE[:size]))

    writing = asyncio.create_task(write())
    acks = aiter(call)
    assert [(await anext(acks)).next_sequence for _ in sizes] == sizes
    await writing
    call.cancel()


async def test_a_call_begins_and_ends(path, servicer):
    servicer.answers = [b"a", LARGE, b"b"]
    call = LocalStub(path).StreamTrades()
    await call.initial_metadata()
    assert not call.done()
    assert [message.symbol async for message in call] == servicer.answers
    assert call.done()


@pytest.mark.usefixtures("servicer")
async def test_an_error_of_the_servicer_is_that_of_grpc(path):
    call = LocalStub(path).StreamTickBatches()
    await call.write(batch("bad"))
    with pytest.raises(grpc.aio.AioRpcError, match="a bad stream") as failed:
        await anext(aiter(call))
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_does_not_listen_is_unavailable(path):
    call = LocalStub(path).StreamTickBatches()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call.write(batch())
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    call.cancel()


async def test_a_server_that_stops_ends_its_calls(path):
    async with LocalServer(path, Servicer()):
        call = LocalStub(path).StreamTickBatches()
        await call.write(batch())
        acks = aiter(call)
        await anext(acks)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await anext(acks)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_leaves_ends_its_call(path, servicer):
    call = LocalStub(path).StreamUpdates(marketdata_pb2.UpdatesRequest())
    await anext(aiter(call))
    call.cancel()
    await servicer.cancelled.wait()


async def test_a_reader_that_stops_reading_blocks_the_writer(path, servicer):
    call = LocalStub(path).StreamUpdates(marketdata_pb2.UpdatesRequest())
    messages = aiter(call)
    await anext(messages)
    wrote = -1
    while wrote < servicer.wrote:  # until it writes no more
        wrote = servicer.wrote
        await asyncio.sleep(0.05)
    assert wrote < 1_000
    for _ in range(wrote):
        await anext(messages)
    call.cancel()


async def test_a_socket_that_a_killed_server_left_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    async with LocalServer(path, Servicer()):
        call = LocalStub(path).StreamTickBatches()
        await call.write(batch())
        await anext(aiter(call))
        call.cancel()


async def test_a_path_that_cannot_be_listened_on_says_so(path):
    with pytest.raises(StartupError, match=r"cannot listen on .*: No such file"):
        async with LocalServer(f"{path}/nowhere/socket", Servicer()):
            pass
