"""`/topic/market-data/{symbol}`: the aggregate of a symbol, at once and on each update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.services.gateway.parameters import parse_symbol
from mdtool.services.gateway.state import MarketState
from mdtool.services.gateway.stomp.connection import Member
from mdtool.services.gateway.stomp.messages import Message
from mdtool.services.gateway.stomp.topics import Topics

PREFIX: Final = "/topic/market-data/"
EVERY: Final = "*"
"""Stands for every symbol, where one is followed."""


class MarketTopics:
    """The topics of aggregates, each as REST answers it.

    Parameters
    ----------
    state : MarketState
        What they tell of.
    topics : Topics
        Who follows what.
    """

    def __init__(self, state: MarketState, topics: Topics) -> None:
        self._state = state
        self._topics = topics

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """Tell of a symbol, from its first trade on where there is none yet, or of every symbol.

        Raises
        ------
        ParameterError
            When it can be no symbol.
        """
        symbols = self._state.symbols
        if name == EVERY:
            indices = list(range(len(symbols)))
        else:
            name = parse_symbol(name)
            index = symbols.find(name)
            indices = [] if index is None else [index]
        return self._topics.follow(PREFIX + name, member, map(self._message, indices))

    def publish(self, changed: NDArray[np.intp]) -> None:
        """Tell of symbols, indices into the state, that changed."""
        topics, every = self._topics, PREFIX + EVERY
        if not len(topics):
            return
        for index in changed.tolist():
            topic = PREFIX + self._state.symbols[index]
            if topic in topics or every in topics:
                topics.publish(self._message(index), topic, every)

    def _message(self, index: int) -> Message:
        body, _ = self._state.rest(index)
        return Message(PREFIX + self._state.symbols[index], body)
