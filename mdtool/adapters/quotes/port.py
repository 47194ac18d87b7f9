"""The port through which quotes reach everybody who shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self

from mdtool.wire.quotes import Quote

TTL_S: Final = 2.0
"""How long a quote stands after it was published. Who knows that it still does, publishes it again
in time; a quote that nobody stands for any more is history."""

QuoteListener = Callable[[Sequence[Quote]], None]
"""Called with quotes, each symbol once, in the event loop's thread."""


class QuoteHub(Protocol):
    """Tells every listener of the quotes that anybody publishes.

    A hub is an async context manager. Each symbol's quotes come to all listeners in one order,
    and always its last one; of those that follow one another faster than they can be passed on,
    some are left out. A hub that others share goes on without them while it cannot be reached:
    what is published here is still told here.
    """

    @property
    def address(self) -> str:
        """What it is, for people, without secrets: `redis 127.0.0.1:6379`."""
        ...

    @property
    def lost_because(self) -> str | None:
        """Why it cannot be reached, None where it can."""
        ...

    async def __aenter__(self) -> Self:
        """Connect, and tell listeners of the quotes that stand already.

        Raises
        ------
        StartupError
            When it cannot be reached.
        """
        ...

    async def __aexit__(self, *exc_info: object) -> bool | None:
        """Disconnect; listeners are told nothing more."""
        ...

    def subscribe(self, listener: QuoteListener) -> None:
        """Have `listener` told of quotes; to be called before the block is entered."""
        ...

    def publish(self, quotes: Sequence[Quote]) -> None:
        """Take quotes, each symbol once, without waiting."""
        ...
