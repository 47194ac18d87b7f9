"""Sessions that roll equal those of a plain reference, however ticks are cut, and restored."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.adapters.stores import open_store
from mdtool.adapters.stores.steps import Steps
from mdtool.core.buckets import CalendarBuckets, EvenBuckets, parse_sessions
from mdtool.core.errors import UsageError
from mdtool.core.trades import Frames, Trades
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market

HOUR = 3_600 * 10**9
DAY = 24 * HOUR
MARCH_8 = 1_709_856_000 * 10**9
"""2024-03-08T00:00Z, two days before the clock of New York goes forward."""
CHICAGO = CalendarBuckets("d", "America/Chicago", "17:00")
SESSIONS = [EvenBuckets(DAY), CHICAGO, parse_sessions("never")]

ticks = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(-3, 9),
        st.integers(1, 5),
        st.integers(0, 24 * 5).map(lambda hours: MARCH_8 + hours * HOUR),
    ),
    max_size=40,
)
cuts = st.lists(st.integers(0, 40), max_size=4)


@dataclass
class Plain:
    """The sessions of one symbol: trades by the number of their day, of the last two only."""

    trades: dict[int, list] = field(default_factory=dict)
    late: int = 0

    def take(self, day: int, price: int, size: int) -> None:
        latest = max(self.trades, default=day)
        if day > latest:
            self.trades = {latest: self.trades[latest]}
        elif day < latest and day not in self.trades and len(self.trades) == 2:
            self.late += 1
            return
        self.trades.setdefault(day, []).append((price, size))

    def row(self, day: int):
        trades = self.trades.get(day)
        if trades is None:
            return None
        prices = [price for price, _ in trades]
        volume = sum(size for _, size in trades)
        return (prices[0], max(prices), min(prices), prices[-1], volume, len(trades))


def market_of(buckets) -> Market:
    market = Market(LiveBars([10**9]), max_symbols=4, max_streams=4, sessions=buckets)
    market.intern("A")
    market.intern("B")
    return market


def batch(rows) -> Frames:
    symbol, price, size, ts = np.array(rows, np.int64).reshape(-1, 4).T
    return Frames.of(Trades(symbol.astype(np.uint32), price.copy(), size.copy(), ts.copy(), ts + 1))


def parts(rows, cuts):
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    return [(begin, rows[begin:end]) for begin, end in pairwise(edges)]


def compare(market: Market, plain: dict[int, Plain]) -> None:
    for symbol, sessions in plain.items():
        days = sorted(sessions.trades)
        current = market.session(symbol)
        assert current.item()[:6] == sessions.row(days[-1])
        before = market.past_session(symbol)
        expected = sessions.row(days[-2]) if len(days) == 2 else None
        assert (None if before is None else before.item()[:6]) == expected
        for day in days:
            assert market.past_session(symbol, day).item()[:6] == sessions.row(day)
        assert market.past_session(symbol, days[0] - 1) is None
    totals = market.totals()
    assert totals["late_for_sessions"] == sum(each.late for each in plain.values())
    inside = sum(len(each.trades[max(each.trades)]) for each in plain.values())
    assert totals["past_sessions"] + inside == totals["ticks"]


def expected(rows, buckets) -> dict[int, Plain]:
    plain: dict[int, Plain] = {}
    for symbol, price, size, ts in rows:
        day = int(buckets.numbers(np.array([ts]))[0])
        plain.setdefault(symbol, Plain()).take(day, price, size)
    return plain


@given(ticks, cuts, st.sampled_from(SESSIONS))
def test_sessions_are_those_of_the_reference(rows, cuts, buckets):
    market = market_of(buckets)
    for begin, part in parts(rows, cuts):
        market.apply("s", begin, batch(part))
    compare(market, expected(rows, buckets))


@settings(max_examples=12)
@given(ticks, cuts, st.sampled_from(SESSIONS), st.integers(0, 40))
def test_a_stored_market_rolls_on_where_it_was(tmp_path_factory, rows, cuts, buckets, restart):
    url = f"sqlite:///{tmp_path_factory.mktemp('sessions') / 's.db'}?synchronous=normal"
    with open_store(url) as store:
        market = market_of(buckets)
        steps = Steps(market)
        for begin, part in parts(rows, [*cuts, restart]):
            if begin == restart:
                market = market_of_saved(store, buckets)
                steps = Steps(market)
            own = [(market.intern("AB"[symbol]), *rest) for symbol, *rest in part]
            change = market.apply("s", begin, batch(own))
            step = steps.take([change])
            store.write(step)
            store.write(step)
        names = [*market_of_saved(store, buckets).symbols]
        restored = market_of_saved(store, buckets)
        plain = expected(rows, buckets)
        compare(restored, {names.index("AB"[symbol]): each for symbol, each in plain.items()})


def market_of_saved(store, buckets) -> Market:
    market = Market(LiveBars([10**9]), max_symbols=4, max_streams=4, sessions=buckets)
    market.restore(store.load(10, 0))
    for name in ("A", "B"):
        market.intern(name)
    return market


def test_a_change_of_the_clock_makes_a_session_shorter():
    market = market_of(CHICAGO)
    evening = MARCH_8 + 2 * DAY + 22 * HOUR  # on Sunday, 17:00 in summer
    market.apply("s", 0, batch([(0, 5, 1, evening - 1), (0, 6, 1, evening)]))
    assert market.session(0)["open"] == 6
    assert market.past_session(0)["open"] == 5


@pytest.mark.parametrize("text", ["25:00", "17:00 Mars", "noon", "", "17:00Europe/Berlin"])
def test_sessions_that_are_none_are_rejected(text):
    with pytest.raises(UsageError):
        parse_sessions(text)
