"""Ticks a second over TCP, through gRPC, into bars, with both services as processes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import AsyncIterator
from typing import Final

import grpc.aio
import numpy as np

from mdtool.adapters import rpc
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.units import NS_PER_MS, PRICE_SCALE
from mdtool.services.bench.figures import Figure
from mdtool.services.bench.processes import server, service
from mdtool.wire._pb import tick_pb2
from mdtool.wire.control import Ack, ReplyDecoder
from mdtool.wire.tick_encoder import encode_frames

TICKS: Final = 4_000_000
MESSAGES: Final = 10_000
ROUNDS: Final = 5

_SYMBOLS: Final = ("AAPL", "MSFT", "GOOG", "AMZN", "TSLA")
_DISCARDING: Final = "a server that discards the same frames"
_ONE_BY_ONE: Final = "one tick a gRPC message"


async def measure(
    ticks: int = TICKS, messages: int = MESSAGES, rounds: int = ROUNDS
) -> list[Figure]:
    """Return the median rates of rounds of each way in turns, and of their ratios.

    A round ends with the acknowledgement that all its ticks are in the aggregator's bars. Frames
    come over one connection; the ticks of all rounds are a millisecond apart, so that bars close.

    Raises
    ------
    PeerError
        When a server does not take every tick.
    """
    async with contextlib.AsyncExitStack() as servers:
        aggregator = await servers.enter_async_context(service("aggregate"))
        ingest = await servers.enter_async_context(service("serve-tcp", "--aggregator", aggregator))
        discard = await servers.enter_async_context(server("mdtool.services.bench.discard"))
        began_ns = time.time_ns()
        rates = []
        for number in range(-1, rounds):
            count = ticks if number >= 0 else ticks // 10  # the first one warms up
            frames = _frames(count, began_ns + (number + 1) * ticks * NS_PER_MS)
            ingest_s = await asyncio.to_thread(_send, ingest, frames, f"Accepted {count} ")
            discard_s = await asyncio.to_thread(_send, discard, frames, "Discarded ")
            messages_s = await _send_one_by_one(aggregator, messages)
            if number >= 0:
                rates.append((count / ingest_s, count / discard_s, messages / messages_s))
    return [
        _against("ingest", rates, 1, _DISCARDING),
        _against("ingest_in_batches", rates, 2, _ONE_BY_ONE),
    ]


def _against(
    name: str, rates: list[tuple[float, float, float]], column: int, baseline: str
) -> Figure:
    return Figure(
        name,
        statistics.median(rate[0] for rate in rates),
        "ticks/s",
        "higher",
        baseline,
        statistics.median(rate[column] for rate in rates),
        statistics.median(rate[0] / rate[column] for rate in rates),
    )


def _frames(count: int, first_ns: int) -> memoryview:
    """Return Tick frames a millisecond apart, of five symbols in turns."""
    random = np.random.default_rng(0)
    price = random.integers(100 * PRICE_SCALE, 200 * PRICE_SCALE, count)
    return encode_frames(
        _SYMBOLS,
        np.arange(count) % len(_SYMBOLS),
        price,
        random.integers(1, 1_000, count),
        first_ns + np.arange(count) * NS_PER_MS,
    ).data


def _send(address: str, frames: memoryview, expected: str) -> float:
    """Send frames as a plain client, and return how long it took to the Ack that is expected."""
    with socket.create_connection(parse_address(address)) as connection:
        began_s = time.perf_counter()
        connection.sendall(frames)
        connection.shutdown(socket.SHUT_WR)
        replies = ReplyDecoder()
        while data := connection.recv(1 << 16):
            for reply in replies.feed(data):
                if isinstance(reply, Ack) and reply.message.startswith(expected):
                    return time.perf_counter() - began_s
                raise PeerError(f"{address}: {reply}")
    raise PeerError(f"{address} did not acknowledge the frames")


async def _send_one_by_one(address: str, count: int) -> float:
    """Send ticks as existing clients do, and return how long it took the aggregator."""

    async def messages() -> AsyncIterator[tick_pb2.Tick]:
        for number in range(count):
            yield tick_pb2.Tick(
                symbol=_SYMBOLS[number % len(_SYMBOLS)],
                price=150.25,
                volume=100,
                exchange_timestamp=time.time_ns(),
            )

    async with grpc.aio.insecure_channel(address) as channel:
        began_s = time.perf_counter()
        reply = await rpc.Stub(channel).StreamTicks(messages())
        elapsed_s = time.perf_counter() - began_s
    if reply.message != f"Received {count} ticks":
        raise PeerError(f"{address}: {reply.message}")
    return elapsed_s
