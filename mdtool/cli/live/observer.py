"""Frames of a feed, and what has to be remembered between one and the next."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from mdtool.cli.live.feed import Feed
from mdtool.cli.live.frame import Frame, Ladder, LiveRates, State, ladder_of
from mdtool.cli.screen import printable
from mdtool.core.rates import Rates
from mdtool.core.units import NS_PER_S
from mdtool.engine.book.view import BookView

_QUIET_FROM_S: Final = 2
_MOST_LAG_NS: Final = 3600 * NS_PER_S
"""A live stream further behind than this is a recording that somebody replays."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the records come from.

    Attributes
    ----------
    dataset : str
    size_bytes : int or None
        None where that is not known, as of pipes and connections, which are taken to be live.
    """

    dataset: str
    size_bytes: int | None


class Observer:
    """Looks at a feed that is held, and tells what a frame shows of it."""

    def __init__(self, feed: Feed, origin: Origin) -> None:
        self._feed = feed
        self._origin = origin
        self._rates = Rates(NS_PER_S)
        self._rated: object = None
        self._decimals: dict[int, int] = {}

    def look(self, depth: int, n_prints: int, now_ns: int, wall_ns: int, notice: str) -> Frame:
        """Return what there is to see now.

        Parameters
        ----------
        depth, n_prints : int
            How many levels of each side, and how many trades, there is room for.
        now_ns : int
            By the feed's own clock.
        wall_ns : int
            Since the epoch.
        notice : str
            Shown where the feed itself has nothing to say.
        """
        feed, key = self._feed, self._feed.shown
        book = None if key is None else BookView(feed.books, key)
        ladder = None
        if book is not None and key is not None:
            ladder = ladder_of(book, feed.tape.last(key, n_prints), depth)
            self._decimals[key] = max(self._decimals.get(key, 0), ladder.decimals)
        state = self._state()
        clock_ns = feed.playback.position_ns(now_ns)
        is_live = self._origin.size_bytes is None
        frame = Frame(
            dataset=printable(self._origin.dataset),
            state=state,
            speed=feed.playback.speed,
            is_live=is_live,
            clock_ns=clock_ns,
            progress=self._progress(),
            total_records=feed.records,
            rates=self._rates_now(ladder, clock_ns, now_ns),
            notice=printable(str(feed.error) if feed.error else notice),
            ladder=ladder,
        )
        if key is None or book is None:
            return frame
        since_ns = now_ns - feed.played_ns
        lag_ns = wall_ns - since_ns - (clock_ns or 0)
        shown = feed.instruments
        publishers = {BookView(feed.books, other).publisher_id for other in shown}
        quiet_s = since_ns // NS_PER_S if is_live else 0
        return dataclasses.replace(
            frame,
            symbol=printable(feed.symbol(key)),
            place=shown.index(key) + 1,
            books=len(shown),
            publisher_id=book.publisher_id if len(publishers) > 1 else None,
            quiet_s=quiet_s if state is State.PLAYING and quiet_s >= _QUIET_FROM_S else 0,
            lag_ns=lag_ns if is_live and 0 <= lag_ns < _MOST_LAG_NS else None,
            decimals=self._decimals[key],
        )

    def _state(self) -> State:
        if self._feed.error:
            return State.BROKEN
        if self._feed.has_ended:
            return State.ENDED
        return State.PAUSED if self._feed.playback.is_paused else State.PLAYING

    def _progress(self) -> float | None:
        size_bytes = self._origin.size_bytes
        if not size_bytes:
            return None
        return min(self._feed.bytes_played / size_bytes, 1.0)

    def _rates_now(self, ladder: Ladder | None, clock_ns: int | None, now_ns: int) -> LiveRates:
        feed = self._feed
        rated = (feed.shown, feed.playback.speed, clock_ns is None)
        if rated != self._rated:
            self._rated = rated
            self._rates.forget()
        of_shown = (ladder.records, ladder.trades, ladder.volume) if ladder else (0, 0, 0)
        counts = (feed.records, *of_shown, clock_ns or 0)
        self._rates.update(now_ns, *counts)
        records, shown, trades, volume, pace = self._rates.per_second(now_ns, *counts)
        return LiveRates(records, shown, trades, volume, pace / NS_PER_S)
