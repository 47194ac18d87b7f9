"""The client of a VWAP feed: lost connections are opened again, less and less often up to a cap."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from mdtool.adapters import vwap_feed
from mdtool.adapters.vwap_feed import VwapFeedClient, decode_states
from mdtool.wire.vwap_lines import VwapState, encode_state

FIRST_S, LONGEST_S = 0.001, 0.008
JITTER = 0.25


class EnoughError(Exception):
    """The listener has seen what it waits for."""


class Listener:
    """Remembers what it was notified of, and ends the client after some losses."""

    def __init__(self, losses: int) -> None:
        self.delays: list[float] = []
        self.attempts: list[int] = []
        self.reasons: list[str] = []
        self.lines: list[bytes] = []
        self.connections = 0
        self._losses = losses

    def connected(self) -> None:
        self.connections += 1

    def received(self, lines: list[bytes]) -> None:
        self.lines += lines

    def lost(self, reason: str, delay_s: float, attempts: int) -> None:
        self.reasons.append(reason)
        self.delays.append(delay_s)
        self.attempts.append(attempts)
        if len(self.delays) == self._losses:
            raise EnoughError


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(vwap_feed, "FIRST_DELAY_S", FIRST_S)
    monkeypatch.setattr(vwap_feed, "LONGEST_DELAY_S", LONGEST_S)


@contextlib.asynccontextmanager
async def served(*answers: bytes):
    """A server that sends each connection the next answer, then nothing, and closes it."""
    waiting = iter(answers)

    async def serve(_reader, writer):
        writer.write(next(waiting, b""))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def followed(address: str, losses: int, symbols: frozenset[str] | None = None) -> Listener:
    listener = Listener(losses)
    with pytest.raises(EnoughError):
        await VwapFeedClient(address, symbols).follow(listener)
    return listener


def doubled(n: int) -> list[float]:
    return [min(FIRST_S * 2**number, LONGEST_S) for number in range(n)]


async def test_a_feed_that_closes_at_once_is_tried_less_and_less_often_up_to_a_cap():
    async with served() as address:
        listener = await followed(address, losses=7)
    assert listener.delays == pytest.approx(doubled(7), rel=JITTER)
    assert listener.attempts == [1, 2, 3, 4, 5, 6, 7]
    assert set(listener.reasons) == {"the feed closed the connection"}
    assert listener.connections == 7


async def test_a_port_that_is_closed_too():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, so that no other process takes it
        listener = await followed("{}:{}".format(*holder.getsockname()), losses=5)
    assert listener.delays == pytest.approx(doubled(5), rel=JITTER)
    assert set(listener.reasons) == {"Connection refused"}
    assert listener.connections == 0


async def test_a_line_resets_the_delay():
    async with served(b"", b"", b"", b"a line\nhalf a li") as address:
        listener = await followed(address, losses=6)
    assert listener.lines == [b"a line"]
    assert listener.delays == pytest.approx([*doubled(3), *doubled(3)], rel=JITTER)
    assert listener.attempts == [1, 2, 3, 1, 2, 3]


async def test_a_peer_that_does_not_send_lines_is_disconnected():
    async with served(b"x" * (vwap_feed.MAX_LINE_BYTES + 1)) as address:
        listener = await followed(address, losses=1)
    assert listener.reasons == ["the peer does not send lines: it is not a VWAP feed"]


def line_of(symbol: str) -> bytes:
    return encode_state(VwapState(symbol, 10**9, 1, 10**9, 1, 1))


async def test_states_of_other_symbols_are_dropped_and_other_lines_kept():
    async with served(line_of("A") + b"garbage\n" + line_of("B")) as address:
        listener = await followed(address, 1, frozenset({"B"}))
    states, errors = decode_states(listener.lines)
    assert [state.symbol for state in states] == ["B"]
    assert [str(error) for error in errors] == ["'garbage' is not JSON"]
