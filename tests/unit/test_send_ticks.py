"""Ticks paced and encoded."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.adapters.dbn_select import Selection
from mdtool.core.errors import UsageError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import NamedTrades, Trades
from mdtool.services.send import ticks
from mdtool.services.send.ticks import content_stream_id, encoded, limited, paced, tick_pacer
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder

MS = 1_000_000


def run(due_ns, symbols=("AAPL",), symbol=None):
    count = len(due_ns)
    trades = Trades(
        symbol=np.zeros(count, np.uint32) if symbol is None else np.array(symbol, np.uint32),
        price=np.arange(1, count + 1) * 10**9,
        size=np.ones(count, np.int64),
        ts_event=np.full(count, 1_735_201_234_567_000_000),
        ts_recv=np.array(due_ns, np.int64),
    )
    return NamedTrades(SymbolTable(symbols), trades)


async def each(items):
    for item in items:
        yield item


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves, and always a little too far."""

    class Clock:
        now_ns = 5_000 * MS
        slept_s = 0.0

    async def sleep(seconds):
        Clock.slept_s += seconds
        Clock.now_ns += round(seconds * 1e9) + MS // 2

    monkeypatch.setattr(ticks.time, "monotonic_ns", lambda: Clock.now_ns)
    monkeypatch.setattr(ticks.asyncio, "sleep", sleep)
    return Clock


async def when_sent(clock, runs, speed, rate=0.0):
    """Return when each tick was sent, in ms since the first, and in how many runs."""
    sent, count = [], 0
    began_ns = clock.now_ns
    async for part in paced(each(runs), tick_pacer(speed), rate):
        sent += [(clock.now_ns - began_ns) / MS] * len(part)
        count += 1
    return sent, count


async def test_ticks_of_a_market_that_runs_now_are_sent_at_their_own_times(clock, monkeypatch):
    wall_ns = 1_735_201_234_567_000_000
    monkeypatch.setattr(ticks.time, "time_ns", lambda: wall_ns)
    began_ns = clock.now_ns
    times = [wall_ns - 150 * MS, wall_ns - 1, wall_ns, wall_ns + 20 * MS]
    sent = []
    async for part in paced(each([run(times)]), tick_pacer(1.0, is_of_now=True)):
        sent += [(clock.now_ns - began_ns) / MS] * len(part)
    assert sent == [0, 0, 0, 20.5]


async def test_ticks_keep_their_distances(clock):
    sent, _ = await when_sent(clock, [run([100 * MS, 110 * MS]), run([130 * MS])], speed=1.0)
    assert sent == [0, 10.5, 30.5]


async def test_ten_times_the_speed_is_a_tenth_of_the_distance(clock):
    sent, _ = await when_sent(clock, [run([100 * MS, 200 * MS])], speed=10.0)
    assert sent == [0, 10.5]


async def test_what_is_due_together_is_sent_together(clock):
    sent, runs = await when_sent(clock, [run([0, 0, 10 * MS, 10 * MS, 10 * MS])], speed=1.0)
    assert sent == [0, 0, 10.5, 10.5, 10.5]
    assert runs == 2


async def test_without_a_speed_nothing_waits(clock):
    sent, runs = await when_sent(clock, [run([0, 10**18]), run([0])], speed=0.0)
    assert sent == [0, 0, 0]
    assert runs == 2


async def test_a_rate_spaces_ticks_evenly_whatever_their_times(clock):
    runs = [run([7, 7, 7]), run([0, 10**18])]
    sent, _ = await when_sent(clock, runs, speed=1.0, rate=100.0)
    assert sent == [0, 10.5, 20.5, 30.5, 40.5]


async def test_delays_do_not_add_up(clock):
    sent, _ = await when_sent(clock, [run([10 * MS * k for k in range(1_000)])], speed=1.0)
    assert max(at - 10 * k for k, at in enumerate(sent)) < 1


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 5, 9, 10, 11])
def test_a_limit_cuts_where_it_is_reached(limit):
    runs = [run(range(4)), run(range(4)), run(range(2))]
    assert sum(len(part) for part in limited(runs, limit)) == min(limit, 10)


@pytest.mark.parametrize("count", [1, 5, 1_000])
def test_encoded_ticks_are_what_a_server_decodes(count):
    symbols = [f"S{k}" for k in range(500)]
    symbol = [(7 * k) % 500 for k in range(count)]
    index = SymbolIndex()
    data = encoded(run(range(count), symbols, symbol)).data
    trades = TickDecoder(index).feed(data, 1).frames.trades
    assert [index.symbols[k] for k in trades.symbol] == [symbols[k] for k in symbol]
    assert trades.price.tolist() == [k * 10**9 for k in range(1, count + 1)]


def test_files_are_recognised_by_their_content_and_what_is_selected_of_them(tmp_path):
    for name, content in {
        "one": b"ab",
        "copy": b"ab",
        "other": b"ac",
        "a": b"a",
        "b": b"b",
    }.items():
        (tmp_path / name).write_bytes(content)

    def stream_id(*names, **selection):
        chosen = Selection(**selection) if selection else None
        return content_stream_id([str(tmp_path / name) for name in names], chosen)

    assert stream_id("one") == stream_id("copy")
    several = {stream_id("one"), stream_id("other"), stream_id("a", "b"), stream_id("b", "a")}
    several |= {stream_id("one", start_ns=1), stream_id("one", symbols=("AAPL",))}
    assert len(several) == 6
    with pytest.raises(UsageError, match="only files"):
        content_stream_id(["-"])
