"""Ticks a second over TCP into bars: both services in a process each, and in one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from mdtool.adapters import rpc
from mdtool.bench import baselines
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import SYMBOLS, frames, send
from mdtool.bench.processes import server, stack
from mdtool.core.errors import PeerError
from mdtool.core.units import NS_PER_MS
from mdtool.wire._pb import tick_pb2

TICKS: Final = 4_000_000
MESSAGES: Final = 10_000
ROUNDS: Final = 5

_DISCARDING: Final = "a server that discards the same frames"
_ONE_BY_ONE: Final = "one tick a gRPC message"


async def measure(
    ticks: int = TICKS, messages: int = MESSAGES, rounds: int = ROUNDS
) -> list[Figure]:
    """Return the rates of both forms of `serve all`, in turns with what they are compared with.

    A round ends with the acknowledgement that all its ticks are in the aggregator's bars. Frames
    come over one connection; the ticks of all rounds are a millisecond apart, so that bars close.

    Raises
    ------
    PeerError
        When a server does not accept every tick.
    """
    async with contextlib.AsyncExitStack() as servers:
        options = ("--memory", "--only", "serve-tcp,aggregate")
        _, together = await servers.enter_async_context(stack(*options))
        _, separate = await servers.enter_async_context(stack(*options, "--processes"))
        discard = await servers.enter_async_context(server(baselines.MODULE, "discard"))
        began_ns = time.time_ns()
        rates = []
        for number in range(-1, rounds):
            count = ticks if number >= 0 else ticks // 10  # the first one warms up
            data = frames(count, began_ns + (number + 1) * ticks * NS_PER_MS)
            accepted = f"Accepted {count} "
            ingest_s, together_s = [
                await asyncio.to_thread(send, form["serve-tcp tcp"], data, accepted)
                for form in (separate, together)
            ]
            discard_s = await asyncio.to_thread(send, discard, data, "Discarded ")
            messages_s = await _send_one_by_one(separate["aggregate grpc"], messages)
            if number >= 0:
                times_s = (ingest_s, together_s, discard_s)
                rates.append((*(count / each_s for each_s in times_s), messages / messages_s))
    return [
        in_turns("ingest", "ticks/s", _DISCARDING, [(rate, bare) for rate, _, bare, _ in rates]),
        in_turns(
            "ingest_one_process",
            "ticks/s",
            _DISCARDING,
            [(rate, bare) for _, rate, bare, _ in rates],
        ),
        in_turns(
            "ingest_in_batches",
            "ticks/s",
            _ONE_BY_ONE,
            [(rate, single) for rate, _, _, single in rates],
        ),
    ]


async def _send_one_by_one(address: str, count: int) -> float:
    """Send ticks as existing clients do; return the seconds until they are acknowledged."""

    async def messages() -> AsyncIterator[tick_pb2.Tick]:
        for number in range(count):
            yield tick_pb2.Tick(
                symbol=SYMBOLS[number % len(SYMBOLS)],
                price=150.25,
                volume=100,
                exchange_timestamp=time.time_ns(),
            )

    async with rpc.open_channel(address) as channel:
        began_s = time.perf_counter()
        reply = await rpc.Stub(channel).StreamTicks(messages())
        elapsed_s = time.perf_counter() - began_s
    if reply.message != f"Received {count} ticks":
        raise PeerError(f"{address}: {reply.message}")
    return elapsed_s
