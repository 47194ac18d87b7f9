"""Why the gateway closes WebSockets: the codes that its clients see.

====  ==================  ======================================================================
code  name                when
====  ==================  ======================================================================
1000  `NORMAL`            the client disconnected, as its protocol has it
1001  `GOING_AWAY`        the gateway stops; connect again
1002  `PROTOCOL_ERROR`    the client was told of an error by an ERROR frame
1008  `POLICY`            what the client says is no SockJS
1009  `TOO_BIG`           a WebSocket message is larger than any that makes sense
4000  `BEHIND`            the client does not read: it let everything lie for `slow_client_s`, or
                          256 messages pile up, none of which takes another's place
====  ==================  ======================================================================

A SockJS client gets the same code and reason, whatever its transport.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """See the table above."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY = 1008
    TOO_BIG = 1009
    BEHIND = 4000
