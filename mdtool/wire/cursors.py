"""Cursors: the place in a symbol's trades at which a page ended, as text for the next request.

A cursor is, in base64url without padding: a version (u8), exchange time (i64, ns), the number of
the stream (i64), the sequence in it (i64), the symbol in ASCII, and the CRC-32 of all that (u32);
integers are big-endian. It begins with a letter, so it cannot be mistaken for a time.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Final, NamedTuple

from mdtool.core.errors import PeerError
from mdtool.core.symbols import MAX_SYMBOL_CHARS

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">Bqqq")
_TAIL: Final = struct.Struct(">I")
_LEAST_BYTES: Final = _HEAD.size + 1 + _TAIL.size
_MOST_BYTES: Final = _HEAD.size + MAX_SYMBOL_CHARS + _TAIL.size

MIN_CURSOR_CHARS: Final = (_LEAST_BYTES * 4 + 2) // 3
MAX_CURSOR_CHARS: Final = (_MOST_BYTES * 4 + 2) // 3


class CursorError(PeerError):
    """A text is not a valid cursor, or one of another version."""


class Cursor(NamedTuple):
    """A place among the trades of a symbol: behind the trade that it names.

    Attributes
    ----------
    symbol : str
        Of 1 to 70 ASCII characters.
    timestamp_ns, stream, sequence : int
        What orders the trades, int64 each.
    """

    symbol: str
    timestamp_ns: int
    stream: int
    sequence: int


def encode_cursor(cursor: Cursor) -> str:
    """Return a cursor as text, of letters, digits, `-` and `_`."""
    symbol, *key = cursor
    signed = _HEAD.pack(_VERSION, *key) + symbol.encode("ascii")
    return _text_of(signed + _TAIL.pack(zlib.crc32(signed)))


def decode_cursor(text: str) -> Cursor:
    """Return the cursor of a text.

    Raises
    ------
    CursorError
        When it is not valid.
    """
    data = _bytes_of(text)
    if not _LEAST_BYTES <= len(data) <= _MOST_BYTES:
        raise CursorError("not a valid cursor")
    signed, tail = data[: -_TAIL.size], data[-_TAIL.size :]
    version, *key = _HEAD.unpack_from(signed)
    symbol = signed[_HEAD.size :]
    if _TAIL.pack(zlib.crc32(signed)) != tail or not symbol.isascii():
        raise CursorError("not a valid cursor")
    if version != _VERSION:
        raise CursorError(f"of version {version}, not {_VERSION}")
    return Cursor(symbol.decode("ascii"), *key)


def _text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes_of(text: str) -> bytes:
    """Return what a text encodes, b"" where it is not valid."""
    if len(text) > MAX_CURSOR_CHARS:
        return b""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
    # The decoder ignores other characters, and unused bits.
    return data if _text_of(data) == text else b""
