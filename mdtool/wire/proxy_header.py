"""The PROXY protocol: by its header a proxy says whose connection it passes on.

One of version 1, all that some proxies send, is a line: `PROXY TCP4 CLIENT SERVER PORT PORT`. One
of version 2 has 12 bytes of a signature; a byte with the version and a command, of which LOCAL is
a connection of the proxy's own; a byte with the family and the transport; two bytes with the
length of the rest; then two addresses and two ports, and extensions.
"""

from __future__ import annotations

import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from mdtool.core.errors import PeerError

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES: Final = 16
MAX_LINE_BYTES: Final = 107
"""The longest header of version 1."""
MAX_HEADER_BYTES: Final = 16_384
"""A proxy may add the client's certificate."""
LOCAL_HEADER: Final = SIGNATURE + b"\x20\0\0\0"
"""What a client sends that is behind no proxy."""
UNEXPECTED: Final = (
    "the peer sends a PROXY protocol header, and this port expects none; set proxy-protocol"
)

_TEXT: Final = b"PROXY "
"""How headers of version 1 begin."""
_UNKNOWN: Final = b"UNKNOWN"
_LEAST_BYTES: Final = len(_TEXT + _UNKNOWN + b"\r\n")
"""The shortest header, of either version."""
_LINE_FIELDS: Final = 6
_LINE_HOSTS: Final[dict[bytes, Any]] = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
_MAX_PORT: Final = 65_535
_OPENING_BYTES: Final = 4
_OPENINGS: Final = frozenset({SIGNATURE[:_OPENING_BYTES], _TEXT[:_OPENING_BYTES]})
_FIXED: Final = struct.Struct("!12sBBH")
_TLV: Final = struct.Struct("!BH")
_PORTS: Final = struct.Struct("!HH")
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_STREAM, _DATAGRAM = 1, 2
_ADDRESS_BYTES: Final = {_UNSPECIFIED: 0, _INET: 12, _INET6: 36, _UNIX: 216}
_HOSTS: Final[dict[int, tuple[int, Any]]] = {_INET: (4, IPv4Address), _INET6: (16, IPv6Address)}
"""The bytes of an address, and what makes its text."""
_CHECKSUM: Final = 3
"""The type of the extension that has a CRC32C of the header."""
_CHECKSUM_BYTES: Final = 4
_CASTAGNOLI: Final = 0x82F63B78


class ProxyHeaderError(PeerError):
    """A connection does not begin with a valid header."""


class Origin(NamedTuple):
    """The client whose connection a proxy passes on."""

    host: str
    port: int


def opens_header(data: bytes) -> bool:
    """Return whether four bytes begin a header, of either version."""
    return data in _OPENINGS


def is_header(data: bytes) -> bool:
    """Return whether the first bytes of a peer are a header, of either version."""
    return data.startswith((SIGNATURE, _TEXT))


def missing_bytes(data: bytes) -> int:
    """Return how many more bytes can be read without reading past the header; 0 once it is whole.

    Parameters
    ----------
    data : bytes
        What has arrived of it.

    Raises
    ------
    ProxyHeaderError
        As soon as what has arrived begins no header.
    """
    is_line = _TEXT.startswith(data[: len(_TEXT)])
    if not (is_line or SIGNATURE.startswith(data[: len(SIGNATURE)])):
        raise ProxyHeaderError(
            "no PROXY protocol header; connect through the proxy, or unset proxy-protocol"
        )
    if len(data) < _LEAST_BYTES:
        return _LEAST_BYTES - len(data)
    if is_line:
        return _missing_of_line(data)
    if len(data) < FIXED_BYTES:
        return FIXED_BYTES - len(data)
    command: int
    follows: int
    _, command, _, follows = _FIXED.unpack_from(data)
    if command >> 4 != 2:
        raise _invalid(f"version {command >> 4}")
    whole = FIXED_BYTES + follows
    if whole > MAX_HEADER_BYTES:
        raise _invalid(f"{whole:,} bytes are over {MAX_HEADER_BYTES:,}")
    return whole - len(data)


def decode_header(data: bytes) -> Origin | None:
    """Return the client that a header names.

    Parameters
    ----------
    data : bytes
        A whole header, of which nothing is missing.

    Returns
    -------
    Origin or None
        None where the connection is the proxy's own, or the client has no address of IP.

    Raises
    ------
    ProxyHeaderError
        When the header is not valid.
    """
    if data.startswith(_TEXT):
        return _decode_line(data)
    _, command, kind, _ = _FIXED.unpack_from(data)
    command, family, transport = command & 15, kind >> 4, kind & 15
    if command == _LOCAL:
        return None
    if command != _PROXY:
        raise _invalid(f"command {command}")
    if family not in _ADDRESS_BYTES or transport > _DATAGRAM:
        raise _invalid(f"family {family}, transport {transport}")
    if transport == _DATAGRAM:
        raise _invalid("it is of datagrams, and this port is of TCP")
    addresses_end = FIXED_BYTES + _ADDRESS_BYTES[family]
    if len(data) < addresses_end:
        raise _invalid(f"{len(data) - FIXED_BYTES} bytes are too few for its addresses")
    _check_extensions(data, addresses_end)
    if family not in _HOSTS or transport != _STREAM:
        return None
    size, make = _HOSTS[family]
    host = make(data[FIXED_BYTES : FIXED_BYTES + size])
    port, _ = _PORTS.unpack_from(data, FIXED_BYTES + 2 * size)
    return Origin(str(host), port)


def _missing_of_line(data: bytes) -> int:
    if data.endswith(b"\r\n"):
        return 0
    if len(data) >= MAX_LINE_BYTES:
        raise _invalid(f"a line over {MAX_LINE_BYTES} bytes")
    return 1 if data.endswith(b"\r") or len(data) == MAX_LINE_BYTES - 1 else 2


def _decode_line(data: bytes) -> Origin | None:
    """Return the client that a header of version 1 names."""
    fields = data.removesuffix(b"\r\n").split(b" ")
    if fields[1] == _UNKNOWN:
        return None
    if fields[1] not in _LINE_HOSTS or len(fields) != _LINE_FIELDS:
        raise _invalid("expects PROXY, TCP4 or TCP6, two addresses and two ports")
    make = _LINE_HOSTS[fields[1]]
    try:
        host, _ = (make(field.decode("ascii")) for field in fields[2:4])
    except (AddressValueError, UnicodeDecodeError) as error:
        raise _invalid(f"not an address: {error}") from error
    ports = fields[4:]
    if not all(port.isdigit() and int(port) <= _MAX_PORT for port in ports):
        raise _invalid("a port is not a number up to 65535")
    return Origin(str(host), int(ports[0]))


def crc32c(data: bytes) -> int:
    """Return the CRC32C (Castagnoli) of bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_OF[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _check_extensions(data: bytes, at: int) -> None:
    """Check that extensions are whole, and their checksum, where there is one."""
    while at < len(data):
        if len(data) - at < _TLV.size:
            raise _invalid("its last extension is cut off")
        kind, length = _TLV.unpack_from(data, at)
        begin = at + _TLV.size
        at = begin + length
        if at > len(data):
            raise _invalid("its last extension is cut off")
        if kind == _CHECKSUM:
            if length != _CHECKSUM_BYTES:
                raise _invalid(f"a checksum of {length} bytes")
            summed = data[:begin] + bytes(_CHECKSUM_BYTES) + data[at:]
            if crc32c(summed) != int.from_bytes(data[begin:at], "big"):
                raise _invalid("its checksum is wrong")


def _invalid(why: str) -> ProxyHeaderError:
    return ProxyHeaderError(f"the PROXY protocol header is not valid: {why}")


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_CASTAGNOLI if byte & 1 else 0)
    return byte


_CRC_OF: Final = tuple(map(_crc_of, range(256)))
