"""The port to a feed of all trades: what comes of it, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from mdtool.core.trades import TradeRun


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
