"""What commands make of captures of a live session, which promise neither schema nor order."""

from __future__ import annotations

import json
from pathlib import Path

import databento_dbn as dbn

from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from tests.support.commands import completed, output_of
from tests.support.dbn_files import MAY_1, header, mapping, order, trade, write

SECOND, MINUTE = 10**9, 60 * 10**9


def lines(*arguments: object, stdin: bytes = b"", said: str = "") -> list[dict]:
    """What is written as JSON, without the mappings of the capture."""
    rows = map(json.loads, output_of(*arguments, "-J", stdin=stdin, said=said).splitlines())
    return [row for row in rows if row.get("hd", {}).get("rtype") != RTYPE_SYMBOL_MAPPING]


def bar(ts: int, instrument_id: int) -> bytes:
    prices = dict.fromkeys(("open", "high", "low", "close"), 10**9)
    return bytes(
        dbn.OHLCVMsg(
            rtype=33, publisher_id=2, instrument_id=instrument_id, ts_event=ts, volume=1, **prices
        )
    )


def capture(path: Path, *records: bytes) -> Path:
    return write(path, header({}, schema=None), mapping(1, "ESM4", MAY_1), *records)


class TestOrder:
    def test_bars_that_come_after_the_next_trades_are_of_their_minute(self, tmp_path):
        path = capture(
            tmp_path / "f.dbn",
            trade(1, MAY_1 + 30 * SECOND, 1, 1),
            trade(1, MAY_1 + MINUTE + 5, 2, 1),
            bar(MAY_1, 1),
            trade(2, MAY_1 + 5 * MINUTE, 2, 1),
            bar(MAY_1, 2),
        )
        end = ("--end", MAY_1 + MINUTE, "--speed", 0)
        for source, stdin in ((path, b""), ("-", path.read_bytes())):
            rows = lines("replay-dbn", source, *end, stdin=stdin)
            assert [row["hd"]["rtype"] for row in rows] == [0, 33, 33]

    def test_an_order_that_comes_late_is_in_the_book(self, tmp_path):
        path = capture(
            tmp_path / "f.dbn",
            order(1, MAY_1, "R"),
            order(1, MAY_1 + 1, "A", "B", 100, 1, 1),
            order(1, MAY_1 + MINUTE, "A", "B", 101, 1, 2),
            order(1, MAY_1 + 2, "A", "A", 105, 1, 3),
        )
        for option in (("--at", MAY_1 + 10), ("--end", MAY_1 + 11)):
            (book,) = lines("book", path, *option)
            assert book["stats"]["total_orders"] == 2


class TestTrades:
    def test_are_counted_once_stored_once_and_told(self, tmp_path):
        records = []
        for number, size in enumerate((5, 6, 7)):
            ts = MAY_1 + number * SECOND
            records += [order(1, ts, "T", "B", 100, size), trade(1, ts, 100, size)]
        path = capture(tmp_path / "f.dbn", *records)
        said = "counted each trade once: 2 by trades, 1 by mbo; left out 1 by trades, 2 by mbo"
        (made,) = lines("aggregate", path, said=said)
        assert made["volume"] == "18"
        assert len(lines("vwap", path, said=said)) == 3
        (made,) = lines("aggregate", path, "--schema", "mbo")
        assert made["volume"] == "18"
        url = f"sqlite:///{tmp_path}/trades.db"
        told = completed("store", path, "--store", url, "-q")
        assert b"3 trades new, 0 known already" in told.stdout
        again = completed("store", path, "--store", url, "-q", "--schema", "mbo")
        assert b"0 trades new, 3 known already" in again.stdout

    def test_of_several_files_are_stored_once(self, tmp_path):
        names = {"ESM4": {1: 1}}
        times = [MAY_1 + number * SECOND for number in range(40)]
        trades = [trade(1, ts, 100, 1) for ts in times]
        orders = [order(1, ts, "T", "B", 100, 1) for ts in times[5:]]
        paths = (
            write(tmp_path / "mbo.dbn", header(names, "mbo"), *orders),
            write(tmp_path / "trades.dbn", header(names), *trades),
        )
        url = f"sqlite:///{tmp_path}/trades.db"
        told = completed("store", *paths, "--store", url, "-q")
        assert b"40 trades new" in told.stdout
        assert b"40 by trades; left out 35 by mbo" in told.stderr
        assert b"0 trades new" in completed("store", paths[1], "--store", url, "-q").stdout


class TestWarnings:
    def test_are_told_found_and_make_books_partial(self, tmp_path):
        slow = dbn.SystemMsg(ts_event=MAY_1, msg="Warning: slow reading", code=dbn.SystemCode(2))
        path = capture(
            tmp_path / "f.dbn",
            order(1, MAY_1, "R"),
            order(1, MAY_1 + 1, "A", "B", 100, 1, 1),
            bytes(slow),
            order(1, MAY_1 + SECOND, "A", "A", 101, 1, 2),
        )
        said = "1 slow_reader: Warning: slow reading (code 2)"
        (book,) = lines("book", path, said=said)
        assert book["partial"] is True
        found = completed("book", "verify", path, "-J")
        assert found.returncode == 1
        (finding,) = json.loads(found.stdout)["findings"]
        assert (finding["kind"], finding["text"], finding["code"], finding["count"]) == (
            "slow_reader",
            "Warning: slow reading",
            2,
            1,
        )
        table = completed("book", "verify", path, "--allow", "slow-reader")
        assert table.returncode == 0
        assert b"Warning: slow reading" in table.stdout
        for command in ("replay-dbn", "aggregate", "vwap"):
            assert said in completed(command, path, "-J").stderr.decode()
        live = completed("replay-dbn", "-", "-J", stdin=path.read_bytes()).stderr.decode()
        assert "stdin: the stream warns: Warning: slow reading (code 2)" in live
