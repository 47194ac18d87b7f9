"""Why the gateway closes WebSockets: the codes that clients see, and what each of them means.

A SockJS client gets the same code and reason, whatever its transport.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """What stands in a close frame."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY = 1008
    TOO_BIG = 1009
    BEHIND = 4000


MEANINGS: Final = {
    CloseCode.NORMAL: "The client disconnected, as its protocol has it.",
    CloseCode.GOING_AWAY: "The gateway stops. Connect again.",
    CloseCode.PROTOCOL_ERROR: "The client made a mistake, of which an ERROR frame told it.",
    CloseCode.POLICY: "What came from the client is no SockJS.",
    CloseCode.TOO_BIG: "A message is larger than any that makes sense.",
    CloseCode.BEHIND: "The client does not read: it left everything lie for `slow_client_s`, or too"
    " many messages that no later one stands for. Connect again, and read faster or follow less.",
}


def close_code_table() -> str:
    """Return the codes as a table in Markdown."""
    rows = "".join(f"| {code} | {MEANINGS[code]} |\n" for code in CloseCode)
    return f"| code | why a WebSocket is closed |\n|---|---|\n{rows}"
