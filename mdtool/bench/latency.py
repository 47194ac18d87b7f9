"""The latency of a tick from TCP in to WebSocket out, through three processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Final

import aiohttp
import numpy as np
from numpy.typing import NDArray

from mdtool.bench import baselines
from mdtool.bench.figures import Figure, against
from mdtool.bench.processes import addresses, service
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.units import PRICE_SCALE
from mdtool.wire.tick_encoder import encode_frames

RATE: Final = 1_000
TICKS: Final = 10_000
_WARM_UP_TICKS: Final = 1_000
_SYMBOL: Final = "AAPL"
_TIMEOUT_S: Final = 60.0


async def measure(ticks: int = TICKS) -> list[Figure]:
    """Return the median and the 99th percentile of ticks sent at 1,000 a second, in ms.

    A tick counts from the moment at which it is due, whether or not the sender is late, and until
    a message comes whose volume includes the tick. The baseline is one process that sends a
    WebSocket a message for each frame that it reads.
    """
    async with contextlib.AsyncExitStack() as servers:
        aggregator = await servers.enter_async_context(service("aggregate"))
        ingest = await servers.enter_async_context(service("serve-tcp", "--aggregator", aggregator))
        gateway = await servers.enter_async_context(service("gateway", "--aggregator", aggregator))
        stack_times_ms = await times_ms(ingest, gateway, ticks)
    async with addresses(baselines.MODULE, "relay") as relay:
        bare_times_ms = await times_ms(relay["tcp"], relay["http"], ticks)
    return [
        against(
            f"latency_p{percentile}",
            float(np.percentile(stack_times_ms, percentile)),
            "ms",
            "one process that relays",
            float(np.percentile(bare_times_ms, percentile)),
            better="lower",
        )
        for percentile in (50, 99)
    ]


async def times_ms(tcp: str, http: str, ticks: int) -> NDArray[np.float64]:
    """Return how long each tick took from a TCP server to a WebSocket, in order, float64[ticks]."""
    url = f"ws://{http}/ws/marketdata?symbol={_SYMBOL}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as updates:
        await _round_ms(tcp, updates, 0, _WARM_UP_TICKS)
        return await _round_ms(tcp, updates, _WARM_UP_TICKS, ticks)


async def _round_ms(
    tcp: str, updates: aiohttp.ClientWebSocketResponse, volume: int, ticks: int
) -> NDArray[np.float64]:
    """Send ticks after `volume` others; return how long each took."""
    sending = asyncio.create_task(asyncio.to_thread(_send, tcp, ticks))
    try:
        async with asyncio.timeout(ticks / RATE + _TIMEOUT_S):
            arrived_s = await _arrivals(updates, volume, ticks)
    except TimeoutError as error:
        raise PeerError(f"not every tick sent to {tcp} has reached a WebSocket") from error
    began_s = await sending
    return (arrived_s - began_s - np.arange(ticks) / RATE) * 1_000


def _send(address: str, ticks: int) -> float:
    """Send ticks of volume 1 when they are due; return when the first was."""
    frames = encode_frames(
        [_SYMBOL],
        np.zeros(ticks, np.int64),
        np.full(ticks, 187 * PRICE_SCALE),
        np.ones(ticks, np.int64),
        time.time_ns() + np.arange(ticks),
    )
    ends = frames.ends.tolist()
    with socket.create_connection(parse_address(address)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began_s = time.perf_counter()
        for tick, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            wait_s = began_s + tick / RATE - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            connection.sendall(frames.data[begin:end])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass  # until everything is committed
    return began_s


async def _arrivals(
    updates: aiohttp.ClientWebSocketResponse, volume: int, ticks: int
) -> NDArray[np.float64]:
    """Return when the volume first included each tick beyond `volume`, float64[ticks]."""
    arrived_s = np.empty(ticks)
    known = 0
    async for message in updates:
        now_s = time.perf_counter()
        total = json.loads(message.data).get("volume")
        if total is None:
            continue  # the symbol has not traded yet
        received = total - volume
        arrived_s[known:received] = now_s
        known = received
        if known == ticks:
            return arrived_s
    raise PeerError("the gateway closed the connection")
