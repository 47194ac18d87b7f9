"""What clients of the gateway see while its aggregator is killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import aiohttp
import grpc.aio

from mdtool.adapters import rpc
from mdtool.bench.figures import Figure
from mdtool.bench.market import NO_LIMIT, SYMBOLS
from mdtool.bench.processes import process, service
from mdtool.core.errors import PeerError
from mdtool.core.tcp import ReservedPort
from mdtool.wire._pb import tick_pb2

OUTAGE_S: Final = 10.0
REQUESTS_PER_S: Final = 200.0
_MARGIN_S: Final = 1.0
"""How long requests are sent before the kill, and after everything is fresh again."""
_TICKS_S: Final = 0.05
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 30.0
_SERVER_ERRORS: Final = 500
_NO_ANSWER: Final = 599


class _Answer(NamedTuple):
    """A response, of status 599 where none came; times in seconds of the monotonic clock."""

    symbol: str
    sent_s: float
    answered_s: float
    status: int
    is_stale: bool


async def measure(
    outage_s: float = OUTAGE_S, requests_per_s: float = REQUESTS_PER_S
) -> list[Figure]:
    """Kill the aggregator and start it again, under ticks and requests for known symbols.

    Requests are sent at their rate, whether those before are answered or not. The aggregator is
    restarted without its state, as one without a store is, and a symbol is fresh with its next
    tick, of which there are twenty a second.

    `outage_stale` is how long after the kill the last request was sent whose answer is not marked
    as stale; `outage_fresh` how long after the restart the last one whose answer is.
    """
    answers: list[_Answer] = []
    async with contextlib.AsyncExitStack() as stack:
        held = stack.enter_context(ReservedPort("127.0.0.1"))
        aggregator, address = await stack.enter_async_context(_aggregator(held.port))
        options = ("--aggregator", address, *NO_LIMIT)
        gateway = await stack.enter_async_context(service("gateway", *options))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        trading = tasks.create_task(_trade(address))
        await _until_known(gateway)
        requesting = tasks.create_task(_request_all(gateway, requests_per_s, answers))
        await asyncio.sleep(_MARGIN_S)
        aggregator.kill()
        killed_s = time.monotonic()
        await asyncio.sleep(outage_s)
        await stack.enter_async_context(_aggregator(held.port))
        restarted_s = time.monotonic()
        await _fresh(answers, restarted_s)
        await asyncio.sleep(_MARGIN_S)
        requesting.cancel()
        trading.cancel()
    return _figures(answers, killed_s, restarted_s)


def _figures(answers: Sequence[_Answer], killed_s: float, restarted_s: float) -> list[Figure]:
    failed = sum(answer.status >= _SERVER_ERRORS for answer in answers)
    unmarked = [
        answer.sent_s - killed_s
        for answer in answers
        if killed_s < answer.sent_s < restarted_s and not answer.is_stale
    ]
    marked = [
        answer.sent_s - restarted_s
        for answer in answers
        if answer.sent_s > restarted_s and answer.is_stale
    ]
    slowest = max(answer.answered_s - answer.sent_s for answer in answers)
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
    """Send a tick of every symbol, again and again, whenever the aggregator is available."""
    async with rpc.open_channel(address) as channel:
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


async def _until_known(gateway: str) -> None:
    """Wait until the gateway has an aggregate of every symbol."""
    async with aiohttp.ClientSession(f"http://{gateway}") as session:
        for symbol in SYMBOLS:
            async with session.ws_connect(f"/ws/marketdata?symbol={symbol}") as socket:
                while "error" in await socket.receive_json():
                    pass  # no tick of it yet


async def _request_all(gateway: str, requests_per_s: float, answers: list[_Answer]) -> None:
    """Request one symbol after the other, and record the answers."""
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with (
        aiohttp.ClientSession(f"http://{gateway}", timeout=timeout) as session,
        asyncio.TaskGroup() as requests,
    ):
        began_s = loop.time()
        for number, symbol in enumerate(itertools.cycle(SYMBOLS)):
            await asyncio.sleep(began_s + number / requests_per_s - loop.time())
            requests.create_task(_request(session, symbol, answers))


async def _request(session: aiohttp.ClientSession, symbol: str, answers: list[_Answer]) -> None:
    sent_s = time.monotonic()
    try:
        async with session.get(f"/api/v1/marketdata/{symbol}") as response:
            aggregate = await response.json()
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        aggregate, status = {}, _NO_ANSWER
    is_stale = "stale" in aggregate
    answers.append(_Answer(symbol, sent_s, time.monotonic(), status, is_stale))


async def _fresh(answers: Sequence[_Answer], since_s: float) -> None:
    """Wait until each symbol's latest answer since a time is a fresh one.

    Raises
    ------
    PeerError
        When one stays stale.
    """
    ends_s = time.monotonic() + _PATIENCE_S
    while True:
        latest = {answer.symbol: answer.is_stale for answer in answers if answer.sent_s > since_s}
        if len(latest) == len(SYMBOLS) and not any(latest.values()):
            return
        if time.monotonic() > ends_s:
            raise PeerError(f"the gateway is still stale {_PATIENCE_S:g} s after the restart")
        await asyncio.sleep(_LOOK_S)
