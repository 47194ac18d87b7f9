"""`serve --check`: probes through running services, and the time that each takes.

A probe is a frame of a stream as a tick is, and is numbered, sent on, committed and published by
the same functions in the same order. It has no symbol and no price, and so changes no market: no
service lists or stores anything of it but the position of its stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from mdtool.adapters.aggregator import AggregatorClient
from mdtool.adapters.identity.config import bearer_header
from mdtool.adapters.tcp_streams import open_stream
from mdtool.adapters.vwap_feed import VwapFeedClient, decode_states
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import one_error
from mdtool.core.symbols import SymbolTable
from mdtool.core.tcp import reason_of
from mdtool.core.tls import http_options
from mdtool.core.units import NS_PER_MS
from mdtool.wire.batches import Updates
from mdtool.wire.frames import PROBE_FRAME, Ack, Committed, ReplyDecoder, encode_auth, encode_hello

TIMEOUT_S: Final = 5.0
"""How long a probe may take to all services."""
_FIRST_TIMEOUTS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""How long the first probes may take, one after the other: a minute in all.

New services compile their kernels, and one that was just restarted may have peers that do not
follow it yet. What these missed is never sent again, so another probe is sent.
"""

_APPLIED: Final = "sent by aggregate"
_COMMITTED: Final = "committed by aggregate"
_SERVED: Final = "sent by gateway"
_PUBLISHED: Final = "sent by vwap"
_HOPS: Final = {
    _APPLIED: "client to aggregate, applied",
    _COMMITTED: "client to aggregate, committed",
    _SERVED: "client to gateway, served",
    _PUBLISHED: "client to vwap, published",
}
_OLDEST: Final = "serve-tcp to gateway, oldest of 5 s"
"""The greatest age of an update of any symbol, as the gateway's health reports it."""


@dataclass(frozen=True, slots=True)
class Route:
    """The `HOST:PORT` of each service to check; None for those that are left out."""

    serve_tcp: str
    aggregate: str
    gateway: str | None
    vwap: str | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """The times of probes from the client to a place, in nanoseconds, one entry each."""

    name: str
    times_ns: Sequence[int]

    @property
    def median_ns(self) -> float:
        """The median."""
        return statistics.median(self.times_ns)

    @property
    def slowest_ns(self) -> int:
        """The longest."""
        return max(self.times_ns)


async def check(route: Route, ticks: int, token: str = "") -> list[Hop]:
    """Send probes, each once the one before has arrived everywhere.

    Uncounted ones precede them until one has arrived everywhere. All times are by this process's
    clock, from the moment at which the probe is written.

    Parameters
    ----------
    route : Route
        The services.
    ticks : int
        How many probes count, from 1.
    token : str, optional
        By which the client authenticates; its principal reads and writes every symbol.

    Raises
    ------
    PeerError
        When a service cannot be reached, or a probe does not arrive.
    """
    stream_id = f"MDTOOL.CHECK-{uuid.uuid4().hex.upper()}"
    places = [_APPLIED, _COMMITTED]
    places += [] if route.gateway is None else [_SERVED]
    places += [] if route.vwap is None else [_PUBLISHED]
    with one_error():
        async with asyncio.TaskGroup() as tasks, _connection(route.serve_tcp) as (reader, writer):
            sightings = _Sightings()
            followers = [
                tasks.create_task(_follow_replies(reader, sightings)),
                tasks.create_task(_follow_aggregate(route.aggregate, stream_id, sightings, token)),
            ]
            if route.gateway is not None:
                following = _follow_gateway(route.gateway, stream_id, sightings, token)
                followers.append(tasks.create_task(following))
            if route.vwap is not None:
                following = _follow_vwap(route.vwap, stream_id, sightings, token)
                followers.append(tasks.create_task(following))
            if token:
                writer.write(encode_auth(token))
            writer.write(encode_hello(stream_id))
            first = await _warm_up(writer, places, sightings)
            journeys = [
                await _send(writer, probe, places, sightings, TIMEOUT_S)
                for probe in range(first, first + ticks)
            ]
            for follower in followers:
                follower.cancel()
    hops = _hops(places, journeys)
    if route.gateway is not None and (age_ns := await _age_ns(route.gateway, token)) is not None:
        hops.append(Hop(_OLDEST, [age_ns]))
    return hops


class _Sightings:
    """When each probe was first seen at each place, in nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seen: dict[tuple[str, int], asyncio.Future[int]] = {}

    def at(self, place: str, probe: int) -> asyncio.Future[int]:
        """Return a future of the time at which the probe is seen at a place."""
        return self._seen.setdefault((place, probe), self._loop.create_future())

    def note(self, place: str, probe: int, when_ns: int) -> None:
        """Record that the probe was seen at a place."""
        seen = self.at(place, probe)
        if not seen.done():
            seen.set_result(when_ns)


@contextlib.asynccontextmanager
async def _connection(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await open_stream("serve-tcp", *parse_address(address))
    except OSError as error:
        raise _unreachable("serve-tcp", address, reason_of(error)) from error
    try:
        yield reader, writer
    finally:
        writer.close()


async def _warm_up(
    writer: asyncio.StreamWriter, places: Sequence[str], sightings: _Sightings
) -> int:
    """Send probes until one is seen everywhere; return the number of the next."""
    *shorter_s, last_s = _FIRST_TIMEOUTS_S
    for probe, timeout_s in enumerate(shorter_s):
        with contextlib.suppress(PeerError):
            await _send(writer, probe, places, sightings, timeout_s)
            return probe + 1
    await _send(writer, len(shorter_s), places, sightings, last_s)
    return len(_FIRST_TIMEOUTS_S)


async def _send(
    writer: asyncio.StreamWriter,
    probe: int,
    places: Sequence[str],
    sightings: _Sightings,
    timeout_s: float,
) -> list[int]:
    """Send a probe; return when it was sent, and when it was seen at each place."""
    sent_ns = time.time_ns()
    writer.write(PROBE_FRAME)
    journey = [sent_ns]
    place = ""
    try:
        async with asyncio.timeout(timeout_s):
            for place in places:
                journey.append(await sightings.at(place, probe))
    except TimeoutError:
        raise PeerError(f"a probe was not {place} within {timeout_s:g} s") from None
    return journey


async def _follow_replies(reader: asyncio.StreamReader, sightings: _Sightings) -> None:
    replies = ReplyDecoder()
    committed = 0
    while data := await reader.read(1 << 16):
        now_ns = time.time_ns()
        for reply in replies.feed(data):
            if isinstance(reply, Committed):
                for probe in range(committed, reply.next_sequence):
                    sightings.note(_COMMITTED, probe, now_ns)
                committed = reply.next_sequence
            elif isinstance(reply, Ack):
                raise PeerError(f"serve-tcp closed the connection: {reply.message}")
    raise PeerError("serve-tcp closed the connection")


async def _follow_aggregate(
    address: str, stream_id: str, sightings: _Sightings, token: str
) -> None:
    def receive(_symbols: SymbolTable, updates: Updates) -> None:
        now_ns = time.time_ns()
        for probe in updates.probes:
            if probe.stream_id == stream_id:
                sightings.note(_APPLIED, probe.sequence, now_ns)

    async with AggregatorClient(address, token=token) as aggregator:
        await aggregator.follow(receive)


async def _follow_gateway(address: str, stream_id: str, sightings: _Sightings, token: str) -> None:
    tls = http_options("gateway", address)
    url = f"{'wss' if tls else 'ws'}://{address}/ws/marketdata?symbol={stream_id}"
    try:
        async with (
            aiohttp.ClientSession(headers=bearer_header(token)) as session,
            session.ws_connect(url, **tls) as socket,
        ):
            async for message in socket:
                now_ns = time.time_ns()
                aggregate = json.loads(message.data)
                if "error" not in aggregate:
                    sightings.note(_SERVED, int(aggregate["volume"]), now_ns)
    except aiohttp.ClientConnectorError as error:
        raise _unreachable("gateway", address, reason_of(error.os_error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _unreachable("gateway", address, str(error)) from error
    raise PeerError(f"gateway {address} closed the connection")


async def _age_ns(gateway: str, token: str) -> int | None:
    """Return the highest age of what the gateway has written lately, None where it is unknown."""
    tls = http_options("gateway", gateway)
    url = f"{'https' if tls else 'http'}://{gateway}/health"
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(TIMEOUT_S), headers=bearer_header(token)
            ) as session,
            session.get(url, **tls) as response,
        ):
            age_ms = (await response.json()).get("age_ms")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _unreachable("gateway", gateway, str(error)) from error
    return None if age_ms is None else int(age_ms * NS_PER_MS)


async def _follow_vwap(address: str, stream_id: str, sightings: _Sightings, token: str) -> None:
    feed = VwapFeedClient(address, frozenset({stream_id}), token)
    try:
        async for lines in feed.lines():
            now_ns = time.time_ns()
            states, errors = decode_states(lines)
            if errors:
                raise errors[0]
            for state in states:
                sightings.note(_PUBLISHED, state.volume, now_ns)
    except PeerError as error:
        raise _unreachable("vwap", address, str(error)) from error


def _unreachable(service: str, address: str, reason: str) -> PeerError:
    return PeerError(f"{service} {address} cannot be reached: {reason}; mdtool serve all runs it")


def _hops(places: Sequence[str], journeys: Sequence[Sequence[int]]) -> list[Hop]:
    sent, *arrived = zip(*journeys, strict=True)
    return [
        Hop(_HOPS[place], [b - a for a, b in zip(sent, times, strict=True)])
        for place, times in zip(places, arrived, strict=True)
    ]
