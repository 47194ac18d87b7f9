"""Frames written by the kernel are those that protobuf writes, and are read back as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.core.errors import InputError
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import encode_frame
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder
from mdtool.wire.tick_encoder import encode_frames

SENT_NS = 1_735_201_234_567_000_000

names = st.lists(
    st.text("ABZ019./ ", min_size=1, max_size=70).filter(lambda name: name == name.strip()),
    min_size=1,
    max_size=5,
    unique=True,
)
rows = st.lists(
    st.tuples(
        st.integers(0, 2**32),
        st.one_of(st.integers(-9, 2**51), st.integers(-(2**63), 2**63 - 2)),
        st.one_of(st.integers(1, 1000), st.integers(1, 2**63 - 1)),
        st.one_of(st.integers(1, 2**63 - 1), st.integers(10**17, 2**63 - 1)),
    ),
    max_size=20,
)


@settings(max_examples=200)
@given(names, rows)
def test_frames_are_what_protobuf_writes(symbols, ticks):
    expected = [
        encode_frame(
            tick_pb2.Tick(
                symbol=symbols[symbol % len(symbols)],
                price=price / 1e9,
                volume=volume,
                exchange_timestamp=timestamp,
            ).SerializeToString()
        )
        for symbol, price, volume, timestamp in ticks
    ]
    columns = [list(column) for column in zip(*ticks, strict=True)] or [[], [], [], []]
    encoded = encode_frames(symbols, [k % len(symbols) for k in columns[0]], *columns[1:])
    assert bytes(encoded.data) == b"".join(expected)
    assert encoded.ends.tolist() == np.cumsum([len(frame) for frame in expected]).tolist()


@settings(max_examples=100)
@given(st.lists(st.integers(-4 * 10**15, 4 * 10**15), min_size=1, max_size=50))
def test_prices_up_to_four_million_come_back_exactly(prices):
    encoded = encode_frames(
        ["A"], [0] * len(prices), prices, [1] * len(prices), [SENT_NS] * len(prices)
    )
    frames = TickDecoder(SymbolIndex(), any_price=True).feed(encoded.data, SENT_NS).frames
    assert frames.trades.price.tolist() == prices


@pytest.mark.parametrize(
    ("symbols", "row", "complaint"),
    [
        (["A"], (0, 2**63 - 1, 1, 1), "tick 0 has no price"),
        (["A"], (0, 1, -1, 1), "tick 0 has a volume of -1"),
        (["A"], (0, 1, 1, 0), "tick 0 has a timestamp of 0"),
        (["A"], (1, 1, 1, 1), "symbol index"),
        (["A"], (-1, 1, 1, 1), "symbol index"),
        ([], (0, 1, 1, 1), "symbol index"),
        ([""], (0, 1, 1, 1), "symbol ''"),
        (["A" * 71], (0, 1, 1, 1), "symbol 'AAAA"),
        (["É"], (0, 1, 1, 1), "symbol 'É'"),
    ],
)
def test_what_no_server_would_take_is_not_written(symbols, row, complaint):
    with pytest.raises(InputError, match=complaint):
        encode_frames(symbols, *([value] for value in row))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="lengths"):
        encode_frames(["A"], [0, 0], [1, 1], [1], [1, 1])
