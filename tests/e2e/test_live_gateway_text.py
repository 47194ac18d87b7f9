"""Sessions of the live gateway that get lines of JSON or CSV in place of DBN."""

from __future__ import annotations

import csv
import io
import json

import databento_dbn as dbn
import pytest

from mdtool.wire.live import Start
from tests.support.dbn_files import DAY, MAY_1, header, trade, write
from tests.support.live_clients import ACK, BOTH_DAYS, client, gateway, trades_apart, wants


async def lines_of(address: str, *requests, **fields) -> list[str]:
    """The lines of a session to its end."""
    async with client(address) as connected:
        await connected.login(**fields)
        connected.send(*requests, Start())
        await connected.rest()
        return connected.text.splitlines()


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_an_object_a_line(live_trades, compression):
    async with gateway(live_trades) as address:
        lines = await lines_of(
            address, wants("AAPL", "NOPE"), encoding="json", compression=compression
        )
    ack, mapping, error, *trades = map(json.loads, lines)
    assert ack["msg"] == ACK.format(0, "trades")
    assert (mapping["stype_in_symbol"], mapping["hd"]["instrument_id"]) == ("AAPL", 1)
    assert error["code"] == 4
    assert [(each["price"], each["hd"]["ts_event"]) for each in trades] == [
        ("10000000000", str(MAY_1 + 1)),
        ("11000000000", str(MAY_1 + 3)),
    ]


async def test_prices_and_times_for_people(live_trades):
    async with gateway(live_trades) as address:
        for pretty_px, pretty_ts in [(True, False), (False, True), (True, True)]:
            lines = await lines_of(
                address,
                wants("AAPL"),
                encoding="json",
                has_pretty_px=pretty_px,
                has_pretty_ts=pretty_ts,
                has_ts_out=True,
            )
            last = json.loads(lines[-1])
            assert last["price"] == ("11.000000000" if pretty_px else "11000000000")
            assert last["ts_recv"].startswith("2024-05-01T") == pretty_ts
            assert "ts_out" in last


async def test_rows_for_people(live_trades):
    async with gateway(live_trades) as address:
        lines = await lines_of(
            address,
            wants("AAPL"),
            encoding="csv",
            has_pretty_px=True,
            has_pretty_ts=True,
            has_ts_out=True,
        )
    _, ack, columns, mapping, trades, *rows = csv.reader(lines)
    assert ack[0].endswith("Z")
    assert ack[-1].endswith("Z")
    mapped = dict(zip(columns, mapping, strict=True))
    assert (mapped["ts_event"][-1], mapped["start_ts"], mapped["end_ts"]) == ("Z", "", "")
    last = dict(zip(trades, rows[-1], strict=True))
    assert (last["price"], last["ts_event"]) == ("11.000000000", "2024-05-01T00:00:00.000000003Z")
    assert last["ts_out"].endswith("Z")


@pytest.mark.parametrize("has_ts_out", [False, True])
async def test_rows_below_the_names_of_their_columns(live_trades, has_ts_out):
    async with gateway(live_trades) as address:
        lines = await lines_of(
            address, wants("AAPL", "NOPE"), wants("AAPL"), encoding="csv", has_ts_out=has_ts_out
        )
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    sections = [row for row in rows if "rtype" in row]
    assert len(sections) == 4  # system, mapping, error, trades: each has its columns once
    assert all(("ts_out" in row) == has_ts_out for row in sections)
    trades = [dict(zip(sections[-1], row, strict=True)) for row in rows[-2:]]
    assert [(each["instrument_id"], each["price"]) for each in trades] == [
        ("1", "10000000000"),
        ("1", "11000000000"),
    ]
    assert [row[sections[0].index("msg")] for row in rows[1:2]] == [ACK.format(0, "trades")]


async def test_warnings_of_a_recorded_stream_are_passed_on(tmp_path):
    """Not as the session's own; what the recorded one said besides, sessions say themselves."""
    slow = "Warning: slow reading, not keeping pace with mbp-1 data"
    recorded = [
        dbn.SystemMsg(ts_event=MAY_1, msg="Heartbeat", code=dbn.SystemCode.HEARTBEAT),
        dbn.SystemMsg(ts_event=MAY_1, msg=slow, code=dbn.SystemCode.SLOW_READER_WARNING),
        dbn.ErrorMsg(ts_event=MAY_1, err="Skipped 3 records", is_last=True, code=dbn.ErrorCode(7)),
    ]
    path = write(
        tmp_path / "capture.dbn",
        header(BOTH_DAYS, None),
        *map(bytes, recorded),
        trade(1, MAY_1 + DAY, 10, 1),
    )
    async with gateway(path) as address:
        lines = await lines_of(address, wants("AAPL"), encoding="json")
        said = [(each.get("msg"), each.get("code")) for each in map(json.loads, lines)]
    assert said == [
        (ACK.format(0, "trades"), 1),
        (None, None),
        (f"warning=slow_reader|{slow} (code 2)", 255),
        ("warning=skipped_records|Skipped 3 records (code 7)", 255),
        (None, None),
    ]


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_damaged_text_is_lines_of_other_characters(tmp_path, compression):
    whole = {"encoding": "json", "compression": compression}
    ten = trades_apart(tmp_path, 10)
    async with gateway(ten, faults="damage after=3 records=2") as address:
        lines = await lines_of(address, wants("AAPL"), **whole)
    valid = [line for line in lines if line.startswith("{")]
    damaged = [line for line in lines if line not in valid]
    trades = [each for each in map(json.loads, valid) if each["hd"]["rtype"] == 0]
    assert (len(trades), len(damaged)) == (8, 2)
    for line in damaged:
        with pytest.raises(json.JSONDecodeError):
            json.loads(line)


async def test_damaged_rows_leave_the_names_of_columns(tmp_path):
    async with gateway(trades_apart(tmp_path, 10), faults="damage") as address:
        lines = await lines_of(address, wants("AAPL"), encoding="csv")
    at = next(n for n, line in enumerate(lines) if "ts_recv" in line and "price" in line)
    assert set(lines[at + 1]).isdisjoint("0123456789,")
    assert [line.count(",") for line in lines[at + 2 :]] == [lines[at].count(",")] * 9
