"""MESSAGE frames in the two parts of which the second is the same for every subscriber."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from enum import Enum
from typing import Final

from mdtool.wire import sockjs
from mdtool.wire.stomp import Version, encode_headers

_NUMBERS: Final = itertools.count(1)


class Wrapping(Enum):
    """How STOMP travels: as it is over WebSocket, or in the messages of SockJS."""

    NONE = "none"
    SOCKJS = "sockjs"

    def whole(self, frame: bytes) -> bytes:
        """Return the text of a frame."""
        return frame if self is Wrapping.NONE else sockjs.message(frame)

    def head(self, start: bytes) -> bytes:
        """Return how the text of a frame begins."""
        if self is Wrapping.NONE:
            return start
        return sockjs.MESSAGE_START + sockjs.escape(start)

    def tail(self, rest: bytes) -> bytes:
        """Return how the text of a frame goes on after its head, to its end."""
        if self is Wrapping.NONE:
            return rest
        return sockjs.escape(rest) + sockjs.MESSAGE_END


class Message:
    """What is published once; its id is unlike that of any other message of the process.

    Parameters
    ----------
    destination : str
        The topic that it is about.
    body : bytes
        JSON.
    state : hashable
        What it is the latest of; of its destination, where nothing is said.
    """

    __slots__ = ("_body", "_number", "_tails", "destination", "state")

    def __init__(self, destination: str, body: bytes, state: Hashable = None) -> None:
        self.destination = destination
        self.state = destination if state is None else state
        self._body = body
        self._number = next(_NUMBERS)
        self._tails: dict[tuple[Wrapping, bool], bytes] = {}

    def tail(self, wrapping: Wrapping, version: Version) -> bytes:
        """Return what follows a subscription's head in the text that tells of this."""
        key = (wrapping, version is Version.V1_0)
        tail = self._tails.get(key)
        if tail is None:
            # What 1.1 and 1.2 escape in different ways stands in no destination.
            headers = {
                "message-id": str(self._number),
                "destination": self.destination,
                "content-type": "application/json",
                "content-length": str(len(self._body)),
            }
            rest = encode_headers(headers, version) + b"\n" + self._body + b"\0"
            tail = self._tails[key] = wrapping.tail(rest)
        return tail
