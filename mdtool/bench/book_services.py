"""A recording replayed over TCP into order books, and the JSON lines of these over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from mdtool.adapters.dbn_files import open_source
from mdtool.bench.figures import Figure, against
from mdtool.bench.processes import addresses, run_command
from mdtool.core.addresses import parse_address
from mdtool.core.dtypes import MBO
from mdtool.core.errors import PeerError
from mdtool.engine.book.snapshot import Snapshot
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import views
from mdtool.wire.dbn_session import FromStart, encode_request

RECORDS: Final = 4_000_000
LINES: Final = 400_000
ROUNDS: Final = 3
_PLAIN_LINES: Final = 20_000
_DEPTH: Final = 10
_READ_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.02


class _Services(NamedTuple):
    """A sender and a receiver: their HTTP, and the address on which the first streams."""

    sender: aiohttp.ClientSession
    receiver: aiohttp.ClientSession
    data: str


async def measure(records: int = RECORDS, lines: int = LINES, rounds: int = ROUNDS) -> list[Figure]:
    """Return how many records a second reach books, and how many come out as JSON lines.

    Both services are processes of their own. The first baseline is a client that drops what the
    same sender streams; the second a dict of the same book and `json.dumps` for every record.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = await asyncio.to_thread(_simulated, Path(folder), records)
        async with _services(path) as services:
            pairs = [
                (await _replayed(services), await _dropped(services, records))
                for _ in range(rounds)
            ]
        rates, bare_rates = (statistics.median(each) for each in zip(*pairs, strict=True))
        path = await asyncio.to_thread(_simulated, Path(folder), lines)
        async with _services(path) as services:
            await _replayed(services)
            line_rate = statistics.median([await _sent(services) for _ in range(rounds)])
        plain_rate = _plain_lines(path, min(lines, _PLAIN_LINES))
    return [
        against("book_replay", rates, "records/s", "records received and dropped", bare_rates),
        against("book_lines", line_rate, "records/s", "a dict and json.dumps each", plain_rate),
    ]


@contextlib.asynccontextmanager
async def _services(path: Path) -> AsyncIterator[_Services]:
    quiet = ("mdtool", "--log-level", "warning")
    replay = ("replay-dbn", "--serve", str(path), "--port", "0", "--data-port", "0")
    async with contextlib.AsyncExitStack() as stack:
        sender = await stack.enter_async_context(addresses(*quiet, *replay))
        book = ("book", "--serve", "--port", "0", "--sender", sender["dbn"])
        receiver = await stack.enter_async_context(addresses(*quiet, *book))
        http, receiver_http = [
            await stack.enter_async_context(
                aiohttp.ClientSession(f"http://{address}", read_bufsize=_READ_BYTES)
            )
            for address in (sender["http"], receiver["http"])
        ]
        yield _Services(http, receiver_http, sender["dbn"])


async def _replayed(services: _Services) -> float:
    """Return how many records a second the receiver has applied, from the first to the last."""
    await _start(services.sender, "/start-streaming")
    await _start(services.receiver, "/start-processing")
    async with asyncio.timeout(_TIMEOUT_S):
        while True:
            status = await _status(services.receiver)
            if status["error"]:
                raise PeerError(status["error"])
            if status["state"] == "done":
                return float(status["records"] / status["elapsed_s"])
            await asyncio.sleep(_LOOK_S)


async def _dropped(services: _Services, records: int) -> float:
    """Return how many records a second a client gets that does nothing with them."""
    await _start(services.sender, "/start-streaming")
    host, port = parse_address(services.data)
    reader, writer = await asyncio.open_connection(host, port, limit=2 * _READ_BYTES)
    try:
        writer.write(encode_request(FromStart()))
        n_bytes = len(await reader.read(_READ_BYTES))
        began = time.perf_counter()
        while data := await reader.read(_READ_BYTES):
            n_bytes += len(data)
        elapsed_s = time.perf_counter() - began
    finally:
        writer.close()
    if n_bytes < records * MBO.itemsize:
        raise PeerError(f"{services.data} has not sent all records")
    return records / elapsed_s


async def _sent(services: _Services) -> float:
    """Return how many lines a second the receiver sends."""
    n_lines = 0
    began = time.perf_counter()
    async with services.receiver.get("/order-book", params={"depth": _DEPTH}) as response:
        async for chunk in response.content.iter_any():
            n_lines += chunk.count(b"\n")
    return n_lines / (time.perf_counter() - began)


def _plain_lines(path: Path, records: int) -> float:
    """Return how many records a second plain Python applies and encodes."""
    books, done = Books(), 0
    with open_source(str(path)) as source:
        began = time.perf_counter()
        for batch in source:
            for at in range(min(len(batch), records - done)):
                books.apply(batch[at : at + 1])
                json.dumps(Snapshot.of(next(views(books)), _DEPTH).as_dict("symbol"))
                done += 1
            if done == records:
                break
    return done / (time.perf_counter() - began)


async def _start(session: aiohttp.ClientSession, path: str) -> None:
    async with session.post(path) as response:
        if response.status != 200:
            raise PeerError(f"{path}: {(await response.read()).decode()}")


async def _status(session: aiohttp.ClientSession) -> Any:
    async with session.get("/status") as response:
        return await response.json()


def _simulated(folder: Path, records: int) -> Path:
    path = folder / f"{records}.dbn"
    run_command("simulate", "--limit", records, "-o", path, "-f")
    return path
