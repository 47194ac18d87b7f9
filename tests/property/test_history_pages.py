"""Pages of trades from a store that is written between any two of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.adapters.stores import open_history, open_store
from mdtool.services.client import Admission
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds.feed import Audience, Key, Page
from mdtool.services.gateway.feeds.trades import Trades
from mdtool.services.gateway.history import History
from mdtool.services.gateway.hub import Hub
from mdtool.services.gateway.market import MarketState
from mdtool.services.limits import Limits
from tests.support.stores import MS, NOON_NS, run, sqlite_stores, step

STREAMS = ("b", "a", "c")

moments = st.integers(0, 2) | st.integers(MS, MS + 2)
"""Of two milliseconds, most of them at one nanosecond with many others."""
rows = st.tuples(st.sampled_from(STREAMS), moments)
batches = st.lists(rows, max_size=12)


MOST_PAGES = 300
"""More than there are trades: those of the first batch and of eight later ones."""
ANYBODY = Admission(Limits()).client("1.2.3.4")


class AtOnce:
    """Serves requests in the thread that makes them."""

    def __init__(self, history) -> None:
        self._history = history

    address = "it"

    async def request(self, call, timeout_s):
        return call(self._history)


class Writer:
    """Writes trades; the price of each tells which one it is."""

    def __init__(self, store) -> None:
        self._store = store
        self._positions = dict.fromkeys(STREAMS, 0)
        self._numbers = itertools.count(1)
        self.keys = {}
        """Of each trade, by its price: what orders it among others."""

    def write(self, batch) -> None:
        runs = []
        for name in STREAMS:
            trades = [
                (0, next(self._numbers), 1, NOON_NS + moment) for of, moment in batch if of == name
            ]
            first = self._positions[name]
            self._positions[name] += len(trades)
            runs.append(run(name, first, trades))
            for sequence, (_, price, _, time_ns) in enumerate(trades, first):
                self.keys[price] = (time_ns, name, sequence)
        self._store.write(step(["AAPL"], *runs))

    def in_order(self, prices, is_ascending):
        """The trades in the order in which pages should have them."""
        number = {each.stream_id: each.number for each in self._store.streams()}

        def key(price):
            time_ns, name, sequence = self.keys[price]
            return time_ns, number[name], sequence

        return sorted(prices, key=key, reverse=not is_ascending), key


@contextlib.contextmanager
def feeds_of(folder):
    """A writer of a store, and the feed of trades over that."""
    with (
        sqlite_stores(Path(folder)) as new_url,
        open_store(url := new_url()) as store,
        open_history(url) as reader,
    ):
        history = History(GatewayConfig(store=url))
        history._readers = AtOnce(reader)
        yield Writer(store), Trades(None, history, MarketState(), Audience(Hub()))


async def walk(feed, page, between):
    """All pages from one on, as prices; something happens before each but the first."""
    found = []
    while len(found) < MOST_PAGES:
        part = await feed.history(ANYBODY, Key("AAPL"), page)
        found.append([trade.price for trade in part.rows])
        if part.next is None:
            return found
        page = replace(page, cursor=part.next)
        between()
    pytest.fail(f"the pages do not end: {found}")


@settings(max_examples=60)
@given(
    st.lists(rows, min_size=1, max_size=40),
    st.lists(batches, max_size=8),
    st.integers(1, 9),
    st.booleans(),
)
def test_no_trade_is_skipped_or_repeated_while_trades_pour_in(stored, later, limit, is_ascending):
    with tempfile.TemporaryDirectory() as folder, feeds_of(folder) as (writer, feed):
        writer.write(stored)
        first = set(writer.keys)
        pouring = iter(later)
        page = Page(limit, is_ascending=is_ascending)
        pages = asyncio.run(walk(feed, page, lambda: writer.write(next(pouring, []))))

        found = list(itertools.chain(*pages))
        assert len(set(found)) == len(found)
        assert first <= set(found)
        in_order, key = writer.in_order(found, is_ascending)
        assert found == in_order
        # Of those written meanwhile only what is behind a page's end is on the next ones.
        if not is_ascending:
            top = max(map(key, first))
            assert all(key(price) <= top for price in found)
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert 1 <= len(pages[-1]) <= limit

        again = asyncio.run(walk(feed, page, lambda: None))
        assert list(itertools.chain(*again)) == writer.in_order(writer.keys, is_ascending)[0]


@settings(max_examples=40)
@given(
    st.lists(rows, min_size=1, max_size=30),
    st.integers(1, 7),
    st.none() | moments,
    st.none() | moments,
    st.booleans(),
)
def test_pages_have_the_trades_from_a_time_to_another(stored, limit, begin, end, is_ascending):
    with tempfile.TemporaryDirectory() as folder, feeds_of(folder) as (writer, feed):
        writer.write(stored)
        in_order, key = writer.in_order(writer.keys, is_ascending)
        from_ns = None if begin is None else NOON_NS + begin
        to_ns = None if end is None else NOON_NS + end
        expected = [
            price
            for price in in_order
            if (from_ns is None or key(price)[0] >= from_ns)
            and (to_ns is None or key(price)[0] < to_ns)
        ]
        page = Page(limit, None, from_ns, to_ns, is_ascending)
        pages = asyncio.run(walk(feed, page, lambda: None))
        assert list(itertools.chain(*pages)) == expected
