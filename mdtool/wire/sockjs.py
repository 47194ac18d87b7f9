"""SockJS frames: messages to and from its clients, whatever the transport.

Source: SockJS-protocol 0.3.3.
"""

from __future__ import annotations

import json
from typing import Final

from mdtool.core.errors import PeerError

OPEN: Final = b"o"
BEAT: Final = b"h"
MESSAGE_START: Final = b'a["'
MESSAGE_END: Final = b'"]'


class SockJsError(PeerError):
    """A client sent what is not valid SockJS."""


def escape(text: bytes) -> bytes:
    """Return UTF-8 as it is written between the start and the end of a message.

    Parts of a text may be escaped separately.
    """
    return json.dumps(text.decode())[1:-1].encode()


def message(text: bytes) -> bytes:
    """Return the frame of one message."""
    return MESSAGE_START + escape(text) + MESSAGE_END


def close(code: int, reason: str) -> bytes:
    """Return the frame that ends a session."""
    return b"c" + json.dumps([code, reason], separators=(",", ":")).encode()


def read_messages(payload: str | bytes) -> list[bytes]:
    """Return the messages of a client: a JSON array of strings, or over WebSocket one string.

    Raises
    ------
    SockJsError
        When it is neither.
    """
    if not payload:
        raise SockJsError("Payload expected.")
    try:
        content = json.loads(payload)
        messages = [content] if isinstance(content, str) else content
        if isinstance(messages, list) and all(isinstance(text, str) for text in messages):
            return [text.encode() for text in messages]
    except (ValueError, RecursionError) as error:
        raise SockJsError("Broken JSON encoding.") from error
    raise SockJsError("Broken JSON encoding.")
