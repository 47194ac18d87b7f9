import logging

import numpy as np
import pytest

from mdtool.adapters.dbn_select import SchemaSource, SelectedSource, Selection
from mdtool.adapters.dbn_source import DbnSource
from mdtool.core.dtypes import TRADE
from mdtool.core.errors import InputError, UsageError
from mdtool.wire.dbn import encode_records
from tests.reference import dbn_streams as streams
from tests.support.instruments import bare

START, STEP = streams.START, 1_000_000


class Pipe:
    """Bytes that are read a piece at a time, so that each piece is an array."""

    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)
        self.is_closed = False

    def read(self, n: int) -> bytes:
        return self.left.pop(0) if self.left else b""

    def close(self) -> None:
        self.is_closed = True


def source(*parts, schema="mbo"):
    pipe = Pipe(streams.header(schema), *(bytes(part) for part in parts))
    return DbnSource("f.dbn", pipe.read, pipe.close), pipe


def orders(n, first=0):
    return encode_records(streams.mbo(n, first))


def sequences(selected):
    return [number for batch in selected for number in batch.records["sequence"].tolist()]


def selected(*parts, **wanted):
    return sequences(SelectedSource(source(*parts)[0], Selection(**wanted)))


def test_start_is_inclusive_and_end_exclusive_on_the_index_timestamp():
    assert selected(orders(10), start_ns=START + 3 * STEP) == [3, 4, 5, 6, 7, 8, 9]
    assert selected(orders(10), end_ns=START + 3 * STEP) == [0, 1, 2]
    assert selected(orders(10), start_ns=START + STEP, end_ns=START + 2 * STEP) == [1]
    assert selected(orders(10), start_ns=START + 1, end_ns=START + STEP + 1) == [1]


def test_bars_are_cut_by_ts_event():
    bars = encode_records(streams.bars(5, 32))
    opened, _ = source(bars, schema="ohlcv-1s")
    got = SelectedSource(opened, Selection(start_ns=START + 10**9, end_ns=START + 3 * 10**9))
    assert [len(array) for array in got] == [2]


SECOND, MINUTE = 1_000_000_000, 60_000_000_000


def file_of(*parts, schema="mbo"):
    opened, pipe = source(*parts, schema=schema)
    opened.size_bytes = sum(map(len, pipe.left))
    return opened, pipe


def at(*seconds, first=0):
    records = streams.mbo(len(seconds), first)
    records["ts_recv"] = START + np.array(seconds) * SECOND
    return encode_records(records)


def test_reading_of_a_stream_ends_once_the_range_has():
    opened, pipe = source(orders(5), orders(5, 5), orders(5, 10), orders(5, 15))
    assert sequences(SelectedSource(opened, Selection(end_ns=START + 7 * STEP))) == list(range(7))
    assert len(pipe.left) == 1


def test_reading_of_a_file_ends_a_minute_later():
    late = at(30, 9, first=4)
    parts = at(1, 5), at(12, 15, first=2), late, at(69, first=6), at(70, 90, first=7), at(95)
    chosen = SelectedSource(source(*parts)[0], Selection(end_ns=START + 10 * SECOND))
    assert sequences(chosen) == [0, 1]
    opened, pipe = file_of(*parts)
    with opened:
        chosen = SelectedSource(opened, Selection(end_ns=START + 10 * SECOND))
        assert sequences(chosen) == [0, 1, 5]
        assert pipe.left == []  # a timestamp has fallen
    opened, _ = file_of(at(1, 5), at(12, 15, first=2), at(70, 90, first=4), at(95), at(96))
    with opened:
        assert sequences(SelectedSource(opened, Selection(end_ns=START + 14 * SECOND))) == [0, 1, 2]
        assert opened.position.records == 7


def test_a_capture_is_read_to_its_end():
    bars = streams.bars(3, 33)
    bars["ts_event"] = START + np.array([-60, 0, 60]) * SECOND
    parts = (
        orders(3),
        at(61, first=3),
        encode_records(bars[:2]),
        at(200, first=4),
        bars[2:].tobytes(),
    )
    opened, _ = source(*parts, schema=None)
    part = SchemaSource(opened, "ohlcv-1m")
    chosen = SelectedSource(part, Selection(end_ns=START + MINUTE + 1))
    assert [len(batch) for batch in chosen] == [2, 1]


def test_symbols_are_chosen_by_their_text():
    assert selected(orders(6), symbols=("MSFT",)) == [1, 3, 5]
    assert selected(orders(6), symbols=("MSFT", "AAPL")) == list(range(6))


def test_a_symbol_that_a_live_stream_maps_is_chosen_from_there_on():
    live = streams.mapping(1, "LIVE")
    opened, _ = source(orders(4), live, orders(4, 4))
    arrays = list(bare(SelectedSource(opened, Selection(symbols=("LIVE",)))))
    assert [array["rtype"][0] for array in arrays] == [22, 160]
    assert arrays[1]["sequence"].tolist() == [4, 6]


def test_symbols_that_never_came_are_named(caplog):
    assert selected(orders(6), symbols=("MSFT", "TSLA", "IBM")) == [1, 3, 5]
    assert caplog.record_tuples == [
        (
            "mdtool.adapters.dbn_select",
            logging.WARNING,
            "f.dbn: no records of IBM, TSLA; there are AAPL, MSFT",
        )
    ]


def test_an_array_of_which_all_is_wanted_is_not_copied():
    opened, _ = source(orders(6))
    (array,) = bare(SelectedSource(opened, Selection(start_ns=START)))
    assert array.base is not None


def test_a_selection_closes_its_source():
    opened, pipe = source(orders(1))
    with SelectedSource(SchemaSource(opened, "mbo"), Selection()) as part:
        assert part.name == "f.dbn"
    assert pipe.is_closed


class TestSchema:
    def test_trades_out_of_orders(self):
        part = SchemaSource(source(orders(7), orders(2, 1))[0], "trades")
        assert str(part.metadata.schema) == "trades"
        (trades,) = bare(part)
        assert trades.dtype == TRADE
        assert trades["sequence"].tolist() == [0, 3, 6]

    def test_a_stream_of_its_own_schema_stays_as_it_is(self):
        part = SchemaSource(source(orders(3))[0], "mbo")
        assert np.array_equal(next(iter(part)).records, streams.mbo(3))

    def test_one_schema_of_several(self):
        bars = encode_records(streams.bars(2, 33))
        opened, _ = source(orders(3), bars, streams.mapping(1, "X"), schema=None)
        part = SchemaSource(opened, "ohlcv-1m")
        assert [array["rtype"][0] for array in bare(part)] == [33, 22]

    def test_a_schema_that_there_is_not(self):
        with pytest.raises(
            UsageError, match="schema 'trade': does not exist; did you mean 'trades'"
        ):
            SchemaSource(source()[0], "trade")

    def test_what_cannot_be_had(self):
        with pytest.raises(InputError, match="holds mbo, from which mbp-1 cannot be taken"):
            SchemaSource(source()[0], "mbp-1")
        with pytest.raises(InputError, match="holds ohlcv-1s, from which trades cannot"):
            SchemaSource(source(schema="ohlcv-1s")[0], "trades")
