"""Bars at their edges: many instruments, long gaps, large amounts, what is no trade."""

from __future__ import annotations

import numpy as np
import pytest

from mdtool.core.batch import Batch
from mdtool.core.dtypes import MBO, MBP1, MBP10, OHLCV, TRADE
from mdtool.core.errors import UsageError
from mdtool.core.trades import Trades
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.engine.bar_stream import GapFill, ohlcv_records, rtype_of, schema_of
from mdtool.engine.bars import BAR, Size, SizedBars, TimeBars
from mdtool.engine.timed_trades import TimedTrades
from tests.reference import bars as reference

SECOND = 10**9


def records(dtype: np.dtype, rows: list[dict[str, object]]) -> np.ndarray:
    array = np.zeros(len(rows), dtype)
    for record, row in zip(array, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return array


def trade(ts: int, price: int = 5, size: int = 1, **fields: object) -> dict[str, object]:
    row = {"action": b"T", "price": price, "size": size, "ts_recv": ts, "ts_event": ts}
    return row | fields


def bars_of(array: np.ndarray, clock: str = "ts_recv") -> list[tuple[int, ...]]:
    engine = TimeBars(10)
    closed = engine.update(TimedTrades.of(Batch.of(array), clock))
    return [*closed.tolist(), *engine.close_all().tolist()]


def test_thousands_of_instruments_and_open_bars():
    rng = np.random.default_rng(3)
    count = 40_000
    instrument = rng.integers(0, 5_000, count)
    price, size = rng.integers(1, 1000, (2, count))
    ts = np.arange(count) + rng.integers(-500, 500, count) + 500
    seen = np.maximum.accumulate(ts)
    engine = TimeBars(100, lateness_ns=2_000)
    trades = Trades(instrument.astype(np.uint32), price, size, ts, ts)
    closed = engine.update(TimedTrades(trades, ts, seen, int(seen[-1])))
    rows = np.stack([instrument, price, size, ts], 1).tolist()
    expected, late = reference.time_bars([reference.Trade(*row) for row in rows], 100, 2_000)
    assert [*closed.tolist(), *engine.close_all().tolist()] == expected
    assert engine.late == late == 0


def test_only_trades_count_and_fills_do_not():
    array = records(
        MBO,
        [
            trade(1, 5, 2),
            trade(2, 9, 2, action=b"F"),
            trade(3, 99, 2, action=b"A"),
            trade(4, 6, 3),
            trade(5, 1, 3, action=b"C"),
        ],
    )
    assert bars_of(array) == [(0, 0, 5, 6, 5, 6, 5, 2)]


def test_time_goes_on_with_records_that_are_no_trades():
    array = records(MBO, [trade(1), trade(10, action=b"A")])
    assert len(TimeBars(10).update(TimedTrades.of(Batch.of(array)))) == 1
    assert len(TimeBars(10).update(TimedTrades.of(Batch.of(array), "ts_event"))) == 0


def test_the_clock_chooses_the_bucket():
    array = records(TRADE, [trade(9, 1, ts_event=9), trade(11, 2, ts_event=9)])
    assert [bar[1] for bar in bars_of(array)] == [0, 10]
    assert bars_of(array, "ts_event") == [(0, 0, 1, 2, 1, 2, 2, 2)]


def test_trades_without_a_price_size_or_time_are_counted_and_left_out():
    array = records(
        TRADE,
        [
            trade(1, UNDEF_PRICE),
            trade(1, size=UNDEF_ORDER_SIZE),
            trade(UNDEF_TIMESTAMP),
            trade(1, 7, 4),
        ],
    )
    trades = TimedTrades.of(Batch.of(array))
    assert trades.undefined == 3
    assert trades.latest_ns == 1
    assert bars_of(array) == [(0, 0, 7, 7, 7, 7, 4, 1)]


def test_a_trade_of_size_0_is_none_and_a_price_of_0_or_below_is_one():
    array = records(TRADE, [trade(1, 7, 0), trade(2, 0, 3), trade(3, -7, 2), trade(4, 9, 0)])
    assert bars_of(array) == [(0, 0, 0, 0, -7, -7, 5, 2)]


def test_nothing_gives_nothing():
    assert bars_of(np.zeros(0, TRADE)) == []
    assert [len(block) for block in GapFill("prev", 10).expand(np.zeros(0, BAR))] == [0]


@pytest.mark.parametrize("cut", [1, 2], ids=["across batches", "within a batch"])
@pytest.mark.parametrize(("mode", "price"), [("prev", 4), ("zero", 0)])
def test_a_gap_is_filled_with_the_last_close_and_no_other_price(mode, price, cut):
    bars = np.array([(1, 0, 1, 9, 0, 4, 7, 2), (1, 30, 5, 8, 2, 6, 3, 3)], BAR)
    fill = GapFill(mode, 10)
    parts = [bars[:cut], bars[cut:]]
    got = [row for part in parts for block in fill.expand(part) for row in block.tolist()]
    fillers = [(1, start, *[price] * 4, 0, 0) for start in (10, 20)]
    assert got == [bars[0].tolist(), *fillers, bars[1].tolist()]


def test_each_instruments_gap_is_filled_with_its_own_close_across_batches():
    fill = GapFill("prev", 10)
    first = np.array([(1, 0, 1, 9, 0, 4, 7, 2), (2, 0, 21, 29, 20, 24, 7, 2)], BAR)
    later = np.array([(2, 20, 5, 8, 2, 6, 3, 3), (1, 20, 5, 8, 2, 6, 3, 3)], BAR)
    assert [block.tolist() for block in fill.expand(first)] == [first.tolist()]
    got = [row for block in fill.expand(later) for row in block.tolist()]
    fillers = [(of, 10, *[close] * 4, 0, 0) for of, close in ((2, 24), (1, 4))]
    assert got == [fillers[0], later[0].tolist(), fillers[1], later[1].tolist()]


def test_publishers_of_one_instrument_id_have_their_own_bars():
    array = records(
        TRADE,
        [
            trade(1, 5, publisher_id=2, instrument_id=2**32 - 1),
            trade(1, 6, publisher_id=1, instrument_id=2**32 - 1),
        ],
    )
    engine, batch = TimeBars(SECOND), Batch.of(array)
    engine.update(TimedTrades.of(batch))
    written = ohlcv_records(engine.close_all(), rtype_of(SECOND), batch.instruments)
    assert written["publisher_id"].tolist() == [2, 1]
    assert written["instrument_id"].tolist() == [2**32 - 1] * 2
    assert written["close"].tolist() == [5, 6]
    assert set(written["length"].tolist()) == {OHLCV.itemsize // 4}


@pytest.mark.parametrize(
    ("interval", "rtype", "schema"),
    [
        (SECOND, 32, "ohlcv-1s"),
        (60 * SECOND, 33, "ohlcv-1m"),
        (3_600 * SECOND, 34, "ohlcv-1h"),
        (86_400 * SECOND, 35, "ohlcv-1d"),
        (5 * SECOND, 17, None),
        (None, 17, None),
    ],
)
def test_records_carry_the_rtype_of_their_cadence(interval, rtype, schema):
    assert rtype_of(interval) == rtype
    assert schema_of(interval) == schema


def test_a_gap_of_a_year_is_filled_in_blocks():
    year = 365 * 86_400
    bars = np.array([(1, 0, 1, 1, 1, 7, 1, 1), (1, year * SECOND, 2, 2, 2, 2, 1, 1)], BAR)
    sizes, total = [], 0
    for block in GapFill("prev", SECOND).expand(bars):
        sizes.append(len(block))
        assert block["start_ns"].tolist() == list(
            range(total * SECOND, (total + len(block)) * SECOND, SECOND)
        )
        total += len(block)
        if total > 10**6:
            break
    assert max(sizes) < 100_000


def test_notional_counts_in_integers_beyond_int64():
    price = 9_000_000_000 * SECOND  # near the largest there is
    size = 2**32 - 2
    array = records(TRADE, [trade(1, price, size), trade(2, -price, 1), trade(3, SECOND // 2, 1)])
    full = SizedBars(Size.parse(f"notional={2**63 - 1}")).update(
        TimedTrades.of(Batch.of(array[:1]))
    )
    assert full["volume"].tolist() == [size]
    engine = SizedBars(Size.parse("notional=9000000000.5"))
    assert engine.update(TimedTrades.of(Batch.of(array[1:])))["count"].tolist() == [2]


def test_thousands_of_instruments_by_ticks():
    instrument = np.tile(np.arange(3_000, dtype=np.uint32), 3)
    ones = np.ones(len(instrument), np.int64)
    engine = SizedBars(Size.parse("ticks=2"))
    trades = Trades(instrument, ones, ones, ones, ones)
    bars = engine.update(TimedTrades(trades, ones, ones, 1))
    assert bars["instrument"].tolist() == list(range(3_000))
    assert engine.close_all()["instrument"].tolist() == list(range(3_000))
    assert len(engine.close_all()) == 0


@pytest.mark.parametrize(
    "text",
    [
        "volume",
        "volume=",
        "volume=0",
        "volume=-5",
        "volume=1.5",
        "ticks=nan",
        "ticks=inf",
        "notional=1e-10",
        "notional=1e30",
        "notional=1e1000000",
        "money=5",
        "",
    ],
)
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match=r"by volume|number"):
        Size.parse(text)


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError):
        TimeBars(0)
    with pytest.raises(UsageError):
        TimeBars(1, -1)
    with pytest.raises(UsageError, match="choose from none, prev, zero"):
        GapFill("next", 1)


@pytest.mark.parametrize("clock", ["ts_recv", "ts_event"])
@pytest.mark.parametrize("layout", [MBO, TRADE, MBP1, MBP10])
def test_trades_are_those_with_a_price_a_size_and_a_time(layout, clock):
    rng = np.random.default_rng(7)
    array = np.zeros(200, layout)
    array["instrument_id"] = rng.integers(1, 4, 200)
    array["action"] = rng.choice([b"T", b"A"], 200, p=[0.8, 0.2])
    array["price"] = rng.choice([-5, 0, 7, UNDEF_PRICE], 200)
    array["size"] = rng.choice([0, 1, UNDEF_ORDER_SIZE - 1, UNDEF_ORDER_SIZE], 200)
    for name in ("ts_event", "ts_recv"):
        times = np.array([0, 3, 10**18, 10**18 + 1, UNDEF_TIMESTAMP], np.uint64)
        array[name] = rng.choice(times, 200)

    timed = TimedTrades.of(Batch.of(array), clock)

    rows, seen, undefined, latest = [], [], 0, -1
    for row, record in enumerate(array):
        at = int(record[clock].view(np.int64))
        is_trade = record["action"] == b"T"
        is_defined = (
            at >= 0
            and record["price"] != UNDEF_PRICE
            and record["size"] not in (0, UNDEF_ORDER_SIZE)
        )
        if clock == "ts_recv" or (is_trade and is_defined):
            latest = max(latest, at)
        undefined += bool(is_trade and not is_defined)
        if is_trade and is_defined:
            rows.append(row)
            seen.append(latest)
    assert timed.trades.price.tolist() == array["price"][rows].tolist()
    assert timed.trades.size.tolist() == array["size"][rows].tolist()
    assert timed.ts_ns.tolist() == array[clock][rows].tolist()
    assert timed.seen_ns.tolist() == seen
    assert (timed.latest_ns, timed.undefined) == (latest, undefined)
    assert timed.records.tobytes() == array[rows].tobytes()
