"""Quotes within one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from mdtool.adapters.quotes.port import QuoteListener
from mdtool.core.errors import ConfigError
from mdtool.wire.quotes import Quote

URL: Final = "memory:"


class MemoryQuoteHub:
    """Publishes quotes to listeners at once.

    Parameters
    ----------
    url : str
        `memory:`.

    Raises
    ------
    ConfigError
        When the URL is longer.
    """

    address = "memory"
    is_shared = False
    lost_because = None

    def __init__(self, url: str = URL) -> None:
        if url != URL:
            raise ConfigError(f"{url}: a hub in memory has no address; write {URL}")
        self._listeners: list[QuoteListener] = []
        self._is_open = False

    async def __aenter__(self) -> Self:
        self._is_open = True
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._is_open = False

    def subscribe(self, listener: QuoteListener) -> None:
        """Have a listener receive quotes."""
        self._listeners.append(listener)

    def publish(self, quotes: Sequence[Quote]) -> None:
        """Send quotes to every listener."""
        if self._is_open:
            for listener in self._listeners:
                listener(quotes)
