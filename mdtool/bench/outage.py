"""What clients of the gateway see of an aggregator that is killed, and of its return."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import aiohttp
import grpc
import grpc.aio

from mdtool.adapters import rpc
from mdtool.bench.figures import Figure
from mdtool.bench.processes import process, service
from mdtool.bench.traded import NO_LIMIT
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.wire._pb import tick_pb2

AWAY_S: Final = 10.0
REQUESTS_PER_S: Final = 200.0
SYMBOLS: Final = ("AAPL", "AMZN", "GOOG", "MSFT", "TSLA")
_MARGIN_S: Final = 1.0
"""How long is asked before the aggregator is killed, and after everything is fresh again."""
_TICKS_S: Final = 0.05
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 30.0
_SERVER_ERRORS: Final = 500
_NO_ANSWER: Final = 599
_OPTIONS: Final = (
    *rpc.OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
)


class _Answer(NamedTuple):
    """An answer; times in seconds of the monotonic clock. Where there is none, 599."""

    symbol: str
    asked_s: float
    answered_s: float
    status: int
    is_stale: bool


async def measure(away_s: float = AWAY_S, requests_per_s: float = REQUESTS_PER_S) -> list[Figure]:
    """Kill the aggregator and start it again, under ticks and requests for symbols that are known.

    Requests are sent at their rate, whether those before are answered or not. The aggregator comes
    back without what it knew, as one without a store does, and a symbol is fresh with its next
    tick, of which there are twenty a second.

    `outage_stale` is how long after the end of the aggregator the last answer was asked for that
    is not marked as stale; `outage_fresh` how long after its return the last one that is.
    """
    answers: list[_Answer] = []
    async with contextlib.AsyncExitStack() as stack:
        aggregator, address = await stack.enter_async_context(_aggregator(0))
        options = ("--aggregator", address, *NO_LIMIT)
        gateway = await stack.enter_async_context(service("gateway", *options))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        trading = tasks.create_task(_trade(address))
        await _traded(gateway)
        asking = tasks.create_task(_ask(gateway, requests_per_s, answers))
        await asyncio.sleep(_MARGIN_S)
        aggregator.kill()
        killed_s = time.monotonic()
        await asyncio.sleep(away_s)
        await stack.enter_async_context(_aggregator(parse_address(address)[1]))
        back_s = time.monotonic()
        await _fresh(answers, back_s)
        await asyncio.sleep(_MARGIN_S)
        asking.cancel()
        trading.cancel()
    return _figures(answers, killed_s, back_s)


def _figures(answers: Sequence[_Answer], killed_s: float, back_s: float) -> list[Figure]:
    failed = sum(answer.status >= _SERVER_ERRORS for answer in answers)
    unmarked = [
        answer.asked_s - killed_s
        for answer in answers
        if killed_s < answer.asked_s < back_s and not answer.is_stale
    ]
    marked = [
        answer.asked_s - back_s for answer in answers if answer.asked_s > back_s and answer.is_stale
    ]
    slowest = max(answer.answered_s - answer.asked_s for answer in answers)
    return [
        Figure("outage_requests", len(answers), "requests"),
        Figure("outage_5xx", failed, "requests", "lower"),
        Figure("outage_stale", max(unmarked, default=0.0), "s", "lower"),
        Figure("outage_fresh", max(marked, default=0.0), "s", "lower"),
        Figure("outage_slowest", slowest, "s", "lower"),
    ]


@contextlib.asynccontextmanager
async def _aggregator(port: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    command = ("mdtool", "--log-level", "warning", "aggregate", "--port", str(port))
    async with process(*command) as (child, addresses):
        yield child, addresses["grpc"]


async def _trade(address: str) -> None:
    """Let every symbol trade, over and over, whenever the aggregator is there."""
    async with grpc.aio.insecure_channel(address, _OPTIONS) as channel:
        stub = rpc.Stub(channel)
        for volume in itertools.count(1):
            now_ns = time.time_ns()
            ticks = [
                tick_pb2.Tick(symbol=symbol, price=100, volume=volume, exchange_timestamp=now_ns)
                for symbol in SYMBOLS
            ]
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.StreamTicks(iter(ticks))
            await asyncio.sleep(_TICKS_S)


async def _traded(gateway: str) -> None:
    """Wait until the gateway knows all symbols."""
    async with aiohttp.ClientSession(f"http://{gateway}") as session:
        for symbol in SYMBOLS:
            async with session.ws_connect(f"/ws/marketdata?symbol={symbol}") as socket:
                await socket.receive()


async def _ask(gateway: str, requests_per_s: float, answers: list[_Answer]) -> None:
    """Ask for one symbol after the other, and note the answers."""
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with (
        aiohttp.ClientSession(f"http://{gateway}", timeout=timeout) as session,
        asyncio.TaskGroup() as requests,
    ):
        began_s = loop.time()
        for number, symbol in enumerate(itertools.cycle(SYMBOLS)):
            await asyncio.sleep(began_s + number / requests_per_s - loop.time())
            requests.create_task(_ask_once(session, symbol, answers))


async def _ask_once(session: aiohttp.ClientSession, symbol: str, answers: list[_Answer]) -> None:
    asked_s = time.monotonic()
    try:
        async with session.get(f"/api/v1/marketdata/{symbol}") as response:
            aggregate = await response.json()
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        aggregate, status = {}, _NO_ANSWER
    is_stale = "stale" in aggregate
    answers.append(_Answer(symbol, asked_s, time.monotonic(), status, is_stale))


async def _fresh(answers: Sequence[_Answer], since_s: float) -> None:
    """Wait until each symbol's latest answer since a time is a fresh one.

    Raises
    ------
    PeerError
        When they do not become so.
    """
    ends_s = time.monotonic() + _PATIENCE_S
    while True:
        latest = {answer.symbol: answer.is_stale for answer in answers if answer.asked_s > since_s}
        if len(latest) == len(SYMBOLS) and not any(latest.values()):
            return
        if time.monotonic() > ends_s:
            raise PeerError(f"the gateway is not fresh {_PATIENCE_S:g} s after the return")
        await asyncio.sleep(_LOOK_S)
