"""Columns on the aggregation engine's calls: read back as they were, and checked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, Probe, Reason, TradeRun, Trades
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import (
    BarColumns,
    BarUpdates,
    BatchError,
    Counts,
    Updates,
    decode_bar_updates,
    decode_bars,
    decode_batch,
    decode_updates,
    encode_bar_updates,
    encode_bars,
    encode_batch,
    encode_updates,
)

SYMBOLS = ["AAPL", "MSFT"]


def frames() -> Frames:
    """Return a run of four frames, the third of them refused."""
    column = np.array([100, 101, 102], np.int64)
    return Frames(
        trades=Trades(
            symbol=np.array([0, 1, 0], np.uint32),
            price=column,
            size=column + 10,
            ts_event=column + 20,
            ts_recv=column + 30,
        ),
        offset=np.array([0, 1, 3], np.uint32),
        count=4,
        refused_offset=np.array([2], np.uint32),
        refused_reason=np.array([Reason.PRICE], np.uint8),
    )


def batch(run: Frames, symbols=(), stream_id="s", first_sequence=0) -> marketdata_pb2.TickBatch:
    return sent(
        encode_batch(TradeRun(SymbolTable(SYMBOLS), stream_id, first_sequence, run), symbols)
    )


def assert_equal(found, expected) -> None:
    for field in dataclasses.fields(expected):
        value = getattr(expected, field.name)
        if isinstance(value, np.ndarray):
            assert getattr(found, field.name).dtype == value.dtype
            assert getattr(found, field.name).tolist() == value.tolist()
        elif dataclasses.is_dataclass(value):
            assert_equal(getattr(found, field.name), value)
        else:
            assert getattr(found, field.name) == value


def sent(message):
    """Return a message as its receiver has it."""
    return type(message).FromString(message.SerializeToString())


def test_a_batch_is_read_back():
    table = SymbolTable()
    found = decode_batch(batch(frames(), SYMBOLS, "desk-7", 2**40), table)
    assert (found.stream_id, found.first_sequence) == ("desk-7", 2**40)
    assert found.symbols is table
    assert list(table) == SYMBOLS
    assert_equal(found.frames, frames())


def test_a_batch_without_refusals_leaves_its_offsets_out():
    run = Frames.of(frames().trades)
    message = batch(run, SYMBOLS)
    assert message.offset == b""
    assert_equal(decode_batch(message, SymbolTable()).frames, run)


@pytest.mark.parametrize("run", [frames().after(2).first(1), Frames.empty()])
def test_a_batch_may_hold_refusals_alone_or_nothing(run):
    assert_equal(decode_batch(batch(run), SymbolTable()).frames, run)


def test_later_batches_use_the_same_table():
    table = SymbolTable()
    decode_batch(batch(frames(), SYMBOLS), table)
    decode_batch(batch(frames()), table)
    assert list(table) == SYMBOLS


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"price": b"1234567"}, "column price of 7 bytes is cut in a number"),
        ({"volume": bytes(16)}, "different lengths"),
        ({"symbol": bytes(8)}, "different lengths"),
        ({"refused_reason": b""}, "different lengths"),
        ({"symbol": np.array([0, 2, 0], "<u4").tobytes()}, "symbol 2 is outside"),
        ({"frames": 5}, "does not account for each of its 5 frames"),
        ({"frames": 2**32 - 1}, "does not account for each"),
        ({"offset": np.array([0, 3, 1], "<u4").tobytes()}, "do not rise"),
        ({"offset": np.array([0, 1, 1], "<u4").tobytes()}, "do not rise"),
        ({"offset": np.array([0, 1, 4], "<u4").tobytes()}, "do not rise"),
        ({"refused_offset": np.array([9], "<u4").tobytes()}, "do not rise"),
        ({"refused_offset": np.array([1], "<u4").tobytes()}, "both takes and refuses"),
        ({"refused_reason": b"\x00"}, "for an unknown reason"),
        ({"refused_reason": b"\x07"}, "for an unknown reason"),
        (
            {"offset": b"", "refused_offset": b"", "refused_reason": b""},
            "does not account for each",
        ),
        ({"new_symbols": ["AAPL", "AAPL"]}, "in the call's table already"),
    ],
)
def test_columns_that_contradict_each_other_are_rejected(changes, complaint):
    message = batch(frames(), SYMBOLS)
    for name, value in changes.items():
        if name == "new_symbols":
            message.new_symbols[:] = value
        else:
            setattr(message, name, value)
    with pytest.raises(BatchError, match=complaint) as caught:
        decode_batch(sent(message), SymbolTable())
    assert isinstance(caught.value, PeerError)


def bars() -> BarColumns:
    names = [field.name for field in dataclasses.fields(BarColumns)]
    return BarColumns(**{name: np.array([k, -k, 2**62]) for k, name in enumerate(names)})


def test_bars_are_read_back():
    assert_equal(decode_bars(sent(encode_bars(bars()))), bars())


def test_bars_of_different_lengths_are_rejected():
    message = encode_bars(bars())
    message.count = b""
    with pytest.raises(BatchError, match="count 0"):
        decode_bars(message)


def bar_updates() -> BarUpdates:
    return BarUpdates(np.array([0, 0, 1], np.uint32), bars())


def test_bar_updates_are_read_back():
    table = SymbolTable()
    message = sent(encode_bar_updates(bar_updates(), ["A", "B"]))
    found = decode_bar_updates(message, table)
    assert found.symbol.tolist() == bar_updates().symbol.tolist()
    assert_equal(found.bars, bars())
    assert list(table) == ["A", "B"]


def test_bar_updates_outside_the_table_are_rejected():
    with pytest.raises(BatchError, match="outside the call's table of 1"):
        decode_bar_updates(sent(encode_bar_updates(bar_updates(), ["A"])), SymbolTable())


def test_bar_updates_of_different_lengths_are_rejected():
    message = encode_bar_updates(bar_updates(), ["A", "B"])
    message.symbol = bytes(4)
    with pytest.raises(BatchError, match="symbol 1, start 3"):
        decode_bar_updates(message, SymbolTable())


def updates() -> Updates:
    names = [field.name for field in dataclasses.fields(Updates)]
    columns = {name: np.array([k, k + 100]) for k, name in enumerate(names)}
    columns["symbol"] = np.array([1, 0], np.uint32)
    counts = Counts(ticks=7, duplicates=2, late=1, refused={"price": 3, "malformed": 1})
    others = {"counts": counts, "is_part": True, "probes": [Probe("desk-7", 5)]}
    more = {"new_lots": [(0, 10)], "traceparent": "00-1-1-01"}
    return Updates(**(columns | others | more))


def test_updates_are_read_back():
    table = SymbolTable()
    assert_equal(decode_updates(sent(encode_updates(updates(), ["A", "B"])), table), updates())
    assert (list(table), table.lots_since(0)) == (["A", "B"], [(0, 10)])


@pytest.mark.parametrize(("symbol", "step"), [(2, 10), (0, 0), (0, -1)])
def test_a_lot_that_is_not_valid_is_rejected(symbol, step):
    message = encode_batch(TradeRun(SymbolTable(), "a", 0, frames()), SYMBOLS, [(symbol, step)])
    with pytest.raises(BatchError, match=f"lot of {step} for symbol {symbol}"):
        decode_batch(sent(message), SymbolTable())


def test_updates_outside_the_table_are_rejected():
    with pytest.raises(BatchError, match="outside the call's table of 1"):
        decode_updates(sent(encode_updates(updates(), ["A"])), SymbolTable())


def test_updates_of_different_lengths_are_rejected():
    message = encode_updates(updates(), ["A", "B"])
    message.high = bytes(8)
    with pytest.raises(BatchError, match="high 1"):
        decode_updates(message, SymbolTable())


def test_an_empty_update_carries_counts_alone():
    message = marketdata_pb2.UpdateBatch(counts=marketdata_pb2.IngestCounts(ticks=5))
    found = decode_updates(sent(message), SymbolTable())
    assert len(found) == 0
    assert found.counts == Counts(ticks=5)
