"""WebSocket frames as a server writes them: unfragmented, uncompressed, the same for every client.

Source: RFC 6455, sections 5.2 and 5.5.1.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_MAX_REASON_BYTES: Final = 123


class CloseCode(IntEnum):
    """Why a server closes a WebSocket."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    BEHIND = 4000
    UNAUTHORIZED = 4401


def text_header(length: int) -> bytes:
    """Return what comes before a text of `length` bytes."""
    if length < 126:
        return bytes((_TEXT, length))
    if length < 1 << 16:
        return struct.pack("!BBH", _TEXT, 126, length)
    return struct.pack("!BBQ", _TEXT, 127, length)


def text_frame(payload: bytes) -> bytes:
    """Return a text frame of UTF-8."""
    return text_header(len(payload)) + payload


def close_reason(reason: str) -> bytes:
    """Return a reason as a close frame takes it; one that is too long is cut."""
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore").encode()


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame."""
    text = close_reason(reason)
    return struct.pack("!BBH", _CLOSE, 2 + len(text), code) + text
