"""`mdtool vwap INPUT` as its users run it."""

from __future__ import annotations

import csv
import functools
import io
import json

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.adapters.dbn_files import open_source
from mdtool.core.dtypes import STATISTICS
from mdtool.core.records import has_trades
from mdtool.engine.timed_trades import TimedTrades
from mdtool.wire.dbn import DbnDecoder, encode_records
from tests.reference import dbn_streams as streams
from tests.reference import vwap as reference
from tests.support.commands import completed

vwap = functools.partial(completed, "vwap")


def text(records, schema="trades") -> bytes:
    return streams.header(schema) + bytes(encode_records(records))


@pytest.fixture
def path(tmp_path):
    """Ten trades, of AAPL and MSFT in turns, a millisecond apart."""
    path = tmp_path / "trades.dbn"
    path.write_bytes(text(streams.trades(10)))
    return path


def test_json_of_each_trade_in_its_turn(path):
    done = vwap(path, "--window", 2, "-J", "-p", "-s")
    assert (done.returncode, done.stderr) == (0, b"")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["symbol"] for row in rows] == ["AAPL", "MSFT"] * 5
    assert {row["stat_type"] for row in rows} == {dbn.StatType.VWAP.value}
    # AAPL: (100, 1), (102, 3), (104, 5): 100, then 406/4, then (306 + 520) / 8.
    assert [row["price"] for row in rows[:5:2]] == [
        "100.000000000",
        "101.500000000",
        "103.250000000",
    ]
    assert [row["quantity"] for row in rows[:5:2]] == ["1", "4", "8"]


def test_csv_and_a_window_of_time(path):
    done = vwap(path, "--window", "3ms", "-C")
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["quantity"] for row in rows[:5:2]] == ["1", "4", "8"]


def test_piped_it_is_dbn_of_statistics_that_others_read(path):
    done = vwap("-", stdin=path.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    decoder = DbnDecoder()
    [records] = decoder.feed(done.stdout)
    decoder.finish()
    assert str(decoder.metadata.schema) == "statistics"
    assert (records.dtype, len(records)) == (STATISTICS, 10)
    official = [record for record in _decoded(done.stdout) if isinstance(record, dbn.StatMsg)]
    assert [record.price for record in official] == records["price"].tolist()


def _decoded(data: bytes) -> list:
    decoder = dbn.DBNDecoder()
    return list(decoder.write_and_decode(data))


def test_files_of_columns_and_a_limit(path, tmp_path):
    out = tmp_path / "vwap.parquet"
    assert vwap(path, "-o", out, "--limit", 3).returncode == 0
    assert out.stat().st_size > 0
    done = vwap(path, "--limit", 3, "-J")
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("window", ["100", "5m"])
def test_a_real_day_equals_the_plain_reference(real_data, window):
    path = real_data / "CLX5_mbo.dbn"
    done = vwap(path, "--window", window)
    assert done.returncode == 0
    records = np.concatenate(DbnDecoder().feed(done.stdout))
    trades = []
    with open_source(str(path)) as source:
        for run in source:
            if has_trades(run.records.dtype):
                timed = TimedTrades.of(run)
                taken = timed.trades
                columns = (taken.symbol, taken.price, taken.size, timed.ts_ns)
                trades += [
                    reference.Trade(*row)
                    for row in zip(*(column.tolist() for column in columns), strict=True)
                ]
    limits = {"most": 100} if window == "100" else {"span": 300 * 10**9}
    expected, _, _ = reference.rolling(trades, **limits)
    assert len(trades) > 1000
    assert records["price"].tolist() == [row.price for row in expected]
    assert records["quantity"].tolist() == [row.volume for row in expected]


def test_what_is_left_out_is_counted(tmp_path):
    records = streams.trades(4)
    records["instrument_id"] = 1
    records["price"][1] = 2**63 - 1
    records["ts_recv"][3] = streams.START - 10**9
    path = tmp_path / "odd.dbn"
    path.write_bytes(text(records))
    done = vwap(path, "--window", "1s", "-J")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert b"left out 1 of 3 trades, which came later than their window is long" in done.stderr
    assert b"left out 1 trade without a price, size or time" in done.stderr


def test_a_file_that_breaks_off_gives_what_came_before(path):
    done = vwap("-", "-J", stdin=path.read_bytes()[:-20])
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 9
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["FILE", "--window", "0"], 2, "a window needs a number of trades from 1 on"),
        (["FILE", "--window", "soon"], 2, "--window: 'soon' is not a duration"),
        (["FILE", "--clock", "wall"], 2, "--clock wall: choose from ts_recv, ts_event"),
        (["FILE", "--port", "1"], 2, "--port: is for the service; leave out INPUT"),
        (["-J"], 2, "--json: needs INPUT"),
        (["--window", "0"], 2, "a window needs a number of trades from 1 on"),
        (["nowhere.dbn"], 1, "nowhere.dbn"),
        (["--aggregator", "nowhere"], 2, "'nowhere' is not an address"),
    ],
)
def test_what_cannot_be_is_one_line(path, arguments, status, message):
    done = vwap(*[path if argument == "FILE" else argument for argument in arguments])
    assert done.returncode == status
    assert message in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_bars_have_no_trades(tmp_path):
    path = tmp_path / "bars.dbn"
    path.write_bytes(text(streams.bars(3, 33), "ohlcv-1m"))
    done = vwap(path)
    assert done.returncode == 1
    assert b"is ohlcv-1m, which has no trades" in done.stderr
