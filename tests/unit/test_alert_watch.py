"""The detectors of a live market: times, what is kept, and what passes without events."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.batch import Resolver
from mdtool.core.dtypes import TRADE
from mdtool.core.instruments import Instruments
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.core.units import PRICE_SCALE
from mdtool.engine import detect_kernel
from mdtool.engine.detect import DetectRule, Rules
from mdtool.services.alerts import watch as watches
from mdtool.services.alerts.watch import Watch
from mdtool.wire.quotes import Quote

SECOND = 10**9
NOW = 1_700_000_000 * SECOND
SYMBOLS = SymbolTable(["A", "B"])


class Market:
    """A watch, and the clock that it sees."""

    def __init__(self, **rule):
        self.now_ns = NOW
        self.seen = []
        rules = Rules({"*": DetectRule(**{"warm_up": 5, "stale_after_s": 0} | rule)})
        self.watch = Watch(rules, self.seen.extend, lambda: self.now_ns)

    def trade(self, price, after_s=1.0, symbol=0, table=SYMBOLS, ts_ns=None):
        self.now_ns += round(after_s * SECOND)
        at = np.array([self.now_ns if ts_ns is None else ts_ns])
        prices = np.array([price * PRICE_SCALE])
        index = np.array([symbol], np.uint32)
        self.watch.trade(table, Trades(index, prices, np.array([1]), at, at))

    def kinds(self):
        return [(alert.symbol, alert.kind, alert.is_open) for alert in self.seen]


@pytest.fixture
def market():
    made = Market()
    for _ in range(20):
        made.trade(100)
    assert made.seen == []
    return made


def test_an_alert_is_seen_when_it_begins_and_when_it_has_ended(market):
    market.trade(105)
    assert market.kinds() == [("A", "jump", True)]
    market.trade(105, after_s=6)
    assert market.kinds()[1:] == [("A", "jump", False)]
    [alert] = market.watch.alerts("A")
    assert alert == market.seen[-1] == market.watch.latest("A")
    assert alert.ended_ns == alert.begin_ns
    assert market.watch.counts == {("jump", alert.severity): 1}
    assert market.watch.open_count() == 0


def test_symbols_are_the_same_whatever_table_a_feed_has(market):
    market.trade(105, symbol=1, table=SymbolTable(["B", "A"]))
    assert market.kinds() == [("A", "jump", True)]


def test_no_time_passes_while_the_source_is_unavailable(market):
    market.watch.pause()
    market.now_ns += 3_600 * SECOND
    market.watch.advance()
    assert market.seen == []


def test_silence_is_found_once_while_the_clock_goes_on(market):
    market.now_ns += 100 * SECOND
    market.watch.advance()
    assert market.kinds() == [("A", "stale", True)]
    market.now_ns -= 90 * SECOND  # a clock that is set back
    market.watch.advance()
    assert len(market.seen) == 1


def test_a_time_in_the_future_is_now_and_lets_no_other_symbol_be_stale(market):
    market.trade(100, after_s=0.5, symbol=1, ts_ns=NOW + 10**6 * SECOND)
    market.now_ns += SECOND // 2
    market.watch.advance()
    market.trade(100, after_s=0)
    assert market.seen == []


def test_quotes_are_judged_unless_their_book_is_partial():
    for is_partial in (False, True):
        market = Market(crossed_s=0)
        for bid in (99, 101, 99):
            market.now_ns += SECOND
            quote = Quote(
                "A", bid * PRICE_SCALE, 100 * PRICE_SCALE, None, market.now_ns // 10**6, is_partial
            )
            market.watch.quote([quote])
        assert [alert.kind for alert in market.seen] == ["crossed"] * (not is_partial)


class Numbered:
    """A stream of one publisher, of which a watch sees only the numbers."""

    def __init__(self, market, source="sender:1"):
        self.market, self.source = market, source
        self.resolver = Resolver(Instruments(), source)

    def send(self, numbers):
        self.market.now_ns += SECOND
        records = np.zeros(len(numbers), TRADE)
        records["sequence"], records["publisher_id"], records["instrument_id"] = numbers, 1, 7
        records["ts_recv"] = self.market.now_ns
        self.market.watch.number(self.source, self.resolver.batch(records))


def test_a_hole_in_the_numbers_of_a_stream_is_a_gap():
    market = Market()
    stream = Numbered(market)
    stream.send(range(2_000))
    Numbered(market, "sender:2").send(range(50_000, 51_000))  # which has numbers of its own
    stream.send(range(2_000, 2_010))
    assert market.seen == []
    stream.send(range(2_017, 2_020))
    assert market.kinds() == [("7", "gap", True)]
    assert (market.seen[0].value, market.seen[0].baseline) == ("2017", "2009")


def test_a_stream_that_begins_anew_leaves_nothing_out():
    market = Market()
    Numbered(market).send(range(2_000))
    Numbered(market).send(range(9_000, 9_100))
    assert market.seen == []


def test_only_so_many_alerts_are_kept(monkeypatch):
    monkeypatch.setattr(watches, "MAX_ALERTS", 5)
    monkeypatch.setattr(watches, "MAX_OF_SYMBOL", 3)
    market = Market(cool_down_s=0)
    for symbol in (0, 1, 0, 1, 0, 1):
        for price in (100, 200, 200, 200):
            market.trade(price, symbol=symbol)
    kept = {symbol: list(market.watch.alerts(symbol)) for symbol in ("A", "B")}
    assert [len(alerts) for alerts in kept.values()] == [2, 3]
    assert market.watch.symbols() == ["A", "B"]
    assert kept["B"][-1] == market.watch.latest("B")


def test_kernels_are_loaded_before_the_first_event(monkeypatch):
    loaded = []
    for name in ("detect", "advance"):
        kernel = getattr(detect_kernel, name)
        monkeypatch.setattr(
            detect_kernel, name, lambda *args, of=name, run=kernel: loaded.append(of) or run(*args)
        )
    Market()
    assert loaded == ["detect", "advance"]
