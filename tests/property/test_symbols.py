"""One rule for what a symbol is, wherever one is read: that of the ingest server's kernel."""

from __future__ import annotations

import contextlib
import json
import time
from string import whitespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdtool.core.errors import MdtoolError
from mdtool.core.symbols import is_symbol, normal_symbol
from mdtool.services.gateway.parameters import parse_symbol
from mdtool.wire._pb import tick_pb2
from mdtool.wire.batches import check_symbol
from mdtool.wire.frames import encode_frame
from mdtool.wire.quotes import decode_quote
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder

NOW_NS = time.time_ns()

texts = st.one_of(
    st.text(max_size=6),
    st.text(st.characters(max_codepoint=0x100), max_size=75),
    st.text(st.sampled_from("aZ9. " + whitespace), max_size=80),
)


def by_kernel(text: str) -> str | None:
    """Return the symbol as the kernel writes it, None where it refuses the tick."""
    index = SymbolIndex()
    tick = tick_pb2.Tick(symbol=text, price=1.0, volume=1, exchange_timestamp=NOW_NS)
    decoded = TickDecoder(index).feed(encode_frame(tick.SerializeToString()), NOW_NS)
    taken = decoded.frames.trades
    return index.symbols[taken.symbol[0]] if len(taken) else None


def of_quote(text: str) -> str:
    return decode_quote(json.dumps({"symbol": text, "last": 1, "ts": 1}).encode()).symbol


def admitted(text: str) -> str:
    check_symbol(text)
    return text


def outcome(read, text: str) -> str | None:
    with contextlib.suppress(MdtoolError):
        return read(text)
    return None


@given(texts)
@example("")
@example(" aapl\t")
@example("A" * 70)
@example("A" * 71)
@example("\x1cA")
@example("A\x1c")
@example("ß")
@example("\xa0A")
def test_the_kernel_has_the_same_rule(text):
    assert by_kernel(text) == normal_symbol(text)


@pytest.mark.parametrize("read", [parse_symbol, of_quote])
@given(text=texts)
def test_all_who_read_symbols_have_the_same_rule(read, text):
    assert outcome(read, text) == normal_symbol(text)


@given(texts)
def test_what_is_normal_stays_as_it_is(text):
    symbol = normal_symbol(text)
    assert is_symbol(text) == (symbol == text)
    assert outcome(admitted, text) == (text if symbol == text else None)
    assert symbol is None or normal_symbol(symbol) == symbol
