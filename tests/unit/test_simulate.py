"""The synthetic exchange keeps to DBN's forms and behaves as a real market does."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from mdtool.core.dtypes import F_LAST, F_SNAPSHOT, MBO, MBP1, TRADE
from mdtool.core.errors import UsageError
from mdtool.core.records import trades_of
from mdtool.core.units import NS_PER_S, UNDEF_PRICE
from mdtool.engine.simulate import Exchange
from mdtool.engine.simulate_defaults import (
    EVENTS_PER_TRADE,
    MAX_SYMBOLS,
    PUBLISHER_ID,
    RATE,
    START_NS,
    SYMBOLS,
)

DEFAULT_PRICES = {"AAPL": 243.85, "MSFT": 418.58, "GOOG": 190.63, "AMZN": 220.22, "TSLA": 379.28}


@pytest.fixture(scope="module")
def day() -> np.ndarray:
    return Exchange().generate(1_000_000)


def live(records: np.ndarray) -> np.ndarray:
    return records[(records["flags"] & F_SNAPSHOT) == 0]


def test_records_are_dbn(day):
    assert day.dtype == MBO
    assert set(day["length"]) == {14}
    assert set(day["rtype"]) == {160}
    assert set(day["publisher_id"]) == {PUBLISHER_ID}
    assert sorted(set(day["instrument_id"])) == list(Exchange().instruments)


def test_each_book_opens_with_a_snapshot(day):
    is_clear = day["action"] == b"R"
    assert day["instrument_id"][is_clear].tolist() == [1, 2, 3, 4, 5]
    assert day["price"][is_clear].tolist() == [UNDEF_PRICE] * 5
    snapshots = day[(day["flags"] & F_SNAPSHOT) != 0]
    assert set(snapshots["action"]) == {b"R", b"A"}
    assert set(snapshots["ts_recv"]) == {START_NS}
    assert (snapshots["ts_event"] < START_NS).all()
    assert np.count_nonzero(snapshots["flags"] & F_LAST) == len(SYMBOLS)


def test_trades_are_the_t_records(day):
    trades = Exchange().generate(1_000_000, "trades")
    assert trades.dtype == TRADE
    assert trades.tobytes() == trades_of(day).tobytes()


def test_quotes_are_mbp1():
    quotes = Exchange().generate(10_000, "mbp-1")
    assert quotes.dtype == MBP1
    assert set(quotes["length"]) == {20}
    assert set(quotes["rtype"]) == {1}
    assert quotes["bid_px_00"][0] != UNDEF_PRICE
    assert quotes["ask_px_00"][0] == UNDEF_PRICE
    assert (quotes["ask_sz_00"][0], quotes["ask_ct_00"][0]) == (0, 0)


def test_a_seed_is_a_market_of_its_own():
    first, second = (Exchange(seed=seed).generate(5_000) for seed in (1, 2))
    assert (first["price"][:5_000] != second["price"][:5_000]).any()
    again = Exchange(seed=2**64 - 1).generate(5_000)
    assert again.tobytes() == Exchange(seed=2**64 - 1).generate(5_000).tobytes()


@pytest.mark.parametrize("rate", [0.01, RATE, 1e7])
def test_events_come_at_the_rate(rate):
    records = live(Exchange(rate=rate).generate(500_000))
    events = np.count_nonzero(records["flags"] & F_LAST)
    seconds = (int(records["ts_event"][-1]) - START_NS) / NS_PER_S
    assert events / seconds == pytest.approx(rate, rel=0.01)


def test_trades_come_once_in_so_many_events(day):
    trades = trades_of(day)
    seconds = (int(trades["ts_event"][-1]) - START_NS) / NS_PER_S
    assert len(trades) / seconds == pytest.approx(RATE / EVENTS_PER_TRADE, rel=0.03)


def test_events_come_in_bursts(day):
    gaps = np.diff(np.unique(live(day)["ts_event"]).astype(np.int64))
    assert gaps.std() > 1.2 * gaps.mean()


def test_the_mix_of_events_is_that_of_a_real_future(day, real_data):
    raw = (real_data / "CLX5_mbo.dbn").read_bytes()
    real = np.frombuffer(raw, MBO, offset=8 + int.from_bytes(raw[4:8], "little"))
    ours, theirs = shares_of_events(live(day)), shares_of_events(real)
    for kind in "ACMT":
        assert ours[kind] == pytest.approx(theirs[kind], abs=0.03)


def shares_of_events(records: np.ndarray) -> dict[str, float]:
    """Return how common events are that begin with each action."""
    begins = np.append(True, (records["flags"][:-1] & F_LAST) != 0)
    counts = Counter(records["action"][begins].astype(str).tolist())
    return {kind: counts[kind] / counts.total() for kind in "ACMT"}


def test_prices_begin_where_the_symbols_trade_and_walk():
    exchange = Exchange()
    quotes = exchange.generate(2_000_000, "mbp-1")
    for instrument_id, symbol in exchange.instruments.items():
        mid = live(quotes[quotes["instrument_id"] == instrument_id])
        bid, ask = mid["bid_px_00"] / 1e9, mid["ask_px_00"] / 1e9
        assert bid[0] == pytest.approx(DEFAULT_PRICES[symbol], abs=0.05)
        assert 0.3 < bid.max() - bid.min() < 40
        assert np.median(np.round((ask - bid) * 100)) in (1, 2)


def test_books_stay_as_full_as_they_opened_and_prices_near_the_anchor():
    exchange = Exchange(["CHEAP", "B"], rate=1e6)
    for _ in range(40):
        quotes = live(exchange.generate(250_000, "mbp-1"))
        spread = quotes["ask_px_00"] - quotes["bid_px_00"]
        assert spread.min() > 0
        assert np.percentile(spread, 99) < 0.3e9
        assert quotes["bid_px_00"].min() > 0


def test_an_unknown_symbol_always_has_the_same_price():
    alone = Exchange(["ZZZ"], seed=1).generate(10)["price"][1]
    among = Exchange(["AAPL", "ZZZ"], seed=2).generate(200)
    other = among[among["instrument_id"] == 2]["price"][1]
    assert abs(int(alone) - int(other)) < 0.5e9


def test_the_busiest_symbols_come_first(day):
    counts = np.bincount(live(day)["instrument_id"])[1:]
    assert (np.diff(counts) < 0).all()


def test_as_many_symbols_as_there_may_be():
    exchange = Exchange([f"S{n}" for n in range(MAX_SYMBOLS)], rate=1e6)
    records = exchange.generate(MAX_SYMBOLS * 129 + 200_000)
    assert len(set(live(records)["instrument_id"])) == MAX_SYMBOLS


def test_memory_stays_the_same_however_long_it_runs():
    exchange = Exchange()
    exchange.generate(10_000)
    tracemalloc.start()
    try:
        for _ in range(30):
            exchange.generate(10_000)
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 100_000
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"symbols": []}, "0 symbols"),
        ({"symbols": [str(n) for n in range(MAX_SYMBOLS + 1)]}, "2001 symbols"),
        ({"symbols": ["A", "B", "A"]}, "given twice"),
        ({"symbols": [""]}, "not a symbol"),
        ({"symbols": ["A" * 71]}, "not a symbol"),
        ({"symbols": ["É"]}, "not a symbol"),
        ({"symbols": ["A\n"]}, "not a symbol"),
        ({"symbols": [" A"]}, "not a symbol"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
        ({"rate": 0.0}, "rate 0: give from 0.01"),
        ({"rate": 2e8}, "rate 2e"),
        ({"rate": float("nan")}, "rate nan"),
        ({"rate": float("inf")}, "rate inf"),
        ({"start_ns": 0}, "start 1970"),
        ({"start_ns": 8 * 10**18}, "start 2223"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    with pytest.raises(UsageError, match=message):
        Exchange(**parameters)


def test_an_unknown_schema_is_refused():
    with pytest.raises(UsageError, match="choose from mbo, trades, mbp-1"):
        Exchange().generate(1, "mbp-10")
