"""Trades of captures and files, whatever schemas show them."""

from __future__ import annotations

import io
import logging

import databento_dbn as dbn
import numpy as np
import pytest

import mdtool
from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_source import DbnSource
from mdtool.adapters.dbn_trades import TradeSource
from mdtool.core.errors import InputError
from mdtool.core.instruments import Instruments
from mdtool.wire.dbn_records import RTYPES
from tests.support.dbn_files import DAY, HOUR, MAY_1, header, mapping, order, trade, write

MINUTE = 60 * 10**9
CALLS = {"price": 100 * 10**9, "action": dbn.Action.TRADE, "side": dbn.Side.BID}
SCHEMAS = ("trades", "mbo", "tcbbo", "mbp-1", "tbbo", "cmbp-1", "mbp-10")


def shown(schema, ts, size=1, price=100, instrument_id=1, publisher_id=2):
    """A trade as a schema's records show it."""
    if schema == "trades":
        return trade(instrument_id, ts, price, size, publisher_id)
    if schema == "mbo":
        return order(instrument_id, ts, "T", "B", price, size, publisher_id=publisher_id)
    head = {
        "publisher_id": publisher_id,
        "instrument_id": instrument_id,
        "ts_event": ts,
        "ts_recv": ts,
        "ts_in_delta": 0,
        "flags": 128,
        "size": size,
    }
    calls = CALLS | {"price": price * 10**9} | head
    if schema in {"tcbbo", "cmbp-1"}:
        return bytes(dbn.CMBP1Msg(rtype=RTYPES[schema], **calls))
    if schema == "mbp-10":
        return bytes(dbn.MBP10Msg(depth=0, sequence=0, **calls))
    return bytes(dbn.MBP1Msg(depth=0, sequence=0, **calls))


def bar(ts, open_, high, low, close, volume, rtype=33, instrument_id=1):
    prices = {"open": open_, "high": high, "low": low, "close": close}
    return bytes(
        dbn.OHLCVMsg(
            rtype=rtype,
            publisher_id=2,
            instrument_id=instrument_id,
            ts_event=ts,
            volume=volume,
            **{name: price * 10**9 for name, price in prices.items()},
        )
    )


NAMES = {"ESM4": {1: 1}, "NQM4": {1: 2}}


def capture(path, *records, names=NAMES):
    """A live capture: no schema in its header, names in its records."""
    mappings = [
        mapping(number, name, MAY_1) for name, ids in names.items() for number in ids.values()
    ]
    return write(path, header({}, schema=None), *mappings, *records)


def totals(*paths, **options):
    """The volume by symbol that bars have."""
    made = mdtool.bars(list(paths), interval="1d", **options)
    found: dict[str, int] = {}
    for symbol, volume in zip(made.symbols, made.records["volume"].tolist(), strict=True):
        found[symbol] = found.get(symbol, 0) + volume
    return found


def rows(made):
    fields = ("ts_event", "open", "high", "low", "close", "volume")
    return [tuple(row[name] for name in fields) for row in made.records]


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("named", [True, False])
def test_every_schema_that_shows_trades_has_them(tmp_path, schema, named):
    records = [shown(schema, MAY_1 + n, size) for n, size in enumerate((5, 6, 7))]
    path = tmp_path / "f.dbn"
    if named:
        write(path, header(NAMES, schema), *records)
    else:
        capture(path, *records)
    assert totals(path) == {"ESM4": 18}
    (trades,) = mdtool.read(path, schema="trades")
    assert trades.records["size"].tolist() == [5, 6, 7]
    assert trades.records["rtype"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("first", SCHEMAS)
def test_views_of_one_trade_are_counted_once(tmp_path, caplog, first):
    views = [first, *(schema for schema in SCHEMAS if schema != first)]
    times = [(MAY_1 + n * 10**9, size) for n, size in enumerate((5, 6, 7))]
    path = capture(tmp_path / "f.dbn", *(shown(v, ts, n) for ts, n in times for v in views))
    assert totals(path) == {"ESM4": 18}
    (said,) = caplog.messages
    # The first trade was counted before a preferred view of it came; tbbo is told from mbp-1 by no
    # record, so that six views are told apart.
    later = 2 if first != "trades" else 3
    assert f"{later} by trades" in said
    assert "--schema chooses another view" in said


def test_another_view_is_chosen(tmp_path, caplog):
    path = capture(
        tmp_path / "f.dbn",
        shown("trades", MAY_1, 5),
        shown("mbo", MAY_1, 5),
        shown("mbo", MAY_1 + 1, 6),
    )
    assert totals(path) == {"ESM4": 5}
    assert "1 of those left out came after the last one counted" in caplog.messages[-1]
    assert totals(path, schema="mbo") == {"ESM4": 11}
    assert totals(path, schema="trades") == {"ESM4": 5}


def test_each_instrument_has_its_own_view(tmp_path):
    path = capture(
        tmp_path / "f.dbn",
        shown("trades", MAY_1, 5),
        shown("mbo", MAY_1 + 1, 6, instrument_id=2),
        shown("mbp-1", MAY_1 + 1, 6, instrument_id=2),
    )
    assert totals(path) == {"ESM4": 5, "NQM4": 6}


def test_so_has_each_publisher_also_where_they_are_consolidated(tmp_path):
    path = capture(
        tmp_path / "f.dbn",
        shown("trades", MAY_1, 5, publisher_id=2),
        shown("mbo", MAY_1 + 1, 6, publisher_id=3),
        shown("mbo", MAY_1 + 1, 5, publisher_id=2),
    )
    assert totals(path) == {"ESM4": 11}
    assert totals(path, consolidate=True) == {"ESM4": 11}


def test_files_that_show_the_same_trades_are_counted_once(tmp_path):
    times = [(MAY_1 + n * 10**9, size) for n, size in enumerate((5, 6, 7))]
    one = write(tmp_path / "a", header(NAMES, "mbo"), *(shown("mbo", *each) for each in times))
    two = write(tmp_path / "b", header(NAMES, "trades"), *(shown("trades", *e) for e in times))
    assert totals(one, two) == totals(two, one) == {"ESM4": 18}
    read = [*mdtool.read([one, two], schema="trades")]
    assert sum(int(batch.records["size"].sum()) for batch in read) == 18
    captures = [capture(tmp_path / v, *(shown(v, *each) for each in times)) for v in SCHEMAS]
    assert totals(*captures) == {"ESM4": 18}
    read = [*mdtool.read(captures, schema="trades")]
    assert sum(int(batch.records["size"].sum()) for batch in read) == 18


def test_files_of_different_days_are_joined(tmp_path):
    names = {"ESM4": {1: 1, 2: 1}}
    one = write(tmp_path / "a", header(names, "trades"), shown("trades", MAY_1, 5))
    two = write(tmp_path / "b", header(names, "mbo"), shown("mbo", MAY_1 + DAY, 6))
    assert totals(one, two) == {"ESM4": 11}


def test_records_of_other_schemas_than_the_header_names_are_told(tmp_path, caplog):
    path = write(
        tmp_path / "f.dbn", header(NAMES, "mbo"), shown("mbo", MAY_1, 5), shown("trades", MAY_1, 5)
    )
    assert totals(path) == {"ESM4": 5}
    (said,) = caplog.messages
    assert said == f"{path}: left out 1 records of other schemas than mbo, which its header names"


@pytest.mark.parametrize("named", ["trades", "ohlcv-1m", "definition"])
def test_records_decide_where_none_is_of_the_schema_that_the_header_names(tmp_path, caplog, named):
    records = [shown("mbo", MAY_1 + n, size) for n, size in enumerate((5, 6))]
    path = write(tmp_path / "f.dbn", header(NAMES, named), *records)
    assert totals(path) == totals(path, schema="mbo") == {"ESM4": 11}
    told = f"{path}: its header names {named}, but its records are of mbo; read by its records"
    assert caplog.messages == [told] * 2


def test_a_stream_tells_of_the_second_view_at_once(caplog):
    caplog.set_level(logging.WARNING)
    records = [shown("mbo", MAY_1, 5), shown("trades", MAY_1, 5), shown("trades", MAY_1 + 1, 6)]
    data = io.BytesIO(header({}, schema=None).encode() + b"".join(records))
    with TradeSource(DbnSource("stdin", data.read, data.close)) as source:
        trades = iter(source)
        assert len(next(trades)) == 1
        assert caplog.messages == []
        assert next(trades).records["size"].tolist() == [6]
        assert "several views of its trades: trades, mbo; each trade" in caplog.messages[0]


def test_quotes_beside_trades_are_no_view_of_them(tmp_path, caplog):
    quote = order(1, MAY_1, "A", "B", 100, 1, order_id=1)
    path = capture(tmp_path / "f.dbn", quote, shown("trades", MAY_1, 5), shown("trades", MAY_1, 6))
    assert totals(path) == {"ESM4": 11}
    assert caplog.messages == []


def test_orders_move_the_time_of_a_stream_with_one_view(tmp_path):
    path = capture(
        tmp_path / "f.dbn",
        shown("mbo", MAY_1, 5),
        order(1, MAY_1 + 1, "A", "B", 100, 1, order_id=1),
    )
    with TradeSource(open_merged([str(path)], None, Instruments())) as source:
        assert sum(len(batch) for batch in source if batch.rtype == RTYPES["mbo"]) == 2


class TestBars:
    def test_of_bars_are_those_of_the_trades(self, tmp_path):
        numbers = np.random.default_rng(7)
        times = np.sort(numbers.integers(0, 3 * HOUR, 2_000)) + MAY_1
        prices, sizes = numbers.integers(90, 110, 2_000), numbers.integers(1, 9, 2_000)
        records = [
            shown("trades", int(ts), int(size), int(price), 1 + n % 2)
            for n, (ts, price, size) in enumerate(zip(times, prices, sizes, strict=True))
        ]
        trades = write(tmp_path / "t.dbn", header(NAMES), *records)
        made = mdtool.bars(trades, interval="1m")
        minutes = tmp_path / "m.dbn"
        write(minutes, header(NAMES, "ohlcv-1m"), made.records.tobytes())
        for interval in ("1m", "5m", "1h", "2h", "1d"):
            direct = mdtool.bars(trades, interval=interval)
            assert rows(mdtool.bars(minutes, interval=interval)) == rows(direct)

    def test_without_volume_are_none(self, tmp_path):
        path = write(
            tmp_path / "f.dbn",
            header(NAMES, "ohlcv-1m"),
            bar(MAY_1, 0, 0, 0, 0, 0),
            bar(MAY_1 + MINUTE, 5, 9, 4, 6, 20),
            bar(MAY_1 + 2 * MINUTE, 6, 7, 3, 5, 10),
        )
        made = mdtool.bars(path, interval="5m")
        prices = [5 * 10**9, 9 * 10**9, 3 * 10**9, 5 * 10**9]
        assert rows(made) == [(MAY_1, *prices, 30)]

    def test_take_the_place_of_trades_only_where_there_are_none(self, tmp_path):
        path = capture(
            tmp_path / "f.dbn",
            shown("trades", MAY_1 + 1, 5),
            bar(MAY_1, 100, 100, 100, 100, 5),
            bar(MAY_1, 100, 100, 100, 100, 7, instrument_id=2),
            bar(MAY_1, 100, 100, 100, 100, 7, rtype=34, instrument_id=2),
            shown("trades", MAY_1 + MINUTE, 6),
        )
        assert totals(path) == {"ESM4": 11, "NQM4": 7}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"interval": "90s"}, "only bars of a multiple of its interval"),
            ({"by": "ticks=2"}, "has no trades"),
        ],
    )
    def test_of_which_others_cannot_be_made_are_rejected(self, tmp_path, options, said):
        path = write(tmp_path / "f.dbn", header(NAMES, "ohlcv-1m"), bar(MAY_1, 1, 1, 1, 1, 1))
        with pytest.raises(InputError, match=said):
            mdtool.bars(path, **options)
