"""Lines of the VWAP feed, there and back, and what is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.symbols import normal_symbol
from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.vwap_lines import (
    LineError,
    VwapState,
    decode_state,
    encode_error,
    encode_state,
    encode_subscribe,
    parse_subscribe,
)

prices = st.integers(-(2**63), 2**63 - 2)
counts = st.integers(0, 2**63 - 1)
printable = st.characters(min_codepoint=32, max_codepoint=126)
symbols = st.text(printable, min_size=1, max_size=70).map(normal_symbol).filter(bool)
states = st.builds(
    VwapState,
    symbols,
    prices,
    counts,
    st.one_of(prices, st.just(UNDEF_PRICE)),
    counts,
    counts,
    st.one_of(st.none(), st.integers(1, 10**12)),
)


@given(states)
def test_a_state_comes_back_exactly(state):
    line = encode_state(state)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_state(line) == state


def test_a_line_is_plain_json():
    line = encode_state(VwapState("AAPL", 243_770_000_000, 400, 243_861_856_501, 100, 17))
    assert line == (
        b'{"symbol":"AAPL","price":243.77,"volume":400,"vwap":243.861856501,"window":100,'
        b'"timestamp":17}\n'
    )
    assert json.loads(encode_state(VwapState("X", 0, 0, UNDEF_PRICE, 1, 0)))["vwap"] is None
    of_a_lot = encode_state(VwapState("BTC/USD", 10**9, 7, 10**9, 1, 2, 10_000))
    assert of_a_lot.endswith(b'"timestamp":2,"lot":0.00001}\n')


GOOD = {"symbol": "A", "price": 1.5, "volume": 1, "vwap": 1.5, "window": 1, "timestamp": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": ""},
        {"symbol": 7},
        {"symbol": "\x1b[2J"},
        {"symbol": "A" * 71},
        {"price": "1.5"},
        {"price": None},
        {"price": True},
        {"price": 1e300},
        {"price": 10**400},
        {"vwap": [1]},
        {"volume": -1},
        {"volume": 1.5},
        {"volume": True},
        {"timestamp": None},
        {"window": "100"},
    ],
)
def test_an_object_with_a_wrong_value_is_no_state(change):
    assert decode_state(json.dumps(GOOD).encode()).price == 1_500_000_000
    with pytest.raises(LineError):
        decode_state(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1 400 Bad Request",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\xff\xfe",
        b'{"symbol":"A"}',
        b'{"symbol":"A","price":NaN,"volume":1,"vwap":1,"window":1,"timestamp":1}',
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_what_is_no_object_of_the_feed_is_no_state(line):
    with pytest.raises(LineError):
        decode_state(line)


def test_what_the_feed_complains_of_is_told():
    with pytest.raises(LineError, match="the feed reported: too many"):
        decode_state(encode_error("too many clients"))


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"SUBSCRIBE AAPL,MSFT", {"AAPL", "MSFT"}),
        (b"subscribe aapl , msft,\r", {"AAPL", "MSFT"}),
        (b"  SUBSCRIBE BRK B", {"BRK B"}),
        (encode_subscribe(["MSFT", "AAPL"]), {"AAPL", "MSFT"}),
    ],
)
def test_symbols_that_a_client_asks_for(line, wanted):
    assert parse_subscribe(line) == wanted


def test_a_star_is_every_symbol():
    assert parse_subscribe(b"SUBSCRIBE *\r\n") is None


@pytest.mark.parametrize(
    "line",
    [
        b"SUBSCRIBE",
        b"SUBSCRIBE ,",
        b"SUBSCRIBEAAPL",
        b"UNSUBSCRIBE AAPL",
        b"GET / HTTP/1.1",
        b"\x00\xff",
        b"SUBSCRIBE A\tB",
        b"SUBSCRIBE " + b"A" * 71,
    ],
)
def test_what_asks_for_nothing_there_is(line):
    with pytest.raises(LineError):
        parse_subscribe(line)
