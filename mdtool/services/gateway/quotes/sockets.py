"""`WS /ws`: quotes as they change, of every symbol or of `?symbols=`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from aiohttp import web

from mdtool.services.gateway.backlog import Update
from mdtool.services.gateway.hub import Follower, Hub
from mdtool.services.gateway.introductions import Introductions
from mdtool.services.gateway.limits import SocketLimit
from mdtool.services.gateway.listeners import ListeningSockets
from mdtool.services.gateway.outbox import Outbox
from mdtool.services.gateway.parameters import ParameterError, parse_symbol
from mdtool.services.gateway.quotes.board import LatestQuote, QuoteBoard
from mdtool.services.gateway.tallies import SocketTally

MAX_SYMBOLS: Final = 500
"""That one client may name."""
_EVERY: Final = ""
"""The topic of every symbol's quotes; those of one are its name."""


class QuoteSockets:
    """The WebSockets that follow quotes: first those that there are, then each that changes.

    Parameters
    ----------
    board : QuoteBoard
        What they are told.
    limit : SocketLimit
        How many there may be.
    patience_s : float
        How long one may leave what it is told unread.
    tally : SocketTally
        Where they are counted.
    """

    def __init__(
        self, board: QuoteBoard, limit: SocketLimit, patience_s: float, tally: SocketTally
    ) -> None:
        self._board = board
        self._hub = Hub()
        self._introductions = Introductions()
        self._sockets = ListeningSockets(limit, patience_s, tally)
        self.close = self._sockets.close
        board.listen(self._publish)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """Serve one client; a symbol that is not known yet is told from its first quote on."""
        symbols = _parse_symbols(request.query.get("symbols"))
        return await self._sockets.serve(request, lambda outbox: self._following(symbols, outbox))

    @contextlib.contextmanager
    def _following(self, symbols: Sequence[str], outbox: Outbox) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for topic in symbols or (_EVERY,):
                follower = stack.enter_context(self._hub.subscription(topic, outbox))
                stack.callback(self._introductions.begin(outbox, self._present(topic, follower)))
            yield

    def _present(self, topic: str, follower: Follower) -> Iterator[Update]:
        known = [topic] if topic else [row.symbol for row in self._board.rows()]
        for symbol in known:
            if self._board.find(symbol) is not None:
                yield follower.update(self._board.text(symbol), symbol)

    def _publish(self, changed: Sequence[LatestQuote]) -> None:
        if not len(self._hub):
            return
        for row in changed:
            for topic in (row.symbol, _EVERY):
                if topic in self._hub:
                    self._hub.publish(topic, self._board.text(row.symbol), row.symbol)


def _parse_symbols(text: str | None) -> list[str]:
    """Return the symbols of a list with commas, each once; none for all of them.

    Raises
    ------
    ParameterError
        When one can be none, or there are too many.
    """
    if text is None:
        return []
    symbols = list(dict.fromkeys(map(parse_symbol, text.split(","))))
    if len(symbols) > MAX_SYMBOLS:
        raise ParameterError(f"symbols: at most {MAX_SYMBOLS}, not {len(symbols):,}")
    return symbols
