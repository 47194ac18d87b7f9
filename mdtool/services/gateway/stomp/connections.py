"""All STOMP clients there are: how many there may be, and the clock by which they beat."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from mdtool.adapters.aggregator import UnavailableError
from mdtool.services.gateway.closing import CloseCode
from mdtool.services.gateway.stomp.connection import Broker, Connection, Outlet
from mdtool.services.gateway.stomp.messages import Wrapping
from mdtool.services.gateway.tallies import SocketTally

_TICKS_A_BEAT: Final = 8
_LONGEST_TICK_S: Final = 1.0


class Connections:
    """Opens and counts them.

    Parameters
    ----------
    broker : Broker
        What they are connected to.
    heart_beat_s : float
        How often they beat, 0 is never.
    most : int
        How many there may be.
    """

    def __init__(self, broker: Broker, heart_beat_s: float, most: int) -> None:
        self._broker = broker
        self._heart_beat_s = heart_beat_s
        self._most = most
        self._open: set[Connection] = set()

    def check_room(self, tally: SocketTally) -> None:
        """Raise UnavailableError where there are as many as there may be."""
        if len(self._open) >= self._most:
            tally.refused += 1
            raise UnavailableError(f"{self._most:,} STOMP clients are connected")

    @contextlib.contextmanager
    def opened(
        self,
        outlet: Outlet,
        wrapping: Wrapping,
        end: Callable[[CloseCode, str], None],
        tally: SocketTally,
    ) -> Iterator[Connection]:
        """Have a client connected within the block; see Connection."""
        now_s = asyncio.get_running_loop().time()
        connection = Connection(self._broker, outlet, wrapping, end, now_s, self._heart_beat_s)
        self._open.add(connection)
        tally.opened += 1
        tally.open += 1
        try:
            yield connection
        finally:
            self._open.discard(connection)
            tally.open -= 1
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
