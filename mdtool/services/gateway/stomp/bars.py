"""`/topic/bars/{symbol}/{interval}`: the newest bar of a symbol, at once and as it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from mdtool.core.errors import PeerError
from mdtool.services.gateway.bar_feed import EVERY_SYMBOL, BarFeed
from mdtool.services.gateway.encoding import Bar, encode_bar
from mdtool.services.gateway.parameters import ParameterError, parse_interval, parse_symbol
from mdtool.services.gateway.stomp.connection import Member
from mdtool.services.gateway.stomp.market import EVERY
from mdtool.services.gateway.stomp.messages import Message
from mdtool.services.gateway.stomp.topics import Topics

PREFIX: Final = "/topic/bars/"


class BarTopics:
    """The topics of bars, each of which follows one series of the aggregator's.

    Parameters
    ----------
    feed : BarFeed
        What they tell of.
    topics : Topics
        Who follows what.
    """

    def __init__(self, feed: BarFeed, topics: Topics) -> None:
        self._feed = feed
        self._topics = topics
        self._series: dict[str, _Series] = {}

    def follow(self, name: str, member: Member) -> Callable[[], None]:
        """Tell of a symbol's bars, or of every symbol's.

        An interval that is not kept is found out later, and then ends the session.

        Raises
        ------
        ParameterError
            When the name is no symbol and interval.
        LimitError
            When the client follows too many new ones at once.
        """
        symbol, _, interval = name.rpartition("/")
        if not symbol:
            raise ParameterError(f"bars: want {PREFIX}SYMBOL/INTERVAL, such as {PREFIX}AAPL/1m")
        interval = parse_interval(interval)
        symbol = symbol if symbol == EVERY else parse_symbol(symbol)
        topic = f"{PREFIX}{symbol}/{interval}"
        series = self._series.get(topic)
        if series is None:
            series = _Series(topic, interval, self._topics)
            asked = EVERY_SYMBOL if symbol == EVERY else symbol
            series.following.enter_context(self._feed.following(asked, interval, series))
            self._series[topic] = series
        leave = self._topics.follow(topic, member, series.newest())
        series.members.add(member)

        def end() -> None:
            leave()
            series.members.discard(member)
            if not series.members:
                series.following.close()
                if self._series.get(topic) is series:
                    del self._series[topic]

        return end


class _Series:
    """What is known of the bars of one topic."""

    def __init__(self, topic: str, interval: str, topics: Topics) -> None:
        self._topic = topic
        self._interval = interval
        self._topics = topics
        self._newest: dict[str, Bar] = {}
        self.members: set[Member] = set()
        self.following = contextlib.ExitStack()

    def newest(self) -> Iterator[Message]:
        """Give what is told of the newest bar of each symbol."""
        return (self._message(self._newest[symbol]) for symbol in list(self._newest))

    def take(self, bars: list[Bar]) -> None:
        """Tell of bars that changed, each of them: no bar stands for the one before it."""
        for bar in bars:
            known = self._newest.get(bar.symbol)
            if known is None or bar.start >= known.start:
                self._newest[bar.symbol] = bar
            self._topics.publish(self._message(bar), self._topic)

    def refuse(self, error: PeerError) -> None:
        """Tell that there are no such bars."""
        for member in list(self.members):
            member.fail(str(error))

    def _message(self, bar: Bar) -> Message:
        destination = f"{PREFIX}{bar.symbol}/{self._interval}"
        return Message(destination, encode_bar(bar, self._interval), (destination, bar.start))
