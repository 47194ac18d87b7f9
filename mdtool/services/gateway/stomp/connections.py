"""All STOMP clients there are, and the clock by which they beat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.stomp.connection import Broker, Connection, Outlet
from mdtool.services.gateway.stomp.messages import Wrapping

_TICKS_A_BEAT: Final = 8
_LONGEST_TICK_S: Final = 1.0


class Connections:
    """Opens them, and has them beat.

    Parameters
    ----------
    broker : Broker
        What they are connected to.
    heart_beat_s : float
        How often they beat, 0 is never.
    """

    def __init__(self, broker: Broker, heart_beat_s: float) -> None:
        self._broker = broker
        self._heart_beat_s = heart_beat_s
        self._open: set[Connection] = set()

    @contextlib.contextmanager
    def opened(
        self, outlet: Outlet, wrapping: Wrapping, end: Callable[[CloseCode, str], None]
    ) -> Iterator[Connection]:
        """Have a client connected within the block; see Connection."""
        now_s = asyncio.get_running_loop().time()
        connection = Connection(self._broker, outlet, wrapping, end, now_s, self._heart_beat_s)
        self._open.add(connection)
        try:
            yield connection
        finally:
            self._open.discard(connection)
            connection.close()

    async def run(self) -> None:
        """Have everybody beat until cancelled."""
        tick_s = min(_LONGEST_TICK_S, self._heart_beat_s / _TICKS_A_BEAT or _LONGEST_TICK_S)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tick_s)
            for connection in list(self._open):
                connection.tick(loop.time())

    def close(self) -> None:
        """Have everybody leave."""
        for connection in list(self._open):
            connection.leave(CloseCode.GOING_AWAY, "the gateway stops")
