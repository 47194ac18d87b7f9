"""Lines about books say what snapshots of the same books say, and what the records say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_TIMESTAMP, format_price
from mdtool.engine.book.snapshot import Snapshot
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from mdtool.wire.book_line_kernel import LINE_BYTES
from mdtool.wire.book_lines import BookLines
from tests.support.book_streams import deep, wild, with_snapshots
from tests.support.instruments import batch, index_of

SYMBOLS = np.array(["ESM4", "", 'a "quoted" \\ 値', "X" * 71], np.object_)
PUBLISHERS = np.array(["GLBX.MDP3.GLBX", None, "XNAS.ITCH.XNAS", "X" * 20], np.object_)


def lines_of(stream: np.ndarray, depth: int, symbol: np.ndarray) -> list[str]:
    lines, done = BookLines(), 0
    books, text = Books(), b""
    for rows in books.states(batch(stream), depth):
        text += lines.encode(rows, symbol[done : done + len(rows)], SYMBOLS, PUBLISHERS)
        done += len(rows)
    return text.decode().splitlines(keepends=True)


def expected(books: Books, record: np.void, depth: int, symbol: int) -> dict:
    key = index_of(int(record["publisher_id"]), int(record["instrument_id"]))
    told = Snapshot.of(BookView(books, key), depth).as_dict(SYMBOLS[symbol]) | {
        "publisher": PUBLISHERS[symbol]
    }
    del told["anomalies"]
    for side in told["levels"].values():
        for level in side:
            level["size"] = min(level["size"], UNDEF_ORDER_SIZE)
    for side, best in (("bids", "bid"), ("asks", "ask")):
        told["bbo"][best] = told["levels"][side][0] if told["levels"][side] else None
    if record["ts_recv"] == UNDEF_TIMESTAMP:
        told["timestamp"] = told["timestamp_ns"] = None
    told["record"] = {
        "ts_event": None if record["ts_event"] >= 2**63 else str(record["ts_event"]),
        "sequence": int(record["sequence"]),
        "action": record["action"].decode(),
        "side": record["side"].decode(),
        "price": format_price(int(record["price"])) or None,
        "size": None if record["size"] == UNDEF_ORDER_SIZE else int(record["size"]),
        "flags": int(record["flags"]),
    }
    return told


@given(
    stream=st.one_of(wild(40), deep(60), with_snapshots()),
    depth=st.sampled_from([1, 2, 10, 70]),
    data=st.data(),
)
def test_each_line_is_the_snapshot_after_its_record(stream, depth, data):
    drawn = data.draw(st.lists(st.integers(0, 3), min_size=len(stream), max_size=len(stream)))
    symbol = np.array(drawn, np.uint32)
    books = Books()
    lines = lines_of(stream, depth, symbol)
    assert len(lines) == len(stream)
    for at, line in enumerate(lines):
        books.apply(batch(stream[at : at + 1]))
        assert line.endswith("\n")
        assert json.loads(line) == expected(books, stream[at], depth, int(symbol[at]))


@given(ts_ns=st.integers(0, 2**63 - 2), price=st.integers(-(2**63), 2**63 - 2))
def test_any_time_and_price_can_be_written(ts_ns, price):
    row = np.zeros((1, 13), np.int64)
    row[0, [1, 2, 4]] = ts_ns, price, ts_ns
    told = json.loads(bytes(BookLines().encode(row, np.zeros(1, np.uint32), SYMBOLS, PUBLISHERS)))
    assert told["timestamp_ns"] == told["record"]["ts_event"] == str(ts_ns)
    written = np.datetime64(told["timestamp"].removesuffix("Z"), "ns")
    assert written == np.datetime64(ts_ns, "ns")
    assert told["record"]["price"] == format_price(price)


@pytest.mark.parametrize("character", [b'"', b"\\", b"\n", b"\0", b"\x80", b"\xff"])
def test_what_is_no_letter_is_left_out(character):
    row = np.zeros((1, 13), np.int64)
    row[0, 3] = character[0] << 32 | character[0] << 40
    told = json.loads(bytes(BookLines().encode(row, np.zeros(1, np.uint32), SYMBOLS, PUBLISHERS)))
    assert (told["record"]["action"], told["record"]["side"]) == ("", "")


def test_the_longest_line_has_room():
    depth = 10
    row = np.full((3, 9 + 4 * depth), -1, np.int64)
    row[:, [1, 4]] = 2**63 - 1
    row[:, 2] = -(2**63)
    row[:, 3] = 0x4141_4141_FFFFFFFE
    for level in range(depth):
        row[:, 6 + 4 * level : 8 + 4 * level] = -(2**63)
    row[:, -3] = 2**63 - 1
    lines = bytes(
        BookLines().encode(row, np.full(3, 3, np.uint32), SYMBOLS, PUBLISHERS)
    ).splitlines()
    assert [json.loads(line)["symbol"] for line in lines] == ["X" * 71] * 3
    without_levels = len(lines[0]) - sum(
        len(json.dumps(level, separators=(",", ":"))) + 1
        for told in [json.loads(lines[0])]
        for levels in (told["bbo"].values(), *told["levels"].values())
        for level in levels
    )
    assert without_levels <= LINE_BYTES


def test_symbols_that_come_later_are_known():
    lines = BookLines()
    row = np.zeros((1, 13), np.int64)
    lines.encode(row, np.zeros(1, np.uint32), np.array(["A"], np.object_), PUBLISHERS[:1])
    more = np.array(["A", "B"], np.object_), PUBLISHERS[:2]
    assert json.loads(bytes(lines.encode(row, np.ones(1, np.uint32), *more)))["symbol"] == "B"
