"""The port to a feed of all trades: what comes of it, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from mdtool.core.symbols import SymbolTable
from mdtool.wire.ticks import Ticks


@dataclass(frozen=True, slots=True)
class TradeRun:
    """Consecutive frames of one stream, committed.

    Attributes
    ----------
    symbols : SymbolTable
        What the ticks' symbols are indices of; it may grow, and is another one after a reconnect.
    stream_id : str
    first_sequence : int
        The position in the stream of its first frame.
    ticks : Ticks
    """

    symbols: SymbolTable
    stream_id: str
    first_sequence: int
    ticks: Ticks


class TradeFeed(Protocol):
    """Every trade that is committed, in the order in which that happened."""

    @property
    def address(self) -> str:
        """What it is, for people."""
        ...

    async def follow(
        self, connected: Callable[[], None], receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """Hand over what is committed from now on, until the feed is lost; it may be asked again.

        Parameters
        ----------
        connected : callable
            Called once, when everything that is committed later will be handed over.
        receive : callable
            Called with each run.

        Raises
        ------
        PeerError
            When it is lost, or cannot be reached; what is committed until it is followed again is
            not handed over.
        """
        ...
