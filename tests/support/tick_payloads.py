"""Strategies for payloads of Tick frames, from valid ones to noise."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from mdtool.wire._pb import tick_pb2

NOW_NS = 1_735_201_234_567_000_000


def varint(value: int, padding: int = 0) -> bytes:
    """Return a varint with `padding` superfluous bytes."""
    groups = []
    value &= 2**64 - 1
    while value >= 0x80:
        groups.append(value & 0x7F)
        value >>= 7
    groups += [value] + [0] * padding
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


symbols = st.one_of(
    st.sampled_from(["AAPL", "msft", "ES.FUT", "BRK/B", " Goog\t", "AAPL  240621C00190000", "~"]),
    st.text("aZ0.~ \x1c\t\x7f\x00", max_size=12),
    st.text(max_size=10),
    st.text("xY", min_size=66, max_size=74),
)
symbol_bytes = st.one_of(
    symbols.map(str.encode),
    st.binary(max_size=9),
    st.sampled_from(
        [
            b"\xc0\xaf",
            b"\xed\x9f\xbf",
            b"\xed\xa0\x80",
            b"\xe0\x9f\xbf",
            b"\xe0\xa0\x80",
            b"\xf0\x8f\xbf\xbf",
            b"\xf0\x90\x80\x80",
            b"\xf4\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"A\xe2\x82",
            b"\x80",
        ]
    ),
)
prices = st.one_of(
    st.sampled_from(
        [
            190.125,
            0.0,
            -0.0,
            -1.0,
            1e300,
            5e-10,
            5.000000000000001e-10,
            1e-9,
            1.5e-9,
            2.5e-9,
            4503599.627370496,
            9223372036.854774,
            9223372036.854775,
            9223372036.854776,
        ]
    ),
    st.floats(0.001, 1e6),
    st.floats(),
)
volumes = st.one_of(
    st.integers(1, 10**6), st.sampled_from([0, -1, 2**63 - 1, -(2**63)]), st.integers(0, 2**64 - 1)
)
timestamps = st.one_of(
    st.just(NOW_NS),
    st.sampled_from([10**17, 10**17 - 1, NOW_NS // 10**6, NOW_NS // 10**9, 0, -1, 2**63 - 1]),
    st.integers(0, 2**64 - 1),
)
paddings = st.one_of(st.just(0), st.integers(0, 9))


@st.composite
def numbers(draw, values):
    return varint(draw(values), draw(paddings))


@st.composite
def delimited(draw, contents):
    content = draw(contents)
    return varint(len(content), draw(paddings)) + content


def tagged(number: int, wire_type: int, values):
    """Return fields of one number and wire type, some with padded tags."""
    return st.builds(
        lambda padding, value: varint(number << 3 | wire_type, padding) + value, paddings, values
    )


known_fields = st.one_of(
    tagged(1, 2, delimited(symbol_bytes)),
    tagged(2, 1, prices.map(lambda price: struct.pack("<d", price))),
    tagged(3, 0, numbers(volumes)),
    tagged(4, 0, numbers(timestamps)),
    tagged(5, 0, numbers(timestamps)),
)
field_numbers = st.one_of(st.integers(0, 20), st.sampled_from([2**29 - 1, 2**29, 2**32]))
values_by_wire_type = {
    0: numbers(st.integers(0, 2**64 - 1)),
    1: st.binary(min_size=8, max_size=8),
    2: delimited(st.binary(max_size=12)),
    4: st.just(b""),
    5: st.binary(min_size=4, max_size=4),
    6: st.binary(max_size=4),
    7: st.binary(max_size=4),
}


@st.composite
def other_fields(draw):
    wire_type = draw(st.sampled_from([0, 0, 1, 2, 5, 5, 0, 2, 4, 6, 7]))
    return draw(tagged(draw(field_numbers), wire_type, values_by_wire_type[wire_type]))


@st.composite
def groups(draw):
    opened = draw(st.integers(1, 8))
    closed = draw(st.one_of(st.just(opened), st.integers(1, 8)))
    inner = b"".join(draw(st.lists(st.one_of(known_fields, other_fields()), max_size=3)))
    depth = draw(st.sampled_from([1, 1, 1, 2, 99, 100, 101]))
    return varint(opened << 3 | 3) * depth + inner + varint(closed << 3 | 4) * depth


ticks_in_order = st.builds(
    lambda symbol, price, volume, exchange, ingest: (
        tick_pb2.Tick(
            symbol=symbol,
            price=price,
            volume=volume,
            exchange_timestamp=exchange,
            ingest_timestamp=ingest,
        ).SerializeToString()
        or b"\x18\x00"
    ),
    symbols,
    prices,
    volumes.filter(lambda value: value < 2**63),
    timestamps.filter(lambda value: value < 2**63),
    st.sampled_from([0, NOW_NS]),
)
right_ticks = st.builds(
    lambda symbol, price, volume: tick_pb2.Tick(
        symbol=symbol, price=price, volume=volume, exchange_timestamp=NOW_NS
    ).SerializeToString(),
    st.sampled_from(["AAPL", "msft", "LONGER.SYMBOL", "X"]),
    st.floats(0.01, 1e5),
    st.integers(1, 2**40),
)
loose_fields = st.lists(
    st.one_of(known_fields, known_fields, other_fields(), groups()), min_size=1, max_size=9
)


@st.composite
def shuffled_ticks(draw):
    """Valid ticks with their fields in any order, among unknown fields."""
    fields = [
        draw(tagged(1, 2, delimited(st.sampled_from([b"AAPL", b" a b ", b"A" * 70])))),
        draw(tagged(2, 1, st.floats(0.01, 1e5).map(lambda price: struct.pack("<d", price)))),
        draw(tagged(3, 0, numbers(st.integers(1, 10**9)))),
        draw(tagged(4, 0, numbers(st.just(NOW_NS)))),
        *draw(st.lists(st.one_of(known_fields, other_fields(), groups()), max_size=2)),
    ]
    return b"".join(draw(st.permutations(fields)))


@st.composite
def damaged_ticks(draw):
    payload = bytearray(draw(st.one_of(ticks_in_order, right_ticks, shuffled_ticks())))
    for _ in range(draw(st.integers(1, 3))):
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.integers(0, 255))
    return bytes(payload[: draw(st.integers(1, len(payload)))])


payloads = st.one_of(
    right_ticks,
    ticks_in_order,
    shuffled_ticks(),
    loose_fields.map(b"".join),
    damaged_ticks(),
    st.binary(min_size=1, max_size=60),
)
