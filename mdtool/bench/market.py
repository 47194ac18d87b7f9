"""The data of the benches: ticks to send, a gateway with an aggregate, stores of trades."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import numpy as np

from mdtool.adapters import rpc
from mdtool.adapters.stores import open_store
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.bench.processes import service
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.core.units import NS_PER_MS, PRICE_SCALE
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import END_FRAME, Ack, ReplyDecoder
from mdtool.wire.tick_encoder import encode_frames

SYMBOLS: Final = ("AAPL", "MSFT", "GOOG", "AMZN", "TSLA")
"""The symbols, which trade in turns."""
RESIDENT: Final = "process_resident_memory_bytes"
CPU: Final = "process_cpu_seconds_total"
NO_LIMIT: Final = ("--memory-requests-per-s", "1000000000", "--client-time-percent", "100")
"""Limits that no client reaches, so that the cost of counting is measured too."""

_START_NS: Final = 1_735_201_234_567 * NS_PER_MS
_EVERY_NS: Final = 1_000
"""A thousand stored trades share each millisecond."""
_STEP_TRADES: Final = 200_000
_CENT: Final = PRICE_SCALE // 100


def frames(count: int, first_ns: int) -> memoryview:
    """Return Tick frames a millisecond apart, of all symbols in turns."""
    random = np.random.default_rng(0)
    price = random.integers(100 * PRICE_SCALE, 200 * PRICE_SCALE, count)
    return encode_frames(
        SYMBOLS,
        np.arange(count) % len(SYMBOLS),
        price,
        random.integers(1, 1_000, count),
        first_ns + np.arange(count) * NS_PER_MS,
    ).data


def send(address: str, data: memoryview, expected: str, tls: ssl.SSLContext | None = None) -> float:
    """Send frames as a plain client; return the seconds until the expected Ack.

    With TLS an End ends them, else the end of the sending half does.

    Raises
    ------
    PeerError
        When another answer comes, or none.
    """
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(parse_address(address)))
        if tls is not None:
            wrapped = tls.wrap_socket(connection, server_hostname=parse_address(address)[0])
            connection = stack.enter_context(wrapped)
        began_s = time.perf_counter()
        connection.sendall(data)
        if tls is None:
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.sendall(END_FRAME)
        replies = ReplyDecoder()
        while received := connection.recv(1 << 16):
            for reply in replies.feed(received):
                if isinstance(reply, Ack) and reply.message.startswith(expected):
                    return time.perf_counter() - began_s
                raise PeerError(f"{address}: {reply}")
    raise PeerError(f"{address} did not acknowledge the frames")


@contextlib.asynccontextmanager
async def gateway_with_aggregate(*options: str, token: str | None = None) -> AsyncIterator[str]:
    """Run a gateway before an aggregator with one trade of AAPL; yield its address."""
    headers = None if token is None else {"Authorization": f"Bearer {token}"}
    async with service("aggregate", "--auth", "none") as aggregator:
        tick = tick_pb2.Tick(
            symbol="AAPL", price=187.25, volume=100, exchange_timestamp=time.time_ns()
        )
        async with rpc.open_channel(aggregator) as channel:
            await rpc.Stub(channel).StreamTicks(iter([tick]))
        async with service("gateway", "--aggregator", aggregator, *NO_LIMIT, *options) as address:
            async with (
                aiohttp.ClientSession(f"http://{address}", headers=headers) as session,
                session.ws_connect("/ws/marketdata?symbol=AAPL") as updates,
            ):
                await updates.receive()
            yield address


async def metric(gateway: str, name: str) -> float:
    """Return the value of a metric without labels that a gateway reports.

    Raises
    ------
    PeerError
        When it does not report it.
    """
    async with (
        aiohttp.ClientSession(f"http://{gateway}") as session,
        session.get("/metrics") as response,
    ):
        for line in (await response.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.removeprefix(name))
    raise PeerError(f"gateway {gateway} does not report {name} on this system")


def fill_store(url: str, count: int) -> None:
    """Create a store with trades of all symbols in turns; on a terminal show progress.

    Raises
    ------
    StoreError
        When they cannot be written.
    """
    with open_store(url) as store:
        for first in range(0, count, _STEP_TRADES):
            last = min(first + _STEP_TRADES, count)
            trades = trades_between(first, last, _EVERY_NS)
            run = StreamRun("bench", first, last, np.arange(first, last), trades)
            store.write(Step(SymbolTable(SYMBOLS), [run]))
            show_filled(last, count)


def show_filled(trades: int, total: int) -> None:
    """Show on a terminal how many trades a store has so far."""
    if sys.stderr.isatty():
        end = "\n" if trades == total else ""
        print(f"\r{trades:,} of {total:,} trades", end=end, file=sys.stderr)


def trades_between(first: int, last: int, every_ns: int) -> Trades:
    """Return trades of all symbols in turns, of these numbers and so far apart."""
    number = np.arange(first, last)
    random = np.random.default_rng(first)
    time_ns = _START_NS + number * every_ns
    return Trades(
        symbol=(number % len(SYMBOLS)).astype(np.uint32),
        price=random.integers(18_000, 20_000, len(number)) * _CENT,
        size=random.integers(1, 1_000, len(number)),
        ts_event=time_ns,
        ts_recv=time_ns + NS_PER_MS,
    )
