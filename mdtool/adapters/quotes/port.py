"""The port of quote hubs: publishers and listeners of quotes, in one process or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self

from mdtool.wire.quotes import Quote

TTL_S: Final = 2.0
"""How long a quote is fresh once published. Sources publish it again in time, else it is stale."""

QuoteListener = Callable[[Sequence[Quote]], None]
"""Called with quotes, each symbol once, in the event loop's thread."""


class QuoteHub(Protocol):
    """Sends every listener the quotes that anybody publishes.

    A hub is an async context manager. All listeners receive the quotes of a symbol in one
    order, and always the last; where quotes follow each other too fast, some are conflated. A
    shared hub works locally while it is unavailable: what this process publishes, its own listeners
    receive.
    """

    @property
    def address(self) -> str:
        """For people, without secrets: `redis 127.0.0.1:6379`."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether others than this process publish and receive its quotes."""
        ...

    @property
    def lost_because(self) -> str | None:
        """Why it is unavailable, None where it is available."""
        ...

    async def __aenter__(self) -> Self:
        """Connect, and send listeners the quotes that are fresh.

        It need not be available, but is given some seconds for it.

        Raises
        ------
        StartupError
            When it rejects this process.
        """
        ...

    async def __aexit__(self, *exc_info: object) -> bool | None:
        """Disconnect; listeners receive nothing more."""
        ...

    def subscribe(self, listener: QuoteListener) -> None:
        """Have a listener receive quotes; call it before the block is entered."""
        ...

    def publish(self, quotes: Sequence[Quote]) -> None:
        """Publish quotes, each symbol once, without waiting."""
        ...
