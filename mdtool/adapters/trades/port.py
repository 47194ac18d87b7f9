"""The port to feeds of all trades."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from mdtool.core.trades import TradeRun


class TradeFeed(Protocol):
    """Every trade that is committed, in the order in which that happened."""

    @property
    def address(self) -> str:
        """The name of the feed in messages."""
        ...

    async def follow(
        self, connected: Callable[[], None], receive: Callable[[TradeRun], None]
    ) -> NoReturn:
        """Pass on trades that are committed from now on, until the feed is lost.

        It may be called again then.

        Parameters
        ----------
        connected : callable
            Called once, when everything that is committed later will be passed on.
        receive : callable
            Called with each run.

        Raises
        ------
        PeerError
            When the feed is lost, or unavailable; trades that are committed until the next call are
            not passed on.
        """
        ...
