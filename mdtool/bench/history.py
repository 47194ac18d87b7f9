"""How long a page of trades takes over HTTP, from a store with millions of them."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import numpy as np

from mdtool.adapters.stores import open_history
from mdtool.bench import baselines
from mdtool.bench.figures import Figure, in_turns
from mdtool.bench.market import SYMBOLS, fill_store
from mdtool.bench.plain_table import insert, plain_table
from mdtool.bench.processes import server, service
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError

TRADES: Final = 10_000_000
DEEP_PAGE: Final = 10_000
ROUNDS: Final = 25
_REQUESTS: Final = 40
"""Requests of each kind in a round."""
_LIMIT: Final = 100
_STRIDE: Final = 1_000
"""Trades of a page on the way to the deep one."""
_PATH: Final = f"/api/v1/trades/{SYMBOLS[0]}"
_NO_AGGREGATOR: Final = "127.0.0.1:1"
_OPTIONS: Final = (
    *("--client-sockets", "0", "--memory-requests-per-s", "0", "--upstream-requests-per-s", "0"),
)


async def measure(
    trades: int = TRADES, deep_page: int = DEEP_PAGE, rounds: int = ROUNDS
) -> list[Figure]:
    """Return the medians of how long the newest page and a much older one take, in ms.

    Pages are of 100 trades; each is requested when the one before it has been answered. The
    baseline is one handler that blocks while it reads the same trades with sqlite3.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trades.db"
        url = f"sqlite:///{path}"
        fill_store(url, trades)
        plain = Path(folder) / "plain.db"
        _copy(url, plain)
        options = ("--aggregator", _NO_AGGREGATOR, "--store", url, *_OPTIONS)
        async with (
            service("gateway", *options) as gateway,
            server(baselines.MODULE, "history", str(plain)) as bare,
            _Client(gateway) as client,
            _Client(bare) as bare_client,
        ):
            newest = f"{_PATH}?limit={_LIMIT}"
            deep = f"{newest}&before={await _cursor_of(client, deep_page)}"
            await _check(client, bare_client, newest, deep)
            rows = [
                [
                    await client.time_ms(newest),
                    await client.time_ms(deep),
                    await bare_client.time_ms(newest),
                ]
                for _ in range(rounds)
            ]
    return _figures(rows, deep_page)


def _copy(url: str, path: Path) -> None:
    """Write the trades of a store into a plain table."""
    with open_history(url) as history, plain_table(path, SYMBOLS) as plain:
        for number, symbol in enumerate(SYMBOLS):
            for page in history.trades(symbol):
                each = page.trades
                keys = np.full(len(page), number), each.ts_event, page.stream, page.sequence
                insert(plain, np.stack([*keys, each.price, each.size, each.ts_recv]))


def _figures(rows: list[list[float]], deep_page: int) -> list[Figure]:
    return [
        in_turns(
            "history_page",
            "ms",
            "a handler that waits for sqlite3",
            [(newest, bare) for newest, _, bare in rows],
            "lower",
        ),
        in_turns(
            f"history_page_{deep_page}",
            "ms",
            "the first page",
            [(deep, newest) for newest, deep, _ in rows],
            "lower",
        ),
    ]


async def _cursor_of(client: _Client, page: int) -> str:
    """Return the cursor of a page, counted from 1, from the pages before it."""
    left, cursor = (page - 1) * _LIMIT, None
    while left:
        n = min(left, _STRIDE)
        before = f"&before={cursor}" if cursor else ""
        cursor = (await client.get(f"{_PATH}?limit={n}{before}"))["pagination"]["next_cursor"]
        if cursor is None:
            raise PeerError(f"there is no page {page:,}")
        left -= n
    assert cursor is not None
    return str(cursor)


async def _check(client: _Client, bare: _Client, newest: str, deep: str) -> None:
    """Check that both servers answer the same."""
    trades = (await client.get(newest))["data"]
    older = (await client.get(deep))["data"]
    same = (await bare.get(newest))["data"]
    if trades != same or not len(trades) == len(older) == _LIMIT:
        raise PeerError("the gateway and sqlite3 do not agree on the newest trades")


class _Client:
    """A persistent connection. An async context manager."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*parse_address(self._address))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._writer.close()

    async def get(self, path: str) -> Any:
        """Return the data of a response."""
        return json.loads(await self._body(path))["data"]

    async def time_ms(self, path: str) -> float:
        """Return the median time of some requests, one after the other."""
        times_ms = []
        for _ in range(_REQUESTS):
            began_s = time.perf_counter()
            await self._body(path)
            times_ms.append((time.perf_counter() - began_s) * 1_000)
        return median(times_ms)

    async def _body(self, path: str) -> bytes:
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._address}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *headers = head.decode("latin-1").lower().splitlines()
        lengths = [line.partition(":")[2] for line in headers if line.startswith("content-length")]
        body = await self._reader.readexactly(int(lengths[0]))
        if " 200 " not in status:
            raise PeerError(f"{self._address} does not answer {path}: {body.decode()}")
        return body
