"""Bars of days, weeks and months of a time zone, with counts and VWAPs, beside polars' own."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import databento_dbn as dbn
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import mdtool
from mdtool.core.dtypes import TRADE, record_length
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata
from tests.support.commands import completed, output_of

ZONE = "America/New_York"
FEB_27 = int(datetime.fromisoformat("2024-02-27T00:00Z").timestamp()) * 10**9
"""Two weeks before the clock goes forward."""
DAY = 86_400 * 10**9
SKIPPED = ("2011-12-27", "2011-12-28", "2011-12-29", "2012-01-01")
FIELDS = ("open", "high", "low", "close", "volume", "count", "vwap")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Trades of twenty days around a change of the clock, some below zero, in order."""
    random = np.random.default_rng(5)
    array = np.zeros(3_000, TRADE)
    array["length"], array["publisher_id"], array["instrument_id"] = record_length(TRADE), 1, 1
    array["action"], array["side"] = b"T", b"N"
    array["ts_event"] = array["ts_recv"] = np.sort(
        random.integers(FEB_27, FEB_27 + 20 * DAY, 3_000)
    )
    array["price"] = random.integers(-3_000, 9_000, 3_000) * 10**7
    array["size"] = random.integers(1, 500, 3_000)
    path = tmp_path_factory.mktemp("calendar") / "trades.dbn"
    metadata = make_metadata("TEST", "trades", FEB_27, None, {1: "CL"})
    path.write_bytes(encode_metadata(metadata) + bytes(encode_records(array)))
    return path, array


def bars(path, *arguments):
    """Return bars by their time."""
    done = completed("aggregate", path, "-C", "-s", "--with", "count,vwap", *arguments)
    assert done.returncode == 0, done.stderr
    rows = csv.DictReader(done.stdout.decode().splitlines())
    return {int(row["ts_event"]): tuple(int(row[name]) for name in FIELDS) for row in rows}


def of_trades(trades):
    """Return the bar of some trades."""
    price, size = trades["price"].tolist(), trades["size"].tolist()
    notional = sum(p * s for p, s in zip(price, size, strict=True))
    vwap = round(Fraction(notional, sum(size)))
    return (price[0], max(price), min(price), price[-1], sum(size), len(price), vwap)


@pytest.mark.parametrize("interval", ["1d", "1w", "1mo"])
@pytest.mark.parametrize("session", [0, 17])
def test_bars_are_those_of_polars(file, interval, session):
    path, array = file
    # An evening session is the next day's: seven hours later by the zone's clock is midnight.
    shift = timedelta(hours=(24 - session) % 24)
    times = pl.Series(array["ts_event"].view("i8")).cast(pl.Datetime("ns", "UTC"))
    local = times.dt.convert_time_zone(ZONE).dt.replace_time_zone(None) + shift
    starts = (local.dt.truncate(interval) - shift).dt.replace_time_zone(ZONE)
    starts = starts.dt.epoch("us").to_numpy() * 1_000  # a timedelta has no nanoseconds
    expected = {
        int(start): of_trades(array[starts == start]) for start in np.unique(starts).tolist()
    }
    arguments = ("--interval", interval, "--tz", ZONE, "--session", f"{session:02d}:00")
    assert bars(path, *arguments) == expected


def test_a_label_is_the_end_also_of_a_short_day(file):
    path, _ = file
    options = ("--interval", "1d", "--tz", ZONE)
    starts = bars(path, *options)
    ends = bars(path, *options, "--label", "end")
    assert list(starts.values()) == list(ends.values())
    lengths = {(e - s) // 3_600 // 10**9 for s, e in zip(starts, ends, strict=True)}
    assert lengths == {23, 24}
    assert list(starts)[1:] == list(ends)[:-1]


def test_days_without_trades_are_filled_across_a_change_of_the_clock(file, tmp_path):
    _, array = file
    before = FEB_27 + 11 * DAY
    kept = (array["ts_event"] < before) | (array["ts_event"] >= before + 4 * DAY)
    path = tmp_path / "gap.dbn"
    metadata = make_metadata("TEST", "trades", FEB_27, None, {1: "CL"})
    path.write_bytes(encode_metadata(metadata) + bytes(encode_records(array[kept])))
    options = ("--interval", "1d", "--tz", ZONE)
    whole, filled = bars(file[0], *options), bars(path, *options, "--fill", "prev")
    assert list(filled) == list(whole)
    fillers = [bar for bar in filled.values() if bar[-2] == 0]
    assert len(fillers) == 3
    assert {bar[-1] for bar in fillers} == {UNDEF_PRICE}
    assert all(len(set(bar[:4])) == 1 and bar[4] == 0 for bar in fillers)


def test_a_day_that_a_zone_skipped_is_not_filled(tmp_path):
    array = np.zeros(4, TRADE)
    array["length"], array["publisher_id"], array["instrument_id"] = record_length(TRADE), 1, 1
    array["action"], array["side"], array["price"], array["size"] = b"T", b"N", 10**9, 1
    # Apia went from the end of 29 December 2011 to the 31st, over the date line.
    days = [datetime.fromisoformat(f"{day}T12:00Z").timestamp() for day in SKIPPED]
    array["ts_event"] = array["ts_recv"] = np.array(days, np.int64) * 10**9
    path = tmp_path / "apia.dbn"
    metadata = make_metadata("TEST", "trades", int(array["ts_recv"][0]), None, {1: "CL"})
    path.write_bytes(encode_metadata(metadata) + bytes(encode_records(array)))
    options = ("aggregate", path, "--interval", "1d", "--tz", "Pacific/Apia", "--fill", "prev")
    rows = [json.loads(line) for line in completed(*options, "-J", "-p").stdout.splitlines()]
    starts = [row["hd"]["ts_event"][5:13] for row in rows]
    assert starts == ["12-27T10", "12-28T10", "12-29T10", "12-30T10", "12-31T10", "01-01T10"]
    assert [row["volume"] for row in rows] == ["1", "1", "1", "0", "0", "1"]


def test_counts_and_vwaps_have_columns_in_every_form_but_dbn(file, tmp_path):
    path, array = file
    options = ("aggregate", path, "--interval", "7m", "--limit", "1")
    first = array[
        array["ts_event"] < array["ts_event"][0] // (420 * 10**9) * (420 * 10**9) + 420 * 10**9
    ]
    vwap = of_trades(first)[-1]
    line = json.loads(completed(*options, "-J", "-s", "--with", "vwap").stdout)
    assert (line["vwap"], line["symbol"]) == (str(vwap), "CL")
    assert "count" not in line
    pretty = json.loads(completed(*options, "-J", "-p", "--with", "count,vwap").stdout)
    assert (Decimal(pretty["vwap"]), pretty["count"]) == (Decimal(vwap).scaleb(-9), str(len(first)))
    table = tmp_path / "bars.parquet"
    assert completed(*options, "--with", "count,vwap", "-o", table).returncode == 0
    row = pq.read_table(table).to_pylist()[0]
    assert (row["vwap"], row["count"]) == (Decimal(vwap).scaleb(-9), len(first))


@pytest.mark.parametrize(
    "options",
    [
        ("--interval", "7m"),
        ("--interval", "90s"),
        ("--interval", "1w"),
        ("--by", "volume=5"),
        ("--with", "count"),
        ("--label", "end"),
    ],
)
def test_dbn_that_its_readers_would_misread_is_refused_and_no_file_is_left(file, tmp_path, options):
    for output in ((), ("-o", tmp_path / "bars.dbn")):
        done = completed("aggregate", file[0], *options, *output)
        assert done.returncode == 2
        assert b"give -C, -J or -o FILE.parquet" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_days_of_sessions_are_days_to_dbn(file):
    done = completed("aggregate", file[0], "--interval", "1d", "--tz", ZONE, "--session", "17:00")
    decoder = dbn.DBNDecoder()
    decoder.write(done.stdout)
    metadata, *records = decoder.decode()
    assert str(metadata.schema) == "ohlcv-1d"
    assert {record.rtype for record in records} == {dbn.RType.OHLCV_1D}


def test_the_api_has_the_same(file):
    path, array = file
    got = mdtool.bars(path, interval="1w", tz=ZONE, session="17:00", extras=("count", "vwap"))
    rows = [tuple(int(record[name]) for name in FIELDS) for record in got.records]
    options = ("--interval", "1w", "--tz", ZONE, "--session", "17:00")
    assert rows == list(bars(path, *options).values())
    columns = got.to_arrow().to_pydict()
    assert sum(columns["count"]) == len(array)
    none = mdtool.bars(path, symbols="CL", end="2000-01-01", extras=("count",))
    assert len(none.to_arrow()) == 0


def test_a_vwap_can_begin_with_the_session(file):
    path, array = file
    options = ("--window", "session", "--tz", ZONE, "--session", "17:00")
    done = completed("vwap", path, "-C", *options)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    days = sorted(bars(path, "--interval", "1d", *options[2:]))
    day_of = np.searchsorted(days, array["ts_event"].view("i8"), side="right")
    for day in np.unique(day_of).tolist():
        own = np.flatnonzero(day_of == day)
        for count in {1, 2, len(own)} & set(range(1, len(own) + 1)):
            row = rows[own[count - 1]]
            bar = of_trades(array[own[:count]])
            assert (int(row["price"]), int(row["quantity"])) == (bar[-1], bar[4])


@pytest.mark.parametrize(
    "options",
    [
        ("--interval", "1m"),
        ("--interval", "7m"),
        ("--interval", "1w", "--publishers", "-s"),
        ("--by", "ticks=5", "-s"),
        ("--with", "count,vwap", "--publishers", "-s"),
        ("--label", "end", "--with", "vwap"),
    ],
)
def test_no_bars_have_the_columns_of_bars(tmp_path, file, options):
    def columns(*selected: str) -> list[list[str]]:
        table = tmp_path / "bars.parquet"
        output_of("aggregate", file[0], *options, *selected, "-o", table, "-f")
        rows = output_of("aggregate", file[0], *options, *selected, "-C").decode().splitlines()
        assert len(rows) == pq.read_metadata(table).num_rows + 1
        assert all(row.count(",") == rows[0].count(",") for row in rows)
        return [rows[0].split(","), pq.read_schema(table).names]

    assert columns("--end", "2000-01-01") == columns()


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("vwap", ("--window", "5m", "--tz", ZONE), "are for --window session"),
        ("vwap", ("--window", "session", "--tz", "Nowhere"), "is not a time zone"),
        ("aggregate", ("--interval", "5m", "--tz", ZONE), "5m: tz is for 1d, 1w and 1mo"),
        ("aggregate", ("--interval", "5m", "--session", "17:00"), "session is for 1d, 1w and 1mo"),
        ("aggregate", ("--interval", "1M"), "m, h or d; or 1w or 1mo"),
        ("aggregate", ("--by", "ticks=5", "--label", "end"), "by ticks=5: goes without label, "),
        ("aggregate", ("--by", "ticks=5", "--tz", ZONE, "--fill", "prev"), "without fill and tz, "),
        ("aggregate", ("--label", "middle"), "choose from start, end"),
        ("aggregate", ("--with", "trades"), "choose from count, vwap"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(file, command, options, message):
    done = completed(command, file[0], *options)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
