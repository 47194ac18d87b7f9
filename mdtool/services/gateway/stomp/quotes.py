"""`/topic/quotes/{symbol}`: the quote of a symbol, at once and as it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mdtool.services.gateway.parameters import parse_symbol
from mdtool.services.gateway.quotes.board import LatestQuote, QuoteBoard
from mdtool.services.gateway.stomp.connection import Member
from mdtool.services.gateway.stomp.market import EVERY
from mdtool.services.gateway.stomp.messages import Message
from mdtool.services.gateway.stomp.topics import Topics

PREFIX: Final = "/topic/quotes/"


class QuoteTopics:
    """The topics of quotes, each as REST answers it.

    Parameters
    ----------
    board : QuoteBoard
        What they tell of.
    topics : Topics
        Who follows what.
    """

    def __init__(self, board: QuoteBoard, topics: Topics) -> None:
        self._board = board
        self._topics = topics
        board.listen(self._publish)

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """Tell of a symbol, from its first quote on where there is none yet, or of every symbol.

        Raises
        ------
        ParameterError
            When it can be no symbol.
        """
        if name == EVERY:
            rows: Sequence[LatestQuote | None] = self._board.rows()
        else:
            name = parse_symbol(name)
            rows = [self._board.find(name)]
        current = (self._message(row.symbol) for row in rows if row is not None)
        return self._topics.follow(PREFIX + name, member, current)

    def _publish(self, changed: Sequence[LatestQuote]) -> None:
        topics, every = self._topics, PREFIX + EVERY
        if not len(topics):
            return
        for row in changed:
            topic = PREFIX + row.symbol
            if topic in topics or every in topics:
                topics.publish(self._message(row.symbol), topic, every)

    def _message(self, symbol: str) -> Message:
        return Message(PREFIX + symbol, self._board.text(symbol))
