"""Why the gateway closes WebSockets: the codes that clients see, and what each of them means.

A SockJS client gets the same code and reason, whatever its transport.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from mdtool.services.gateway.upgrade import HEARTBEAT_S


class CloseCode(IntEnum):
    """What stands in a close frame."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    NO_TEXT = 1007
    POLICY = 1008
    TOO_BIG = 1009
    BEHIND = 4000


MEANINGS: Final = {
    CloseCode.NORMAL: "The client disconnected, as its protocol has it.",
    CloseCode.GOING_AWAY: "The gateway stops. Connect again.",
    CloseCode.PROTOCOL_ERROR: "The client made a mistake: an ERROR frame told it of that, or what "
    "came is no WebSocket frame.",
    CloseCode.NO_TEXT: "A text message is no UTF-8.",
    CloseCode.POLICY: "What came from the client is no SockJS.",
    CloseCode.TOO_BIG: "A message is larger than any that makes sense.",
    CloseCode.BEHIND: "The client does not read: it left everything lie for `slow_client_s`, or too"
    " many messages that no later one stands for, or 32 MB of states. Connect again, and read"
    " faster or follow less.",
}
_SILENCE: Final = f"""\
Clients are pinged every {HEARTBEAT_S:g} s. Who leaves a ping unanswered for {HEARTBEAT_S / 2:g} s \
is cut off without a code, which browsers show as 1006. GraphQL has codes of its own beside these: \
those of graphql-transport-ws.
"""


def about_closing() -> str:
    """Return the codes as a table in Markdown, and what else there is to know."""
    rows = "".join(f"| {code} | {MEANINGS[code]} |\n" for code in CloseCode)
    return f"| code | why a WebSocket is closed |\n|---|---|\n{rows}\n{_SILENCE}"
