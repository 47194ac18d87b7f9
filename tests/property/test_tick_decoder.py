"""Ticks decoded by the kernel equal protobuf's own parser and the plain rules, on every input."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdtool.core.trades import Frames, Reason
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import encode_frame
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import FrameError, TickDecoder
from tests.reference import ticks as reference
from tests.support.tick_payloads import NOW_NS, payloads, right_ticks

MAX_SYMBOLS = 4


def outcome(frames: Frames, index: SymbolIndex) -> reference.Expected:
    """Return columns in the reference's terms."""
    assert set(frames.trades.ts_recv.tolist()) <= {NOW_NS}
    columns = (
        frames.offset.tolist(),
        [index.symbols[symbol] for symbol in frames.trades.symbol.tolist()],
        frames.trades.price.tolist(),
        frames.trades.size.tolist(),
        frames.trades.ts_event.tolist(),
    )
    refused = zip(frames.refused_offset.tolist(), frames.refused_reason.tolist(), strict=True)
    return reference.Expected(
        accepted=list(zip(*columns, strict=True)),
        refused=[(offset, Reason(reason).label) for offset, reason in refused],
        frames=frames.count,
    )


def decode(chunks: list[bytes], max_symbols: int, any_price: bool = False) -> reference.Expected:
    """Return what a decoder makes of a connection that brings `chunks`."""
    index = SymbolIndex(max_symbols)
    decoder = TickDecoder(index, any_price=any_price)
    runs = []
    is_broken = False
    for chunk in chunks:
        try:
            runs.append(decoder.feed(chunk, NOW_NS).frames)
        except FrameError as error:
            runs.append(error.decoded.frames)
            is_broken = True
            break
    result = outcome(Frames.concatenate(runs), index)
    result.is_broken = is_broken
    return result


frames = st.lists(payloads.map(encode_frame), max_size=12).map(b"".join)
endings = st.one_of(
    st.just(b""),
    right_ticks.map(lambda payload: encode_frame(payload)[:-1]),
    st.sampled_from([b"\0", b"\0\0\0\0", struct.pack(">I", 1_000_001), b"\xff" * 4 + b"AAPL"]),
)


@settings(max_examples=300)
@given(frames, endings, st.booleans())
def test_the_kernel_decides_as_protobuf_and_the_rules_do(data, ending, any_price):
    # A tick goes ahead, for a control frame means something else at the beginning.
    data = encode_frame(b"\x18\x01") + data + ending
    expected = reference.decode(data, MAX_SYMBOLS, any_price)
    assert decode([data], MAX_SYMBOLS, any_price) == expected


@settings(max_examples=150)
@given(frames, endings, st.data())
def test_chunks_change_nothing(data, ending, draws):
    data = encode_frame(b"\x18\x01") + data + ending
    cuts = sorted(draws.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    chunks = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
    assert decode(chunks, MAX_SYMBOLS) == reference.decode(data, MAX_SYMBOLS)
    assert decode([bytes([byte]) for byte in data], MAX_SYMBOLS) == reference.decode(
        data, MAX_SYMBOLS
    )


@settings(max_examples=200)
@given(
    st.one_of(
        st.floats(),
        st.floats(1e-10, 1e10),
        st.integers(-(2**53), 2**53).map(lambda halves: halves * 5e-10),
    ),
    st.booleans(),
)
@example(5e-10, False)
@example(9223372036.854775, False)
@example(9223372036.854776, False)
@example(0.0, True)
@example(-1.5e-9, True)
@example(-2.5e-9, True)
@example(-9223372036.854775, True)
@example(-9223372036.854776, True)
@example(float("-inf"), True)
def test_prices_are_rounded_as_python_rounds_them(price, any_price):
    payload = tick_pb2.Tick(symbol="A", price=price, volume=1, exchange_timestamp=NOW_NS)
    data = encode_frame(payload.SerializeToString())
    expected = reference.decode(data, MAX_SYMBOLS, any_price)
    assert decode([data], MAX_SYMBOLS, any_price) == expected


def test_many_frames_without_a_price_have_room():
    least = tick_pb2.Tick(symbol="A", volume=1, exchange_timestamp=10**17)
    data = encode_frame(least.SerializeToString()) * 1_000
    decoded = decode([data], MAX_SYMBOLS, any_price=True)
    assert decoded == reference.decode(data, MAX_SYMBOLS, any_price=True)
    assert len(decoded.accepted) == 1_000


def right_frame_parts() -> dict[str, bytes]:
    """Return payloads whose every corruption is tried."""
    plain = tick_pb2.Tick(symbol="ES.H5", price=190.125, volume=300, exchange_timestamp=NOW_NS)
    stamped = tick_pb2.Tick(
        symbol="AAPL  240621C00190000",
        price=1e-9,
        volume=1,
        exchange_timestamp=NOW_NS,
        ingest_timestamp=NOW_NS,
    )
    text = plain.SerializeToString()
    return {
        "plain": text,
        "stamped": stamped.SerializeToString(),
        "reversed": text[7:] + text[:7],
        "accented": tick_pb2.Tick(symbol="é€\U0001f600").SerializeToString() + text[7:],
        "unknown": b"\x35abcd\x3a\x02hi\x41abcdefgh\x48\x80\x01\xf8\x01\x05" + text,
        "grouped": text + b"\x33\x08\x01\x3a\x01x\x34",
    }


@pytest.mark.parametrize("name", right_frame_parts())
def test_every_change_of_one_byte_is_decided_as_protobuf_does(name):
    payload = right_frame_parts()[name]
    changed = [
        payload[:at] + bytes([byte]) + payload[at + 1 :]
        for at in range(len(payload))
        for byte in range(256)
    ]
    data = b"".join(map(encode_frame, changed))
    assert decode([data], 10_000) == reference.decode(data, 10_000)


@pytest.mark.parametrize("name", right_frame_parts())
def test_every_truncation_is_decided_as_protobuf_does(name):
    payload = right_frame_parts()[name]
    data = b"".join(encode_frame(payload[:end]) for end in range(1, len(payload)))
    assert decode([data], MAX_SYMBOLS) == reference.decode(data, MAX_SYMBOLS)


def texts_around_every_rule_of_utf8() -> list[bytes]:
    """Return lead bytes with every second byte, and with later ones on both sides of a bound."""
    edges = (0x41, 0x7F, 0x80, 0xBF, 0xC0)
    two = [bytes(pair) for pair in itertools.product(range(0x80, 256), range(256))]
    three = [bytes((*pair, edge)) for pair in two if pair[0] >= 0xE0 for edge in edges]
    four = [bytes((*text, edge)) for text in three if text[0] >= 0xEF for edge in (0x80, 0xC0)]
    return two + three + four


def test_utf8_is_validated_as_protobuf_does():
    payloads = [b"\x0a" + bytes([len(text)]) + text for text in texts_around_every_rule_of_utf8()]
    # Behind a cut character, a field whose tag begins as its last byte would.
    payloads += [b"\x0a\x01\xc3\xa8\x01\x05", b"\x0a\x02\xe2\x82\xa8\x01\x05"]
    # A later symbol does not heal an earlier one.
    payloads += [b"\x0a\x01\xff" + payload for payload in right_frame_parts().values()]
    data = b"".join(map(encode_frame, payloads))
    assert decode([data], MAX_SYMBOLS) == reference.decode(data, MAX_SYMBOLS)


def payloads_that_look_plain() -> dict[str, bytes]:
    """Return payloads with the bytes of a plain tick where one that guesses would look for them."""
    price = b"\x11" + struct.pack("<d", 190.125)
    timestamp = b"\x20" + b"\x80" * 8 + b"\x18"
    behind_the_symbol = price + b"\x18\x05" + timestamp
    # Were 0x85 the length, and not 5 in two bytes, the symbol would end where the filler does.
    filler = bytes(0x85 - 1 - 5 - len(behind_the_symbol) - 2)
    unknown = b"\x32" + bytes([len(filler + behind_the_symbol)]) + filler + behind_the_symbol
    return {
        "a length of two bytes": b"\x0a\x85\x00AAPLX" + behind_the_symbol + unknown,
        "a volume that ends in a tag": b"\x0a\x01A" + price + b"\x18" + b"\x80" * 8 + timestamp,
    }


@pytest.mark.parametrize("name", payloads_that_look_plain())
def test_what_only_looks_plain_is_decided_as_protobuf_does(name):
    data = encode_frame(payloads_that_look_plain()[name])
    assert decode([data], MAX_SYMBOLS) == reference.decode(data, MAX_SYMBOLS)
