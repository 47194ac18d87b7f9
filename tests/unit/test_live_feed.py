"""The feeding thread: what it applies, when, and how it ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mdtool.cli.live.feed import MOST_AT_ONCE, Feed
from mdtool.cli.live.playback import FLAT_OUT, Playback
from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import F_LAST, SYMBOL_MAPPING
from mdtool.core.errors import InputError
from mdtool.core.instruments import Instruments
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView
from tests.reference import dbn_streams as streams
from tests.support.instruments import batch, index_of

HOUR = 3600 * 10**9
AAPL, MSFT = 0, 1
"""Their indices, in the order in which they are met."""


class Source:
    """Gives arrays, raises errors, and lets a test know when it is asked for more."""

    name = "script"

    def __init__(self, *script: np.ndarray | BaseException | Callable[[], object]) -> None:
        self.metadata = streams.metadata()
        self.instruments = Instruments()
        self._resolver = Resolver(self.instruments, "script", self.metadata)
        self.size_bytes = None
        self.bytes_read = 0
        self.asked = threading.Semaphore(0)
        self._script = script

    def __iter__(self) -> Iterator[Batch]:
        for item in self._script:
            self.asked.release()
            if isinstance(item, BaseException):
                raise item
            if callable(item):
                item()
                continue
            self.bytes_read += item.nbytes
            if item.dtype == SYMBOL_MAPPING:
                self._resolver.learn(item)
            yield self._resolver.batch(item)
        self.asked.release()


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def run(*script, speed: float = FLAT_OUT) -> Feed:
    feed = Feed(Source(*script), Playback(speed))
    feed.start()
    feed._thread.join()
    assert feed.has_ended
    return feed


def until(feed: Feed, is_so: Callable[[], bool]) -> None:
    """Look at a feed again and again until something is so; a test's time limit ends it."""
    while True:
        with feed.held():
            assert feed.crash is None
            if is_so():
                return


@pytest.fixture
def started():
    feeds = []

    def start(source: Source, playback: Playback, **options) -> Feed:
        feeds.append(Feed(source, playback, **options))
        feeds[-1].start()
        return feeds[-1]

    yield start
    for feed in feeds:
        feed.close()


def test_everything_is_applied_and_counted():
    orders = streams.mbo(3 * MOST_AT_ONCE)
    feed = run(orders[:5], orders[5:])
    books = Books()
    books.apply(batch(orders))
    for key, same in ((AAPL, index_of(1, 1)), (MSFT, index_of(1, 2))):
        ours, theirs = BookView(feed.books, key), BookView(books, same)
        assert np.array_equal(ours.levels("B"), theirs.levels("B"))
        assert ours.records == theirs.records
    assert feed.records == len(orders)
    assert feed.bytes_played == orders.nbytes
    trades = orders[(orders["action"] == b"T") & (orders["instrument_id"] == 1)]
    assert np.array_equal(feed.tape.last([AAPL], 1), trades[-1:])
    assert [feed.symbol(index) for index in feed.books_shown] == ["AAPL", "MSFT"]
    assert (feed.error, feed.crash) == (None, None)


def test_consolidated_the_books_of_a_symbol_are_shown_as_one():
    """AAPL at two publishers and MSFT at one; the second publisher's last trade is the latest."""
    orders = streams.mbo(30)
    orders["publisher_id"] = np.where(
        (orders["instrument_id"] == 1) & (orders["sequence"] > 9), 2, 1
    )
    source = Source(orders[:7], orders[7:])
    feed = Feed(source, Playback(FLAT_OUT), consolidates=True)
    feed.start()
    feed._thread.join()
    assert feed.crash is None
    aapl, msft, other = (0, 1, 2)
    assert feed.books_shown == {aapl: [aapl, other], msft: [msft]}
    view = feed.view(aapl, [aapl, other])
    single = [BookView(feed.books, each) for each in (aapl, other)]
    assert view.records == sum(each.records for each in single) == 15
    assert view.total_orders == sum(each.total_orders for each in single)
    both = np.concatenate([each.levels("B") for each in single])
    joined = view.levels("B")
    assert joined["size"].sum() == both["size"].sum()
    assert joined["price"].tolist() == sorted(set(both["price"].tolist()), reverse=True)
    trades = orders[(orders["action"] == b"T") & (orders["instrument_id"] == 1)]
    assert np.array_equal(feed.tape.last([aapl, other], 3), trades[::-1][:3])
    assert feed.shown == aapl
    feed.show_next(1)
    assert feed.shown == msft
    feed.show_next(1)
    assert feed.shown == aapl


def test_the_first_book_met_is_shown_and_the_next_ones_in_turn():
    feed = run(streams.mbo(4))
    assert feed.shown == AAPL
    shown = []
    for offset in (1, 1, -1, -1):
        feed.show_next(offset)
        shown.append(feed.shown)
    assert shown == [MSFT, AAPL, MSFT, AAPL]


def test_before_the_first_record_there_is_nothing_to_show_next():
    feed = run()
    feed.show_next(1)
    assert feed.shown is None


def test_a_source_that_breaks_off_leaves_what_came_before():
    feed = run(streams.mbo(10), InputError("script: torn"))
    assert feed.records == 10
    assert str(feed.error) == "script: torn"
    assert feed.crash is None


def test_any_other_error_is_a_crash():
    feed = run(streams.mbo(10), ZeroDivisionError("bug"))
    assert isinstance(feed.crash, ZeroDivisionError)
    assert feed.error is None


def test_books_are_not_seen_within_an_event(started):
    orders = streams.mbo(3)
    orders["instrument_id"] = 1
    orders["flags"] = [F_LAST, 0, F_LAST]
    source = Source(orders[:2], orders[2:])
    held_back = threading.Event()
    source._script = (orders[:2], held_back.wait, orders[2:])
    feed = started(source, Playback(FLAT_OUT))
    for _ in range(2):
        source.asked.acquire()
    with feed.held():
        assert feed.records == 1
    held_back.set()
    until(feed, lambda: feed.records == 3)


def test_what_no_event_end_follows_is_seen_at_the_end():
    orders = streams.mbo(3)
    orders["flags"] = [F_LAST, 0, 0]
    assert run(orders).records == 3


def test_a_paused_feed_applies_nothing_and_a_step_one_event_of_the_book_shown(started):
    orders = streams.mbo(9)
    orders["flags"][4] = 0  # AAPL's third event has two records, 4 and 6
    playback = Playback(FLAT_OUT)
    playback.toggle_pause(0)
    feed = started(Source(orders), playback)
    applied = []
    for _ in range(4):
        with feed.held():
            playback.step(0)
        until(feed, lambda: not playback.steps)
        with feed.held():
            applied.append(feed.records)
    assert applied == [1, 3, 7, 9]
    assert feed.shown == AAPL


def test_a_step_of_another_book_ends_with_its_event(started):
    playback = Playback(FLAT_OUT)
    playback.toggle_pause(0)
    feed = started(Source(streams.mbo(8)), playback)
    with feed.held():
        playback.step(0)
        playback.step(0)
    until(feed, lambda: not playback.steps)
    with feed.held():
        assert feed.records == 3
        feed.show_next(1)
        playback.step(0)
    until(feed, lambda: not playback.steps)
    assert (feed.shown, feed.records) == (MSFT, 4)


def test_a_step_that_finds_no_event_waits_for_one(started):
    orders = streams.mbo(4)
    others = streams.mbo(2 * MOST_AT_ONCE)
    others["instrument_id"] = 2
    source = Source(orders[:1], others, orders[2:3])
    playback = Playback(FLAT_OUT)
    playback.toggle_pause(0)
    feed = started(source, playback)
    with feed.held():
        playback.step(0)
        playback.step(0)
    until(feed, lambda: feed.has_ended)
    assert (playback.steps, feed.records) == (0, len(others) + 2)


def test_records_are_applied_when_they_are_due(started):
    orders = streams.mbo(3)
    orders["ts_recv"] = streams.START + np.arange(3) * HOUR
    clock = Clock()
    feed = started(Source(orders), Playback(1.0), clock_ns=clock)
    until(feed, lambda: feed.records == 1)
    with feed.held():
        clock.now_ns = HOUR - 1
    with feed.held():
        assert feed.records == 1
        clock.now_ns = HOUR
    until(feed, lambda: feed.records == 2)
    with feed.held():
        feed.playback.set_speed(FLAT_OUT, clock.now_ns)
    until(feed, lambda: feed.has_ended)
    assert feed.records == 3


def test_a_view_gets_its_turn_however_fast_the_source():
    forever = Source()
    forever._script = itertools.repeat(streams.mbo(1000))
    feed = Feed(forever, Playback(FLAT_OUT))
    feed.start()
    seen = []
    for _ in range(200):
        with feed.held():
            seen.append(feed.records)
            if feed.records:
                assert BookView(feed.books, AAPL).records == feed.records / 2
    feed.close()
    feed._thread.join()
    assert seen == sorted(seen)
    assert feed.crash is None


def test_what_is_no_mbo_is_left_out_and_an_id_with_another_name_is_another_book():
    renamed = np.frombuffer(streams.mapping(streams.AAPL, "ZZZ"), SYMBOL_MAPPING)
    orders = streams.mbo(4)
    feed = run(orders[:2], renamed, streams.bars(1, 32), orders[2:])
    assert feed.records == 4
    assert [feed.symbol(index) for index in feed.books_shown] == ["AAPL", "MSFT", "ZZZ"]


def test_closing_ends_the_thread_of_a_paused_feed():
    playback = Playback(FLAT_OUT)
    playback.toggle_pause(0)
    feed = Feed(Source(streams.mbo(4)), playback)
    feed.start()
    feed.close()
    feed._thread.join()
    assert feed.records == 0


def test_closing_does_not_wait_for_a_source_that_gives_nothing():
    silent = threading.Event()
    source = Source(silent.wait)
    feed = Feed(source, Playback(FLAT_OUT))
    feed.start()
    source.asked.acquire()
    feed.close()
    assert feed._thread.is_alive()
    silent.set()
    feed._thread.join()
