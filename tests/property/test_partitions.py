"""Runs cut into parts: nothing lost, nothing twice, and every symbol where it belongs."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Frames, Reason, TradeRun, Trades
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.batches import BatchError
from mdtool.wire.partitions import PartitionEncoder, decode_record, partition_of

SYMBOLS = [f"SYMBOL{number}" for number in range(12)]

frames = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.sampled_from(range(len(SYMBOLS)))),
        st.tuples(st.just("refused"), st.sampled_from(list(Reason))),
    ),
    max_size=60,
)


def run_of(rows):
    """A run whose tick k has the price k + 1."""
    ticks = [(k, value) for k, (kind, value) in enumerate(rows) if kind == "tick"]
    refused = [(k, value) for k, (kind, value) in enumerate(rows) if kind == "refused"]
    offset = np.array([k for k, _ in ticks], np.uint32)
    return Frames(
        Trades(
            symbol=np.array([symbol for _, symbol in ticks], np.uint32),
            price=offset.astype(np.int64) + 1,
            size=offset.astype(np.int64) + 1_000,
            ts_event=offset.astype(np.int64) + 10**18,
            ts_recv=offset.astype(np.int64) + 2 * 10**18,
        ),
        offset=offset,
        count=len(rows),
        refused_offset=np.array([k for k, _ in refused], np.uint32),
        refused_reason=np.array([reason for _, reason in refused], np.uint8),
    )


@given(frames, st.integers(1, 7), st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_each_frame_is_in_the_partition_of_its_symbol_once_and_in_order(rows, partitions, stream):
    symbols = SymbolTable(SYMBOLS)
    encoder = PartitionEncoder(symbols, partitions)
    found = {}
    met = []
    for partition, data in encoder.encode(TradeRun(symbols, stream, 5, run_of(rows))):
        met.append(partition)
        part = decode_record(data)
        assert (part.stream_id, part.first_sequence) == (stream, 5)
        frames, trades = part.frames, part.trades
        assert frames.count == len(rows)
        assert (np.diff(frames.offset.astype(np.int64)) > 0).all()
        assert sorted(part.symbols) == sorted({part.symbols[k] for k in trades.symbol.tolist()})
        for k, offset in enumerate(frames.offset.tolist()):
            symbol = part.symbols[trades.symbol[k]]
            assert zlib.crc32(symbol.encode()) % partitions == partition
            assert trades.price[k] == offset + 1
            assert trades.size[k] == offset + 1_000
            assert trades.ts_event[k] == offset + 10**18
            assert trades.ts_recv[k] == offset + 2 * 10**18
            assert found.setdefault(offset, symbol) is symbol
        for k, offset in enumerate(frames.refused_offset.tolist()):
            assert zlib.crc32(stream.encode()) % partitions == partition
            reason = Reason(int(frames.refused_reason[k]))
            assert found.setdefault(offset, reason) is reason
    assert len(met) == len(set(met))
    expected = [SYMBOLS[value] if kind == "tick" else value for kind, value in rows]
    assert [found[offset] for offset in range(len(rows))] == expected


def test_symbols_met_later_have_partitions_too():
    symbols = SymbolTable(SYMBOLS[:1])
    encoder = PartitionEncoder(symbols, 3)
    list(encoder.encode(TradeRun(symbols, "s", 0, run_of([("tick", 0)]))))
    symbols.intern("LATER")
    ((partition, data),) = encoder.encode(TradeRun(symbols, "s", 1, run_of([("tick", 1)])))
    assert partition == partition_of("LATER", 3)
    assert list(decode_record(data).symbols) == ["LATER"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"frames": 3, "offset": np.array([1, 1], "<u4").tobytes()}, "do not rise"),
        ({"frames": 3, "offset": np.array([1, 3], "<u4").tobytes()}, "do not rise"),
        ({"frames": 1, "offset": np.array([0, 1], "<u4").tobytes()}, "each of its"),
        ({"frames": 3}, "each of its"),
        (
            {
                "frames": 4,
                "offset": np.array([0, 1], "<u4").tobytes(),
                "refused_offset": np.array([1], "<u4").tobytes(),
                "refused_reason": bytes([Reason.PRICE]),
            },
            "both takes and refuses",
        ),
    ],
)
def test_impossible_offsets_are_rejected(columns, reason):
    two = np.ones(2, "<i8").tobytes()
    message = marketdata_pb2.TickBatch(
        stream_id="s",
        new_symbols=["A"],
        symbol=bytes(8),
        price=two,
        volume=two,
        exchange_timestamp=two,
        ingest_timestamp=two,
        **columns,
    )
    with pytest.raises(BatchError, match=reason):
        decode_record(message.SerializeToString())


def test_bytes_that_are_not_a_message_are_rejected():
    with pytest.raises(BatchError, match="not a TickBatch"):
        decode_record(b"\xff\xff garbage")
