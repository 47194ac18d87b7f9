"""Quotes as JSON, this program's and others'."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.core.units import UNDEF_PRICE
from mdtool.wire.quotes import Quote, QuoteError, decode_quote, encode_quote

PRICES = st.none() | st.integers(-UNDEF_PRICE + 1, UNDEF_PRICE - 1)
SYMBOLS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=70)


def test_a_quote_has_the_shape_that_its_users_know():
    quote = Quote("MSFT", 415_250_000_000, None, 415_260_000_000, 1_735_201_234_567)
    assert encode_quote(quote) == (
        b'{"symbol":"MSFT","bid":415.25,"ask":null,"last":415.26,"ts":1735201234567}'
    )


def test_one_of_a_partial_book_says_so():
    quote = Quote("MSFT", 415_250_000_000, None, None, 5, is_partial=True)
    assert encode_quote(quote, ',"stale":true') == (
        b'{"symbol":"MSFT","bid":415.25,"ask":null,"last":null,"ts":5,"partial":true,"stale":true}'
    )


@given(
    SYMBOLS.map(str.upper),
    PRICES,
    PRICES,
    PRICES,
    st.integers(0, 2**63 // 10**6 - 1),
    st.booleans(),
)
def test_what_is_written_is_read_back_exactly(symbol, bid, ask, last, ts_ms, is_partial):
    quote = Quote(symbol, bid, ask, last, ts_ms, is_partial)
    assert decode_quote(encode_quote(quote)) == quote
    assert json.loads(encode_quote(quote))["symbol"] == symbol


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        (
            '{"ts": 5, "last": 1e2, "ask": 187.10000000000002, "symbol": " msft ", "venue": "X"}',
            Quote("MSFT", None, 187_100_000_000, 100_000_000_000, 5),
        ),
        ('{"symbol":"ES","bid":-1.5,"ts":0}', Quote("ES", -1_500_000_000, None, None, 0)),
    ],
)
def test_others_may_write_it_in_their_own_way(text, quote):
    assert decode_quote(text.encode()) == quote


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"12",
        b"null",
        b"[" * 1_000,
        b'{"symbol":"MSFT"}',
        b'{"symbol":"MSFT","ts":"5"}',
        b'{"symbol":"MSFT","ts":-5}',
        b'{"symbol":"MSFT","ts":1.5}',
        b'{"symbol":"MSFT","ts":99999999999999999999}',
        b'{"symbol":"","ts":5}',
        b'{"symbol":5,"ts":5}',
        b'{"symbol":"\\u00e9","ts":5}',
        b'{"symbol":"A\\u0000","ts":5}',
        b'{"symbol":"%s","ts":5}' % (b"A" * 71),
        b'{"symbol":"MSFT","bid":"1.5","ts":5}',
        b'{"symbol":"MSFT","bid":true,"ts":5}',
        b'{"symbol":"MSFT","bid":NaN,"ts":5}',
        b'{"symbol":"MSFT","bid":Infinity,"ts":5}',
        b'{"symbol":"MSFT","bid":1e99,"ts":5}',
        b'{"symbol":"MSFT","bid":1e999999999,"ts":5}',
        b'{"symbol":"MSFT","bid":9223372036.854775807,"ts":5}',
        b'{"symbol":"MSFT","ts":5,"more":"%s"}' % (b"A" * 1_024),
    ],
)
def test_what_is_no_quote_is_refused(text):
    with pytest.raises(QuoteError):
        decode_quote(text)
