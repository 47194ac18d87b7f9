"""Trades of SQLite stores in blocks: what they hold, in which layers, and what SQL sees of them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import StoreFormatError
from mdtool.adapters.stores.port import SymbolTotals
from mdtool.adapters.stores.sqlite import layers
from mdtool.adapters.stores.sqlite.blocks import Block, BlockDamageError, row_of
from tests.support.stores import MS, NOON_NS, run, step

LEAST, MOST = -(2**63), 2**63 - 1
_TRADES = (
    "SELECT timestamp, stream, sequence, price, volume, ingest_timestamp FROM trades "
    "ORDER BY timestamp, stream, sequence"
)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "trades.db"


@pytest.fixture
def url(path) -> str:
    return f"sqlite:///{path}?synchronous=normal"


def rows_of(history) -> list[tuple[int, ...]]:
    """All trades of AAPL, upwards."""
    found = []
    for page in history.trades("AAPL"):
        trades = page.trades
        columns = (
            *(trades.ts_event, page.stream, page.sequence),
            *(trades.price, trades.size, trades.ts_recv),
        )
        found += zip(*(column.tolist() for column in columns), strict=True)
    return found


def query(path: Path, statement: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def in_turns(first: int, count: int, every_ns: int = MS, start_ns: int = NOON_NS):
    return [(0, n + 1, n + 2, start_ns + n * every_ns) for n in range(first, first + count)]


@pytest.mark.parametrize("low", [LEAST, -1, 0, 17])
@pytest.mark.parametrize("span", [0, 1, 255, 256, 2**40, 2**62, 2**63])
def test_columns_hold_any_integers(low, span):
    high = min(low + span, MOST)
    column = np.array([low, high, low, (low + high) // 2], np.int64)
    trades = np.stack([np.arange(4), *[column] * 5])
    block = Block.of_row((1, 2, *row_of(trades)))
    assert (block.trades() == trades).all()
    assert (block.trades(1, 3) == trades[:, 1:3]).all()
    assert (block.number, block.symbol, block.count) == (1, 2, 4)
    assert (block.first, block.last) == ((0, low, low), (3, column[3], column[3]))


def test_a_block_whose_bytes_changed_is_damaged():
    row = list(row_of(np.arange(600).reshape(6, 100)))
    row[-1] = row[-1][:-1] + b"\xff"
    with pytest.raises(BlockDamageError):
        Block.of_row((1, 2, *row))


def test_a_changed_byte_of_a_store_is_noticed_by_pages_and_checks(path, url):
    with open_store(url) as store:
        store.write(step(["AAPL"], run("a", 0, in_turns(0, 100))))
        assert query(path, "SELECT layer, count FROM trade_blocks") == [(0, 100)]
        query(path, "UPDATE trade_blocks SET price = zeroblob(length(price))")
        for read in (lambda: store.page("AAPL", 1), store.recount, store.repair, store.sequences):
            with pytest.raises(StoreFormatError, match="is damaged; restore it from a copy"):
                read()


def test_a_block_out_of_order_is_noticed_by_checks(path, url):
    with open_store(url) as store:
        store.write(step(["AAPL"], run("a", 0, in_turns(0, 100))))
        query(path, "UPDATE trade_blocks SET last_timestamp = last_timestamp + 1")
        with pytest.raises(StoreFormatError, match="not in order"):
            store.recount()


def test_sql_sees_all_trades_in_one_view(path, url):
    with open_store(url) as store:
        prices = [LEAST, MOST, -1, 0, 1]
        many = [(0, prices[n % 5], n + 1, NOON_NS + n % 7) for n in range(3_000)]
        store.write(step(["AAPL"], run("a", 0, many)))
        store.write(step(["AAPL"], run("b", 0, in_turns(0, 3))))
        assert query(path, "SELECT count(*) FROM trade_rows") == [(3,)]
        assert query(path, _TRADES) == rows_of(store)
        assert len(rows_of(store)) == 3_003


def test_writes_that_overlap_are_merged_before_a_page_reads_too_many(path, url):
    rounds, count = 40, 300
    with open_store(url) as store, open_history(url) as history:
        for number in range(rounds):
            store.write(step(["AAPL"], run(f"s{number}", 0, in_turns(0, count))))
            ((deepest,),) = query(path, "SELECT max(layer) FROM trade_blocks")
            assert deepest < layers.LAYERS
        wanted = [
            (NOON_NS + n * MS, stream, n, n + 1, n + 2, NOON_NS + n * MS + 5)
            for n in range(count)
            for stream in range(1, rounds + 1)
        ]
        for reader in (store, history):
            assert rows_of(reader) == wanted
            newest = reader.page("AAPL", 50)
            assert [tuple(newest.key(row)) for row in range(50)] == [
                row[:3] for row in wanted[:-51:-1]
            ]
            assert reader.recount() == []
        assert store.sequences().T.tolist() == [[n, 0, count - 1] for n in range(1, rounds + 1)]
        overlapping = """
        SELECT count(*) FROM trade_blocks AS one JOIN trade_blocks AS other
        ON one.layer = other.layer AND one.number < other.number
        AND (one.first_timestamp, one.first_stream, one.first_sequence)
            <= (other.last_timestamp, other.last_stream, other.last_sequence)
        AND (other.first_timestamp, other.first_stream, other.first_sequence)
            <= (one.last_timestamp, one.last_stream, one.last_sequence)
        """
        assert query(path, overlapping) == [(0,)]


def test_trades_in_order_are_in_the_first_layer(path, url):
    with open_store(url) as store:
        for first in range(0, 2_000, 100):
            store.write(step(["AAPL"], run("a", first, in_turns(first, 100, every_ns=0))))
        assert query(path, "SELECT DISTINCT layer FROM trade_blocks") == [(0,)]
        assert [row[2] for row in rows_of(store)] == list(range(2_000))


def test_late_trades_among_others_make_no_block_that_spans_all_between(path, url):
    with open_store(url) as store:
        store.write(step(["AAPL"], run("a", 0, in_turns(0, 1_000))))
        late = in_turns(0, 3, start_ns=NOON_NS + 5)
        store.write(step(["AAPL"], run("b", 0, [*late, *in_turns(1_000, 500)])))
        assert query(path, "SELECT DISTINCT layer FROM trade_blocks") == [(0,)]
        assert query(path, "SELECT count(*) FROM trade_rows") == [(3,)]
        assert len(rows_of(store)) == 1_503


def test_parts_that_are_stored_in_rows_or_blocks_are_left_out(url):
    many = in_turns(0, 500)
    with open_store(url) as store:
        for first, count in ((10, 20), (200, 200), (0, 300), (25, 10), (150, 350)):
            part = run("a", first, many[first : first + count], is_part=True)
            store.write(step(["AAPL"], part))
            store.write(step(["AAPL"], part))
        assert store.symbols() == [SymbolTotals("AAPL", 500, NOON_NS + 499 * MS)]
        store.write(step(["AAPL"], run("a", 0, many)))
        assert [row[2] for row in rows_of(store)] == list(range(500))
        assert store.recount() == []
