"""`mdtool aggregate INPUT` as its users run it."""

from __future__ import annotations

import csv
import functools
import io
import json
import subprocess
from itertools import pairwise
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.dtypes import OHLCV, STATISTICS, SYMBOL_MAPPING, TRADE, record_length
from mdtool.wire.dbn import DbnDecoder, encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata
from tests.support.commands import MDTOOL, completed
from tests.support.processes import ChildProcess

START = 1_700_000_000 * 10**9
SECOND = 10**9


def trades(*rows: tuple[int, int, int, int]) -> np.ndarray:
    """Trades of (instrument, ms after START, price in cents, size)."""
    array = np.zeros(len(rows), TRADE)
    array["length"] = record_length(TRADE)
    array["publisher_id"] = 1
    array["action"] = b"T"
    array["side"] = b"N"
    for record, (instrument, at_ms, cents, size) in zip(array, rows, strict=True):
        record["instrument_id"] = instrument
        record["ts_recv"] = record["ts_event"] = START + at_ms * 10**6
        record["price"] = cents * 10**7
        record["size"] = size
    return array


def header(schema: str | None = "trades") -> bytes:
    return encode_metadata(make_metadata("TEST", schema, START, None, {1: "AAPL", 2: "MSFT"}))


def stream(array: np.ndarray, schema: str | None = "trades") -> bytes:
    return header(schema) + bytes(encode_records(array))


@pytest.fixture
def trades_file(tmp_path) -> Path:
    path = tmp_path / "trades.dbn"
    path.write_bytes(
        stream(
            trades(
                (2, 0, 30000, 3),
                (1, 100, 20000, 1),
                (1, 900, 20100, 2),
                (1, 1500, 20050, 4),
                (2, 3999, 30100, 5),
                (1, 4000, 20200, 6),
            )
        )
    )
    return path


run = functools.partial(completed, "aggregate")


def rows(*arguments: object, data: bytes = b"") -> list[tuple[str, float, int, float, int]]:
    """Bars as (symbol, seconds after START, open, close, volume)."""
    done = run(*arguments, "--csv", "--map-symbols", stdin=data)
    assert done.returncode == 0, done.stderr
    return [
        (
            row["symbol"],
            (int(row["ts_event"]) - START) / SECOND,
            int(row["open"]) / 10**9,
            int(row["close"]) / 10**9,
            int(row["volume"]),
        )
        for row in csv.DictReader(io.StringIO(done.stdout.decode()))
    ]


def records_of(data: bytes) -> tuple[dbn.Metadata, np.ndarray]:
    decoder = DbnDecoder()
    runs = decoder.feed(data)
    decoder.finish()
    return decoder.metadata, np.concatenate([np.zeros(0, OHLCV), *runs])


def test_bars_of_a_file_in_order(trades_file):
    assert rows(trades_file, "--interval", "1s") == [
        ("AAPL", 0, 200.0, 201.0, 3),
        ("MSFT", 0, 300.0, 300.0, 3),
        ("AAPL", 1, 200.5, 200.5, 4),
        ("MSFT", 3, 301.0, 301.0, 5),
        ("AAPL", 4, 202.0, 202.0, 6),
    ]


def test_empty_intervals_between_trades_are_filled_on_request(trades_file):
    filled = rows(trades_file, "--interval", "1s", "--fill", "prev")
    assert [row for row in filled if row[-1] == 0] == [
        ("MSFT", 1, 300.0, 300.0, 0),
        ("MSFT", 2, 300.0, 300.0, 0),
        ("AAPL", 2, 200.5, 200.5, 0),
        ("AAPL", 3, 200.5, 200.5, 0),
    ]
    zeros = rows(trades_file, "--interval", "1s", "--fill", "zero")
    assert [row for row in zeros if row[-1] == 0] == [
        ("MSFT", 1, 0, 0, 0),
        ("MSFT", 2, 0, 0, 0),
        ("AAPL", 2, 0, 0, 0),
        ("AAPL", 3, 0, 0, 0),
    ]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("volume=3", [("AAPL", 0.1, 3), ("AAPL", 1.5, 4), ("AAPL", 4.0, 6)]),
        ("ticks=2", [("AAPL", 0.1, 3), ("AAPL", 1.5, 10)]),
        ("notional=602", [("AAPL", 0.1, 3), ("AAPL", 1.5, 4), ("AAPL", 4.0, 6)]),
        ("notional=602.000000001", [("AAPL", 0.1, 7), ("AAPL", 4.0, 6)]),
    ],
)
def test_bars_by_something_else_than_time(trades_file, by, expected):
    bars = rows(trades_file, "--by", by)
    assert [(row[0], row[1], row[-1]) for row in bars if row[0] == "AAPL"] == expected


def test_dbn_goes_on_down_the_pipe(trades_file):
    metadata, bars = records_of(run(trades_file, "--interval", "1m").stdout)
    assert str(metadata.schema) == "ohlcv-1m"
    assert sorted(metadata.mappings) == ["AAPL", "MSFT"]
    assert bars["rtype"].tolist() == [33, 33]


@pytest.mark.parametrize("form", ["--csv", "--json"])
def test_bars_of_an_interval_without_a_schema_are_shown_too(trades_file, form):
    done = run(trades_file, "--interval", "5s", form)
    assert len(done.stdout.splitlines()) == (3 if form == "--csv" else 2)


def test_a_bar_comes_out_as_soon_as_the_stream_has_passed_it():
    command = [*MDTOOL, "aggregate", "-", "--interval", "1s", "--json"]
    with ChildProcess(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(stream(trades((1, 0, 100, 1), (1, 999, 100, 1))))
        process.stdin.flush()
        process.stdin.write(bytes(encode_records(trades((2, 1000, 100, 7)))))
        process.stdin.flush()
        # The input is still open: were the bar held back, this would wait for good.
        bar = json.loads(process.stdout.readline())
        assert (bar["hd"]["instrument_id"], bar["volume"]) == (1, "2")
        process.stdin.close()
        last = json.loads(process.stdout.readline())
        assert (last["hd"]["instrument_id"], last["volume"]) == (2, "7")
        assert process.stdout.read() == b""
    assert process.returncode == 0


def test_late_trades_are_reported_or_waited_for():
    data = stream(trades((1, 0, 100, 1), (1, 1000, 100, 2), (1, 500, 100, 4)))
    done = run("-", "--interval", "1s", "--csv", stdin=data)
    assert done.returncode == 0
    assert b"1 of 3 trades came after their bar had closed" in done.stderr
    bars = rows("-", "--interval", "1s", "--lateness", "500ms", data=data)
    assert [row[-1] for row in bars] == [5, 2]


def test_the_clock_is_a_choice():
    array = trades((1, 0, 100, 1), (1, 1000, 100, 2))
    array["ts_event"] = START
    assert [row[-1] for row in rows("-", "--interval", "1s", data=stream(array))] == [1, 2]
    by_event = rows("-", "--interval", "1s", "--clock", "ts_event", data=stream(array))
    assert [row[-1] for row in by_event] == [3]


def test_mappings_of_a_live_stream_are_passed_on_and_used():
    mapping = np.zeros(1, SYMBOL_MAPPING)
    mapping["length"] = record_length(SYMBOL_MAPPING)
    mapping["rtype"] = 22
    mapping["instrument_id"] = 9
    mapping["stype_in_symbol"] = mapping["stype_out_symbol"] = b"TSLA"
    data = header(None) + bytes(encode_records(mapping))
    data += bytes(encode_records(trades((9, 0, 100, 1))))
    assert [row[0] for row in rows("-", "--interval", "1s", data=data)] == ["TSLA"]
    piped = run("-", "--interval", "1s", stdin=data).stdout
    assert rows("-", "--interval", "1s", data=data) != []
    decoder = DbnDecoder()
    assert [int(run["rtype"][0]) for run in decoder.feed(piped)] == [22, 32]


def test_files_are_merged(tmp_path, trades_file):
    other = tmp_path / "other.dbn"
    other.write_bytes(stream(trades((1, 200, 19000, 10))))
    merged = rows(trades_file, other, "--interval", "1s")
    assert merged[0] == ("AAPL", 0, 200.0, 201.0, 13)


def test_the_whole_records_of_a_cut_file_come_out_before_the_error(tmp_path, trades_file):
    data = trades_file.read_bytes()
    cut = tmp_path / "cut.dbn"
    cut.write_bytes(data[:-10])
    done = run(cut, "--interval", "1s", "--csv")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1 + 4
    error = done.stderr.decode().splitlines()
    assert len(error) == 1
    assert f"at byte {len(data) - TRADE.itemsize}, after 5 whole records" in error[0]


def test_the_trades_can_be_chosen_by_symbol_and_time(trades_file):
    chosen = rows(trades_file, "--interval", "1s", "--symbols", "MSFT")
    assert [row[:2] for row in chosen] == [("MSFT", 0), ("MSFT", 3)]
    times = ["--start", str(START + 900 * 10**6), "--end", str(START + 4 * SECOND)]
    chosen = rows(trades_file, "--interval", "1s", *times)
    assert [(row[0], row[-1]) for row in chosen] == [("AAPL", 2), ("AAPL", 4), ("MSFT", 5)]


def test_limit_counts_bars(trades_file):
    assert len(rows(trades_file, "--interval", "1s", "--limit", "2")) == 2


def test_a_reader_that_has_enough_ends_the_command_quietly(trades_file):
    command = [*MDTOOL, "aggregate", str(trades_file), "--fill", "prev", "--interval", "1us", "-C"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ChildProcess(command, **pipes) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "--interval", "0s"], "duration"),
        (["-", "--interval", "soon"], "duration"),
        (["-", "--lateness", "-1s"], "duration"),
        (["-", "--clock", "ts_out"], "choose from ts_recv, ts_event"),
        (["-", "--fill", "next"], "choose from none, prev, zero"),
        (["-", "--by", "volume=0"], "above 0"),
        (["-", "--by", "money=1"], "by volume, ticks, notional"),
        (["-", "--by", "ticks=5", "--interval", "1s"], "goes without interval"),
        (["-", "--by", "ticks=5", "--fill", "prev"], "goes without fill"),
        (["-", "--port", "50051"], "--port: is for the service"),
        (["--interval", "1m"], "--interval: needs INPUT"),
        (["--csv"], "needs INPUT"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    done = run(*arguments, stdin=b"")
    assert done.returncode == 2
    assert done.stdout == b""
    error = done.stderr.decode().splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_a_file_without_trades_is_refused(tmp_path):
    path = tmp_path / "bars.dbn"
    path.write_bytes(stream(np.zeros(0, STATISTICS), "statistics"))
    done = run(path)
    assert done.returncode == 1
    assert b"is statistics, which has no trades" in done.stderr


def test_a_file_of_no_records_gives_no_bars(tmp_path):
    path = tmp_path / "none.dbn"
    path.write_bytes(header())
    assert rows(path) == []


def test_real_bars_of_a_second_add_up_to_those_of_a_minute(real_data):
    path = real_data / "CLX5_mbo.dbn"
    _, seconds = records_of(run(path, "--interval", "1s").stdout)
    _, minutes = records_of(run(path, "--interval", "1m").stdout)
    edges = np.searchsorted(seconds["ts_event"], minutes["ts_event"]).tolist()
    for minute, (begin, end) in zip(minutes, pairwise([*edges, len(seconds)]), strict=True):
        inside = seconds[begin:end]
        assert minute["open"] == inside["open"][0]
        assert minute["high"] == inside["high"].max()
        assert minute["low"] == inside["low"].min()
        assert minute["close"] == inside["close"][-1]
        assert minute["volume"] == inside["volume"].sum()
