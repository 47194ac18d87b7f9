"""Several venues of a symbol: told apart by id and name everywhere, or consolidated."""

from __future__ import annotations

import csv
import io
import json

import pyarrow.parquet
import pytest

import mdtool
from mdtool.core.publishers import publisher_name
from tests.support import dbn_files as files
from tests.support.commands import completed

XCHI, XCIS = 39, 40


@pytest.fixture
def books(tmp_path):
    """AAPL at two venues, whose order ids collide; the second clears its book at the end."""
    t = files.MAY_1
    header = files.header({"AAPL": {1: 38}}, "mbo", dataset="DBEQ.BASIC")
    venues = [XCHI, XCIS]
    records = [files.order(38, t, "R", publisher_id=venue) for venue in venues]
    records += [
        files.order(38, t + 1, "A", "B", 170, 5, 1, XCHI),
        files.order(38, t + 2, "A", "B", 170, 7, 1, XCIS),
        files.order(38, t + 3, "A", "A", 171, 2, 2, XCIS),
        files.order(38, t + 4, "A", "B", 169, 1, 3, XCHI),
        files.order(38, t + files.HOUR, "R", publisher_id=XCIS),
    ]
    return files.write(tmp_path / "books.dbn", header, *records)


@pytest.fixture
def trades(tmp_path):
    header = files.header({"AAPL": {1: 38}}, "trades", dataset="DBEQ.BASIC")
    rows = [(170, 5, XCHI), (172, 7, XCIS), (171, 1, 999)]
    records = [
        files.trade(38, files.MAY_1 + at, price, size, venue)
        for at, (price, size, venue) in enumerate(rows)
    ]
    return files.write(tmp_path / "trades.dbn", header, *records)


def run(*arguments) -> str:
    done = completed(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def lines(*arguments) -> list[dict]:
    return [json.loads(line) for line in run(*arguments).splitlines()]


def test_names_are_the_vendors():
    assert publisher_name(1) == "GLBX.MDP3.GLBX"
    assert publisher_name(XCHI) == "DBEQ.BASIC.XCHI"
    assert publisher_name(0) is publisher_name(65_535) is None


def test_names_of_the_installed_client():
    known = pytest.importorskip("databento.common.publishers").Publisher
    theirs = {publisher.to_int(): str(publisher) for publisher in known}
    ours = {number: name for number in theirs if (name := publisher_name(number))}
    assert len(ours) > 100
    assert ours == {number: theirs[number] for number in ours}


def test_books_name_their_publisher(books):
    end = ("--at", files.MAY_1 + 5, "--json")
    named = [(book["publisher_id"], book["publisher"]) for book in lines("book", books, *end)]
    assert named == [(XCHI, "DBEQ.BASIC.XCHI"), (XCIS, "DBEQ.BASIC.XCIS")]
    kinds = lines("book", "verify", books, "--json")
    assert "DBEQ.BASIC.XCHI" in json.dumps(kinds)


@pytest.mark.parametrize("command", [["aggregate"], ["book", "--emit", "event"]])
def test_rows_name_it_if_asked(books, trades, command):
    path = trades if command == ["aggregate"] else books
    rows = [*csv.DictReader(io.StringIO(run(*command, path, "-C", "-s", "--publishers")))]
    assert [*rows[0]][-2:] == ["symbol", "publisher"]
    assert {row["publisher_id"]: row["publisher"] for row in rows} == {
        "39": "DBEQ.BASIC.XCHI",
        "40": "DBEQ.BASIC.XCIS",
        **({"999": ""} if path == trades else {}),
    }
    assert run(*command, path, "-C", "-s").splitlines()[0].endswith(",symbol")


def test_json_names_it_if_asked(trades):
    bars = lines("aggregate", trades, "-J", "--publishers")
    assert [bar["publisher"] for bar in bars] == ["DBEQ.BASIC.XCHI", "DBEQ.BASIC.XCIS", None]


def test_columns_name_it_if_asked(trades, tmp_path):
    run("aggregate", trades, "--publishers", "-o", tmp_path / "bars.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "bars.parquet")
    assert table["publisher"].to_pylist() == ["DBEQ.BASIC.XCHI", "DBEQ.BASIC.XCIS", None]


class TestConsolidated:
    def test_snapshots(self, books):
        (book,) = lines("book", books, "--consolidate", "--json", "--at", files.MAY_1 + 5)
        assert (book["publisher_id"], book["publisher"]) == (0, None)
        assert book["levels"] == {
            "bids": [
                {"price": "170", "size": 12, "count": 2},
                {"price": "169", "size": 1, "count": 1},
            ],
            "asks": [{"price": "171", "size": 2, "count": 1}],
        }
        assert book["stats"] == {"total_orders": 4, "bid_levels": 2, "ask_levels": 1}

    def test_what_one_venue_clears_leaves_the_others(self, books):
        (book,) = lines("book", books, "--consolidate", "--json")
        assert [level["size"] for level in book["levels"]["bids"]] == [5, 1]
        assert book["levels"]["asks"] == []

    def test_each_change(self, books):
        text = run("book", books, "--consolidate", "--emit", "event", "-C", "--depth", "1")
        rows = [*csv.DictReader(io.StringIO(text))]
        assert [row["bid_sz_00"] for row in rows] == ["5", "12", "12", "5"]
        assert {row["publisher_id"] for row in rows} == {"0"}

    def test_from_python(self, books):
        (book,) = mdtool.book(books, at=files.MAY_1 + 5, consolidate=True, depth=1)
        assert (book.symbol, book.publisher_id, book.publisher) == ("AAPL", 0, None)
        assert book.bids.tolist() == [(170 * 10**9, 12, 2)]
        apart = [*mdtool.book(books, at=files.MAY_1 + 5)]
        assert [each.publisher for each in apart] == ["DBEQ.BASIC.XCHI", "DBEQ.BASIC.XCIS"]

    def test_queues_are_of_one_venue(self, books):
        done = completed("book", books, "--consolidate", "--json", "--orders")
        assert done.returncode == 2
        assert b"a queue is of one publisher" in done.stderr

    def test_bars(self, trades):
        (bar,) = lines("aggregate", trades, "--consolidate", "-J")
        assert (bar["volume"], bar["hd"]["publisher_id"]) == ("13", 0)

    def test_windows(self, trades):
        windows = lines("vwap", trades, "--consolidate", "-J")
        assert {window["hd"]["publisher_id"] for window in windows} == {0}
        assert windows[-1]["quantity"] == "13"
