"""The last quote of each symbol, and whether somebody still stands for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mdtool.adapters.quotes.port import TTL_S
from mdtool.services.gateway.listing import Listing
from mdtool.wire.quotes import Quote, encode_quote

log = logging.getLogger(__name__)

MAX_SYMBOLS: Final = 100_000
"""Quotes of further symbols are left out: anybody who shares a hub may publish on it."""
_STALE: Final = ',"stale":true'


class LatestQuote(NamedTuple):
    """A quote as it is shown: prices at 1e-9, None where not known, and the time in ms."""

    symbol: str
    bid: int | None
    ask: int | None
    last: int | None
    ts_ms: int
    is_stale: bool

    @property
    def is_of_book(self) -> bool:
        """Whether it tells of a side of the book, not of trades alone."""
        return self.bid is not None or self.ask is not None


BoardListener = Callable[[Sequence[LatestQuote]], None]
"""Called with the quotes that changed, or became stale, each symbol once."""


class QuoteBoard:
    """What a hub has told, kept for who asks.

    A quote that was not published for `TTL_S` is stale; it is shown, and marked so, until there
    is another.

    Parameters
    ----------
    now_s : callable, optional
        The clock, which never goes back.

    Attributes
    ----------
    listing : Listing
        The JSON of all quotes, by symbol.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._standing: dict[str, _Standing] = {}
        self._listeners: list[BoardListener] = []
        self.listing = Listing(lambda: sorted(self._standing), self._row)
        self._is_full = False

    def __len__(self) -> int:
        return len(self._standing)

    def listen(self, listener: BoardListener) -> None:
        """Have `listener` told of changes."""
        self._listeners.append(listener)

    def take(self, quotes: Sequence[Quote]) -> None:
        """Take quotes that were published, the same again or others."""
        now_s = self._now_s()
        changed = []
        for quote in quotes:
            standing = self._standing.get(quote.symbol)
            if standing is None:
                if len(self._standing) == MAX_SYMBOLS:
                    self._tell_full()
                    continue
                standing = self._standing[quote.symbol] = _Standing()
            elif standing.row == (*quote, False):
                standing.heard_s = now_s
                continue
            standing.row = LatestQuote(*quote, is_stale=False)
            standing.heard_s = now_s
            standing.body = None
            changed.append(standing.row)
        self._tell(changed)

    def expire(self) -> None:
        """Mark what was published too long ago."""
        oldest_s = self._now_s() - TTL_S
        changed = []
        for standing in self._standing.values():
            if standing.heard_s < oldest_s and not standing.row.is_stale:
                standing.row = standing.row._replace(is_stale=True)
                standing.body = None
                changed.append(standing.row)
        self._tell(changed)

    def find(self, symbol: str) -> LatestQuote | None:
        """Return the quote of a symbol, None where there never was one."""
        standing = self._standing.get(symbol)
        return None if standing is None else standing.row

    def rows(self) -> list[LatestQuote]:
        """Return all quotes, by symbol."""
        return [self._standing[symbol].row for symbol in sorted(self._standing)]

    def stale_count(self) -> int:
        """Return how many are stale."""
        return sum(standing.row.is_stale for standing in self._standing.values())

    def text(self, symbol: str) -> bytes:
        """Return the JSON of a symbol's quote, encoded once.

        Raises
        ------
        KeyError
            Where there is none.
        """
        standing = self._standing[symbol]
        if standing.body is None:
            symbol, bid, ask, last, ts_ms, is_stale = standing.row
            quote = Quote(symbol, bid, ask, last, ts_ms)
            standing.body = encode_quote(quote, _STALE if is_stale else "")
        return standing.body

    def _row(self, symbol: str) -> tuple[bytes, bool]:
        return self.text(symbol), self._standing[symbol].row.is_stale

    def _tell(self, changed: Sequence[LatestQuote]) -> None:
        if changed:
            self.listing.forget()
            for listener in self._listeners:
                listener(changed)

    def _tell_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            log.warning("quotes of more than %d symbols; further ones are left out", MAX_SYMBOLS)


class _Standing:
    """A quote, when it was heard last, and its JSON once somebody wanted it."""

    __slots__ = ("body", "heard_s", "row")

    row: LatestQuote
    heard_s: float
    body: bytes | None
