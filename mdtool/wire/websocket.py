"""WebSocket frames as a server writes them."""

from __future__ import annotations

import struct


def text_frame(payload: bytes) -> bytes:
    """Return one unfragmented, uncompressed text frame, the same for every client.

    Parameters
    ----------
    payload : bytes
        UTF-8.

    References
    ----------
    RFC 6455, section 5.2.
    """
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload
