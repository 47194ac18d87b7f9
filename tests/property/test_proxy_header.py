"""PROXY protocol headers: written by the specification, read in any pieces, never read past."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.wire.proxy_header import (
    LOCAL_HEADER,
    MAX_HEADER_BYTES,
    SIGNATURE,
    Origin,
    ProxyHeaderError,
    crc32c,
    decode_header,
    missing_bytes,
)

PORTS = st.integers(0, 65_535)
EXTENSIONS = st.lists(
    st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)),
    max_size=4,
)
CHECKSUM = 3


def extensions_of(pairs):
    return b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in pairs)


def header(command, kind, rest):
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, kind, len(rest)) + rest


def summed(head):
    """A header with one extension more, the checksum of all of it."""
    rest = head[16:] + struct.pack("!BHI", CHECKSUM, 4, 0)
    whole = head[:14] + struct.pack("!H", len(rest)) + rest
    return whole[:-4] + crc32c(whole).to_bytes(4, "big")


def binary(client, server, client_port, server_port, more=b""):
    family = socket.AF_INET if client.version == 4 else socket.AF_INET6
    hosts = b"".join(socket.inet_pton(family, str(each)) for each in (client, server))
    kind = 0x11 if client.version == 4 else 0x21
    return header(1, kind, hosts + struct.pack("!HH", client_port, server_port) + more)


@st.composite
def headers(draw):
    """A header, and the client that it names."""
    version = draw(st.sampled_from([4, 6]))
    client, server = (draw(st.ip_addresses(v=version)) for _ in range(2))
    ports = draw(PORTS), draw(PORTS)
    origin = Origin(str(client), ports[0])
    shape = draw(st.sampled_from(["line", "unknown", "local", "unix", "unspecified", "binary"]))
    more = extensions_of(draw(EXTENSIONS))
    if shape == "line":
        text = f"PROXY TCP{version} {client} {server} {ports[0]} {ports[1]}\r\n"
        return text.encode(), origin
    if shape == "unknown":
        return draw(st.sampled_from([b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN a b 1 2\r\n"])), None
    if shape == "local":
        return header(0, draw(st.integers(0, 255)), draw(st.binary(max_size=60))), None
    if shape == "unix":
        return header(1, 0x31, bytes(216) + more), None
    if shape == "unspecified":
        return header(1, 0, more), None
    whole = binary(client, server, *ports, more)
    return (summed(whole) if draw(st.booleans()) else whole), origin


def read(data, sizes):
    """Read a header as a listener does, in pieces; return what was read."""
    at, sizes = 0, iter(sizes)
    while missing := missing_bytes(data[:at]):
        piece = min(missing, next(sizes, missing), len(data) - at)
        if not piece:
            raise EOFError
        at += piece
    return data[:at]


@given(headers(), st.binary(max_size=20), st.lists(st.integers(1, 30), max_size=200))
def test_a_header_is_read_in_any_pieces_and_nothing_behind_it(made, behind, sizes):
    data, origin = made
    assert read(data + behind, sizes) == data
    assert decode_header(data) == origin


@given(
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]),
    st.binary(max_size=120),
)
def test_any_bytes_are_a_header_or_rejected(start, rest):
    try:
        found = decode_header(read(start + rest, ()))
    except EOFError:
        return
    except ProxyHeaderError:
        return
    assert found is None or ipaddress.ip_address(found.host)


@given(headers(), st.data())
def test_a_changed_byte_of_what_is_summed_is_noticed(made, data):
    whole, origin = made
    if origin is None or whole.startswith(b"PROXY"):
        return
    whole = bytearray(summed(whole))
    at = data.draw(st.integers(16, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    changed = bytes(whole)
    # A byte of an extension's type or length may hide the checksum itself.
    with contextlib.suppress(ProxyHeaderError):
        decode_header(changed)
        assert summed_is_hidden(changed)


def summed_is_hidden(data):
    at = 16 + (12 if data[13] >> 4 == 1 else 36)
    while at < len(data):
        kind, length = struct.unpack_from("!BH", data, at)
        if kind == CHECKSUM:
            return False
        at += 3 + length
    return True


def test_the_checksum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283


V4 = binary(ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("10.0.0.1"), 4711, 50050)
REJECTED = {
    "another protocol": (b"GET / HTTP/1.1\r\n\r\n", "no PROXY protocol header"),
    "a wrong signature": (SIGNATURE[:11] + b"?" + V4[12:], "no PROXY protocol header"),
    "version 1 in binary": (SIGNATURE + b"\x11" + V4[13:], "version 1"),
    "version 3": (SIGNATURE + b"\x31" + V4[13:], "version 3"),
    "a command": (SIGNATURE + b"\x22" + V4[13:], "command 2"),
    "a family": (V4[:13] + b"\x41" + V4[14:], "family 4, transport 1"),
    "a transport": (V4[:13] + b"\x13" + V4[14:], "family 1, transport 3"),
    "datagrams": (V4[:13] + b"\x12" + V4[14:], "datagrams"),
    "too few bytes for addresses": (header(1, 0x21, bytes(12)), "12 bytes are too few"),
    "no end": (SIGNATURE + b"\x21\x11\xff\xff", "65,551 bytes are over 16,384"),
    "half an extension": (header(1, 0x11, V4[16:] + b"\x04\x00"), "extension is cut off"),
    "an extension too long": (header(1, 0x11, V4[16:] + b"\x04\x00\x09ab"), "is cut off"),
    "a wrong checksum": (summed(V4)[:-1] + b"?", "its checksum is wrong"),
    "a short checksum": (header(1, 0x11, V4[16:] + b"\x03\x00\x01a"), "a checksum of 1 bytes"),
    "a line without end": (b"PROXY TCP4 " + b"1" * 200, "a line over 107 bytes"),
    "a line of too little": (b"PROXY TCP4 1.2.3.4\r\n", "expects PROXY"),
    "a line of another family": (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "expects PROXY"),
    "a line with a name": (b"PROXY TCP4 localhost 1.2.3.4 1 2\r\n", "not an address"),
    "a line with a wrong family": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", "not an address"),
    "a line with a wrong port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "a port"),
    "a line with no port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 x 2\r\n", "a port"),
}


@pytest.mark.parametrize("what", REJECTED)
def test_a_wrong_header_is_rejected(what):
    data, why = REJECTED[what]
    with pytest.raises(ProxyHeaderError, match=why):
        decode_header(read(data, ()))


def test_the_longest_header():
    rest = V4[16:] + struct.pack("!BH", 4, MAX_HEADER_BYTES - len(V4) - 3)
    rest += bytes(MAX_HEADER_BYTES - 16 - len(rest))
    assert decode_header(read(header(1, 0x11, rest), ())) == Origin("203.0.113.7", 4711)


def test_a_header_of_a_client_behind_no_proxy():
    assert read(LOCAL_HEADER + b"ticks", ()) == LOCAL_HEADER
    assert decode_header(LOCAL_HEADER) is None
