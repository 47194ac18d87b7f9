"""Clients of more updates than the gateway can write: how old their states are, and REST's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np
from numpy.typing import NDArray

from mdtool.bench.figures import Figure
from mdtool.bench.market import NO_LIMIT, SYMBOLS
from mdtool.bench.processes import service
from mdtool.bench.stomp_load import stomp_clients
from mdtool.core.addresses import parse_address
from mdtool.core.units import PRICE_SCALE
from mdtool.services.gateway.protocols.stomp import PATH
from mdtool.services.gateway.table import TABLE
from mdtool.wire.tick_encoder import encode_frames

CLIENTS: Final = 2_000
SECONDS: Final = 60.0
FACTORS: Final = (0.9, 1, 3, 10)
"""How many times what the gateway can write is sent."""
_DESTINATION: Final = f"{TABLE['aggregates'].destination}*"
_PROBE_RATE: Final = 200.0
_PROBE_S: Final = 5.0
_LEAST_RATE: Final = 2.0
_POLL_S: Final = 0.1
_SETTLED_S: Final = 1.0
"""How soon after the load every client must have the last state."""
_MESSAGES: Final = "mdtool_socket_messages_total"
_RESIDENT: Final = "process_resident_memory_bytes"


async def measure(
    clients: int = CLIENTS, seconds: float = SECONDS, factors: Sequence[float] = FACTORS
) -> list[Figure]:
    """Return the figures of each load; an update changes every one of five symbols.

    What the gateway can write is what it writes while far more arrives. An update takes from the
    moment at which it is due until a client has a state that includes it. REST is as old as the
    oldest update that it does not include.
    """
    probe = await _run(clients, _PROBE_RATE, _PROBE_S)
    capacity = probe.messages / probe.taken_s / clients / len(SYMBOLS)
    figures = [Figure("overload_writes", probe.messages / probe.taken_s, "messages/s")]
    for factor in factors:
        load = await _run(clients, max(_LEAST_RATE, factor * capacity), seconds)
        figures += load.figures(f"overload_{factor:g}x")
    return figures


@dataclass(frozen=True, slots=True)
class _Load:
    """The outcome of one load.

    Attributes
    ----------
    due_s : float64[updates]
        When each update was to be sent.
    arrived_s : float64[clients, updates]
        When each client had it, nan where it never did.
    rest_age_s, answer_s : sequence of float
        REST's age at each poll, and how long `/health` and REST took to answer.
    grown_bytes : float
        By how much the gateway's memory grew.
    messages, taken_s : float
        What the gateway wrote, and how long that took.
    """

    due_s: NDArray[np.float64]
    arrived_s: NDArray[np.float64]
    rest_age_s: Sequence[float]
    answer_s: Sequence[float]
    grown_bytes: float
    messages: float
    taken_s: float

    def figures(self, name: str) -> list[Figure]:
        """Return what a bench reports."""
        ages_ms = (self.arrived_s - self.due_s) * 1_000
        quarter = max(1, ages_ms.shape[1] // 4)
        first, last = ages_ms[:, :quarter], ages_ms[:, -quarter:]
        settled = self.arrived_s[:, -1] <= self.due_s[-1] + _SETTLED_S
        return [
            Figure(f"{name}_rate", 1 / float(np.diff(self.due_s).mean()), "updates/s a symbol"),
            Figure(f"{name}_p99", float(np.nanpercentile(ages_ms, 99)), "ms", "lower"),
            Figure(
                f"{name}_growth",
                float(np.nanmedian(last) - np.nanmedian(first)),
                "ms from the first quarter to the last",
                "lower",
            ),
            Figure(f"{name}_rest_age", max(self.rest_age_s) * 1_000, "ms at most", "lower"),
            Figure(f"{name}_answer", max(self.answer_s) * 1_000, "ms at most", "lower"),
            Figure(f"{name}_memory", self.grown_bytes / 2**20, "MB more", "lower"),
            Figure(
                f"{name}_behind",
                int(np.count_nonzero(~settled)),
                f"of {len(settled):,} clients without the last state after {_SETTLED_S:g} s",
                "lower",
            ),
        ]


async def _run(clients: int, rate: float, seconds: float) -> _Load:
    """Send updates at a rate to fresh services."""
    updates = max(2, round(rate * seconds))
    async with contextlib.AsyncExitStack() as stack:
        aggregator = await stack.enter_async_context(service("aggregate"))
        ingest = await stack.enter_async_context(service("serve-tcp", "--aggregator", aggregator))
        options = ("--aggregator", aggregator, "--client-sockets", "0", *NO_LIMIT)
        gateway = await stack.enter_async_context(service("gateway", *options))
        session = await stack.enter_async_context(aiohttp.ClientSession(f"http://{gateway}"))
        await asyncio.to_thread(_send, ingest, time.monotonic() + np.zeros(1))
        arrivals = await stack.enter_async_context(
            stomp_clients(gateway, PATH, clients, _DESTINATION, updates)
        )
        before = await _metrics(session)
        began_s = time.monotonic() + 0.1
        due_s = began_s + np.arange(updates) / rate
        rest_age_s: list[float] = []
        answer_s: list[float] = []
        async with _polling(session, due_s, rest_age_s, answer_s):
            await asyncio.to_thread(_send, ingest, due_s)
        arrived_s = await arrivals()
        after = await _metrics(session)
    return _Load(
        due_s,
        arrived_s,
        rest_age_s,
        answer_s,
        after[_RESIDENT] - before[_RESIDENT],
        after[_MESSAGES] - before[_MESSAGES],
        float(np.nanmax(arrived_s)) - began_s,
    )


def _send(address: str, due_s: NDArray[np.float64]) -> None:
    """Send a trade of volume 1 of every symbol when each update is due, until all are committed."""
    n = len(SYMBOLS)
    with socket.create_connection(parse_address(address)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for due in due_s.tolist():
            time.sleep(max(0.0, due - time.monotonic()))
            frames = encode_frames(
                SYMBOLS,
                np.arange(n),
                np.full(n, 187 * PRICE_SCALE),
                np.ones(n, np.int64),
                np.full(n, time.time_ns()),
            )
            connection.sendall(frames.data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


@contextlib.asynccontextmanager
async def _polling(
    session: aiohttp.ClientSession,
    due_s: NDArray[np.float64],
    rest_age_s: list[float],
    answer_s: list[float],
) -> AsyncIterator[None]:
    """Request the state of a symbol and the gateway's health within the block, again and again."""

    async def request(path: str) -> Any:
        began_s = time.monotonic()
        async with session.get(path) as response:
            body = await response.json()
        answer_s.append(time.monotonic() - began_s)
        return body

    async def poll() -> None:
        while True:
            now_s = time.monotonic()
            included = int((await request(f"/api/v1/marketdata/{SYMBOLS[0]}"))["volume"]) - 1
            missing_s = due_s[included:]
            rest_age_s.append(max(0.0, now_s - float(missing_s[0])) if len(missing_s) else 0.0)
            await request("/health")
            await asyncio.sleep(_POLL_S)

    polling = asyncio.create_task(poll())
    try:
        yield
    finally:
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling


async def _metrics(session: aiohttp.ClientSession) -> dict[str, float]:
    """Return the gateway's metrics by name, those with labels summed."""
    found: dict[str, float] = dict.fromkeys((_MESSAGES, _RESIDENT), 0.0)
    async with session.get("/metrics") as response:
        for line in (await response.text()).splitlines():
            name = line.partition("{")[0].partition(" ")[0]
            if name in found:
                found[name] += float(line.rpartition(" ")[2])
    return found
