"""Rolling VWAPs at their edges: what a window is, growth, what is no trade, records made of it."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.dtypes import OHLCV, STATISTICS, SYMBOL_MAPPING
from mdtool.core.errors import UsageError
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.engine.vwap import RollingVwap, VwapStream, Window
from tests.reference import dbn_streams as streams
from tests.reference import vwap as reference
from tests.support.instruments import bare, batch

MINUTE = 60 * 10**9


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("1", Window(trades=1)),
        ("1000000000", Window(trades=10**9)),
        ("5m", Window(span_ns=5 * MINUTE)),
        ("1h30m", Window(span_ns=90 * MINUTE)),
        ("1ns", Window(span_ns=1)),
    ],
)
def test_a_window_is_a_count_or_a_time(text, window):
    assert Window.parse(text) == window
    assert Window.parse(str(window)) == window


@pytest.mark.parametrize("text", ["0", "", "-1", "1.5", "1000000001", "9" * 5000, "5 m", "0s", "²"])
def test_what_is_neither_is_wrong_usage(text):
    with pytest.raises(UsageError):
        Window.parse(text)


def rolled(window: Window, *rows: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Roll one instrument's (price, volume, time) rows; return VWAP, volume and trades of each."""
    price, volume, ts = np.array(rows, np.int64).reshape(-1, 3).T.copy()
    found = RollingVwap(window).update(np.zeros(len(rows), np.int64), price, volume, ts)
    columns = (found.price.tolist(), found.volume.tolist(), found.trades.tolist())
    return list(zip(*columns, strict=True))


def test_the_oldest_leave_by_count():
    rows = [(100, 1, 0), (200, 3, 0), (-400, 1, 0)]
    assert rolled(Window(trades=2), *rows) == [(100, 1, 1), (175, 4, 2), (50, 4, 2)]


def test_the_oldest_leave_once_they_are_a_whole_span_old():
    rows = [(100, 1, 0), (200, 1, 9), (300, 1, 10), (400, 1, 19)]
    assert [trades for *_, trades in rolled(Window(span_ns=10), *rows)] == [1, 2, 2, 2]


def test_a_late_trade_stays_with_the_latest_and_one_a_span_late_is_in_no_window():
    window = RollingVwap(Window(span_ns=10))
    ts = np.array([100, 91, 90, 105, 110], np.int64)
    ones = np.ones(5, np.int64)
    assert window.update(ones, ones, ones, ts).trades.tolist() == [1, 2, 0, 3, 2]
    assert (window.late, window.early) == (1, 0)


@pytest.mark.parametrize(
    ("first", "vwap"), [(0, 0), (1, 2), (2, 2), (3, 4), (-1, 0), (-2, -2), (-3, -2)]
)
def test_halves_are_rounded_to_even(first, vwap):
    assert rolled(Window(trades=2), (first, 1, 0), (first + 1, 1, 0))[1] == (vwap, 2, 2)
    assert rolled(Window(trades=2), (first + 1, 1, 0), (first, 1, 0))[1] == (vwap, 2, 2)


def test_a_window_without_volume_has_no_vwap():
    rows = [(5, 0, 0), (7, 2, 0), (9, 0, 0), (1, 0, 0)]
    assert rolled(Window(trades=2), *rows) == [
        (UNDEF_PRICE, 0, 1),
        (7, 2, 2),
        (7, 2, 2),
        (UNDEF_PRICE, 0, 2),
    ]


def test_more_volume_than_fits_lets_the_oldest_leave_early():
    window = RollingVwap(Window(trades=10))
    volume = np.array([2**62, 2**62, 2**62, 1], np.int64)
    price = np.array([1, 2, 3, 4], np.int64) * 10**9
    found = window.update(np.zeros(4, np.int64), price, volume, volume)
    assert found.trades.tolist() == [1, 1, 1, 2]
    assert found.price.tolist() == [10**9, 2 * 10**9, 3 * 10**9, 3 * 10**9]
    assert window.early == 2


def test_thousands_of_instruments_with_windows_of_any_length():
    random = np.random.default_rng(5)
    n = 30_000
    columns = [
        random.integers(0, 3_000, n),
        random.integers(-(10**12), 10**12, n),
        random.integers(1, 2**32, n),
        np.arange(n),
    ]
    trades = [reference.Trade(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    expected, _, _ = reference.rolling(trades, most=7)
    found = RollingVwap(Window(trades=7)).update(*columns)
    assert found.price.tolist() == [vwap.price for vwap in expected]


def test_memory_is_what_windows_hold_however_long_the_stream_is():
    window = RollingVwap(Window(trades=100))
    held = window._entries.nbytes
    ones = np.ones(100_000, np.int64)
    for _ in range(5):
        window.update(ones, ones, ones, ones)
    assert window._entries.nbytes == held
    assert int(window._state[1]) <= 3  # chunks ever taken: they go round


def test_records_of_trades_give_statistics_and_others_do_not():
    records = streams.mbo(6)
    stream = VwapStream(RollingVwap(Window(trades=2)))
    [made] = bare(stream.update(batch(records)))
    assert made.dtype == STATISTICS
    assert made["rtype"].tolist() == [24, 24]
    assert made["stat_type"].tolist() == [13, 13]
    for name in ("publisher_id", "instrument_id", "ts_event", "ts_recv", "sequence"):
        assert made[name].tolist() == records[name][::3].tolist()
    assert made["price"].tolist() == [100 * 10**9, 103 * 10**9]
    assert made["quantity"].tolist() == [1, 4]
    assert (made["ts_ref"] == UNDEF_TIMESTAMP).all()
    assert [*stream.update(batch(np.zeros(3, OHLCV)))] == []
    mappings = batch(np.zeros(1, SYMBOL_MAPPING))
    [passed] = stream.update(mappings)
    assert passed is mappings
    assert stream.trades == 2


def test_trades_without_price_size_or_time_are_left_out_and_counted():
    records = streams.trades(5)
    records["instrument_id"] = 1
    records["price"][0] = UNDEF_PRICE
    records["size"][1] = UNDEF_ORDER_SIZE
    records["ts_recv"][2] = UNDEF_TIMESTAMP
    stream = VwapStream(RollingVwap(Window(trades=10)))
    [made] = bare(stream.update(batch(records)))
    assert made["sequence"].tolist() == [3, 4]
    assert (stream.trades, stream.undefined, stream.late) == (2, 3, 0)


def test_a_trade_that_is_late_by_the_whole_window_gives_no_statistic():
    records = streams.trades(3)
    records["instrument_id"] = 1
    records["ts_recv"][2] = records["ts_recv"][1] - np.uint64(MINUTE)
    stream = VwapStream(RollingVwap(Window(span_ns=MINUTE)))
    [made] = bare(stream.update(batch(records)))
    assert made["sequence"].tolist() == [0, 1]
    assert stream.late == 1
