"""`serve --check`: marked ticks through running services, and the time of each hop."""

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
from mdtool.adapters.vwap_feed import VwapFeedClient, decode_states
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import first_error
from mdtool.core.symbols import SymbolTable
from mdtool.core.tcp import reason_of
from mdtool.core.units import NS_PER_MS, PRICE_SCALE
from mdtool.wire.batches import Updates
from mdtool.wire.frames import Committed, ReplyDecoder, encode_hello
from mdtool.wire.tick_encoder import encode_frames

SYMBOL: Final = "MDTOOL.CHECK"
"""The symbol of the ticks, which remains in the services that were checked."""
TIMEOUT_S: Final = 5.0
"""How long a tick may take to all services."""
_FIRST_TIMEOUTS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""How long the first ticks may take, one after the other: a minute in all.

New services compile their kernels, and one that was just restarted may have peers that do not
follow it yet. What these missed is never sent again, so another tick is sent.
"""

_ACCEPTED: Final = "accepted by serve-tcp"
_COMMITTED: Final = "committed by aggregate"
_SERVED: Final = "sent by gateway"
_PUBLISHED: Final = "sent by vwap"
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
    """The times of ticks from one place to another, in nanoseconds, one entry a tick."""

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


async def check(route: Route, ticks: int) -> list[Hop]:
    """Send marked ticks, each once the one before has arrived everywhere.

    Uncounted ticks precede them until one has arrived everywhere. The time at which the ingest
    server accepts a tick is by its own clock: between machines, figures depend on both clocks.

    Parameters
    ----------
    route : Route
        The services.
    ticks : int
        How many ticks count, from 1.

    Raises
    ------
    PeerError
        When a service cannot be reached, or a tick does not arrive.
    """
    places = [_ACCEPTED, _COMMITTED]
    places += [] if route.gateway is None else [_SERVED]
    places += [] if route.vwap is None else [_PUBLISHED]
    try:
        async with asyncio.TaskGroup() as tasks, _connection(route.serve_tcp) as (reader, writer):
            sightings = _Sightings()
            followers = [
                tasks.create_task(_follow_replies(reader, sightings)),
                tasks.create_task(_follow_aggregate(route.aggregate, sightings)),
            ]
            if route.gateway is not None:
                followers.append(tasks.create_task(_follow_gateway(route.gateway, sightings)))
            if route.vwap is not None:
                followers.append(tasks.create_task(_follow_vwap(route.vwap, sightings)))
            writer.write(encode_hello(f"check-{uuid.uuid4()}"))
            first = await _warm_up(writer, places, sightings)
            journeys = [
                await _send(writer, tick, places, sightings, TIMEOUT_S)
                for tick in range(first, first + ticks)
            ]
            for follower in followers:
                follower.cancel()
    except ExceptionGroup as group:
        raise first_error(group) from group
    hops = _hops(places, journeys)
    if route.gateway is not None and (age_ns := await _age_ns(route.gateway)) is not None:
        hops.append(Hop(_OLDEST, [age_ns]))
    return hops


class _Sightings:
    """When each tick was first seen at each place, in nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._seen: dict[tuple[str, int], asyncio.Future[int]] = {}
        self.since_ns = time.time_ns()
        """Older ticks are of another check."""

    def at(self, place: str, tick: int) -> asyncio.Future[int]:
        """Return a future of the time at which the tick is seen at a place."""
        return self._seen.setdefault((place, tick), self._loop.create_future())

    def note(self, place: str, tick: int, when_ns: int) -> None:
        """Record that the tick was seen at a place."""
        seen = self.at(place, tick)
        if not seen.done():
            seen.set_result(when_ns)


@contextlib.asynccontextmanager
async def _connection(
    address: str,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_connection(*parse_address(address))
    except OSError as error:
        raise _unreachable("serve-tcp", address, reason_of(error)) from error
    try:
        yield reader, writer
    finally:
        writer.close()


async def _warm_up(
    writer: asyncio.StreamWriter, places: Sequence[str], sightings: _Sightings
) -> int:
    """Send ticks until one is seen everywhere; return the number of the next."""
    *shorter_s, last_s = _FIRST_TIMEOUTS_S
    for tick, timeout_s in enumerate(shorter_s):
        with contextlib.suppress(PeerError):
            await _send(writer, tick, places, sightings, timeout_s)
            return tick + 1
    await _send(writer, len(shorter_s), places, sightings, last_s)
    return len(_FIRST_TIMEOUTS_S)


async def _send(
    writer: asyncio.StreamWriter,
    tick: int,
    places: Sequence[str],
    sightings: _Sightings,
    timeout_s: float,
) -> list[int]:
    """Send a tick; return when it was sent, and when it was seen at each place."""
    sent_ns = time.time_ns()
    writer.write(encode_frames([SYMBOL], [0], [_price(tick)], [1], [sent_ns]).data)
    journey = [sent_ns]
    place = ""
    try:
        async with asyncio.timeout(timeout_s):
            for place in places:
                journey.append(await sightings.at(place, tick))
    except TimeoutError:
        raise PeerError(f"a tick was not {place} within {timeout_s:g} s") from None
    return journey


async def _follow_replies(reader: asyncio.StreamReader, sightings: _Sightings) -> None:
    replies = ReplyDecoder()
    committed = 0
    while data := await reader.read(1 << 16):
        now_ns = time.time_ns()
        for reply in replies.feed(data):
            if isinstance(reply, Committed):
                for tick in range(committed, reply.next_sequence):
                    sightings.note(_COMMITTED, tick, now_ns)
                committed = reply.next_sequence
    raise PeerError("serve-tcp closed the connection")


async def _follow_aggregate(address: str, sightings: _Sightings) -> None:
    def receive(symbols: SymbolTable, updates: Updates) -> None:
        for at in (updates.symbol == symbols.find(SYMBOL)).nonzero()[0].tolist():
            if updates.timestamp[at] >= sightings.since_ns:
                tick = _tick(int(updates.close[at]))
                sightings.note(_ACCEPTED, tick, int(updates.ingest_timestamp[at]))

    async with AggregatorClient(address) as aggregator:
        await aggregator.follow(receive)


async def _follow_gateway(address: str, sightings: _Sightings) -> None:
    url = f"ws://{address}/ws/marketdata?symbol={SYMBOL}"
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            async for message in socket:
                now_ns = time.time_ns()
                aggregate = json.loads(message.data)
                if (
                    "error" not in aggregate
                    and aggregate["timestamp"] >= sightings.since_ns // NS_PER_MS
                ):
                    tick = _tick(round(aggregate["close"] * PRICE_SCALE))
                    sightings.note(_SERVED, tick, now_ns)
    except aiohttp.ClientConnectorError as error:
        raise _unreachable("gateway", address, reason_of(error.os_error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _unreachable("gateway", address, str(error)) from error
    raise PeerError(f"gateway {address} closed the connection")


async def _age_ns(gateway: str) -> int | None:
    """Return the highest age of what the gateway has written lately, None where it is unknown."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as session,
            session.get(f"http://{gateway}/health") as response,
        ):
            age_ms = (await response.json()).get("age_ms")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _unreachable("gateway", gateway, str(error)) from error
    return None if age_ms is None else int(age_ms * NS_PER_MS)


async def _follow_vwap(address: str, sightings: _Sightings) -> None:
    feed = VwapFeedClient(address, frozenset({SYMBOL}))
    try:
        async for lines in feed.lines():
            now_ns = time.time_ns()
            states, errors = decode_states(lines)
            if errors:
                raise errors[0]
            for state in states:
                if state.timestamp_ns >= sightings.since_ns:
                    sightings.note(_PUBLISHED, _tick(state.price), now_ns)
    except PeerError as error:
        raise _unreachable("vwap", address, str(error)) from error


def _unreachable(service: str, address: str, reason: str) -> PeerError:
    return PeerError(f"{service} {address} cannot be reached: {reason}; mdtool serve all runs it")


def _price(tick: int) -> int:
    """Return the price that identifies a tick: whole dollars from 1."""
    return (tick + 1) * PRICE_SCALE


def _tick(price: int) -> int:
    return price // PRICE_SCALE - 1


def _hops(places: Sequence[str], journeys: Sequence[Sequence[int]]) -> list[Hop]:
    sent, *arrived = zip(*journeys, strict=True)
    at = dict(zip(places, arrived, strict=True))
    hops = [
        _hop("client to serve-tcp", sent, at[_ACCEPTED]),
        _hop("serve-tcp to aggregate, committed", at[_ACCEPTED], at[_COMMITTED]),
    ]
    if _SERVED in at:
        hops.append(_hop("serve-tcp to gateway, served", at[_ACCEPTED], at[_SERVED]))
    if _PUBLISHED in at:
        hops.append(_hop("serve-tcp to vwap, published", at[_ACCEPTED], at[_PUBLISHED]))
    if _SERVED in at:
        hops.append(_hop("client to gateway, in all", sent, at[_SERVED]))
    return hops


def _hop(name: str, begin: Sequence[int], end: Sequence[int]) -> Hop:
    return Hop(name, [b - a for a, b in zip(begin, end, strict=True)])
