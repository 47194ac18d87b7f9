"""Pages of trades out of a store that is written between any two of them."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mdtool.adapters.stores import open_history, open_store
from mdtool.core.breaker import BreakerRules
from mdtool.services.gateway.history.paging import parse_place
from mdtool.services.gateway.history.view import HistoryView
from mdtool.services.gateway.limits import UpstreamLimit
from mdtool.services.gateway.resilience import Resilience, RetryRules
from tests.support.stores import MS, NOON_NS, run, sqlite_stores, step

STREAMS = ("b", "a", "c")

moments = st.integers(0, 2) | st.integers(MS, MS + 2)
"""Of two milliseconds, most of them at one nanosecond with many others."""
rows = st.tuples(st.sampled_from(STREAMS), moments)
batches = st.lists(rows, max_size=12)


class AtOnce:
    """Asks a history in the thread that asks."""

    def __init__(self, history) -> None:
        self._history = history

    async def ask(self, question, timeout_s):
        return question(self._history)


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

    def newest_first(self, prices):
        """The trades in the order in which pages should have them."""
        number = {each.stream_id: each.number for each in self._store.streams()}

        def key(price):
            time_ns, name, sequence = self.keys[price]
            return time_ns, number[name], sequence

        return sorted(prices, key=key, reverse=True), key


async def walk(view, limit, between):
    """All pages from the newest on, as prices; something happens before each but the first."""
    found, cursor = [], None
    while not found or cursor is not None:
        if found:
            between()
        page = await view.page("AAPL", limit, parse_place(cursor, "AAPL"))
        found.append([trade.price for trade in page.trades])
        cursor = page.next_cursor
    return found


@settings(max_examples=60)
@given(
    st.lists(rows, min_size=1, max_size=40),
    st.lists(batches, max_size=8),
    st.integers(1, 9),
)
def test_no_trade_is_skipped_or_repeated_while_trades_pour_in(stored, later, limit):
    with (
        tempfile.TemporaryDirectory() as folder,
        sqlite_stores(Path(folder)) as new_url,
        open_store(url := new_url()) as store,
        open_history(url) as history,
    ):
        writer = Writer(store)
        writer.write(stored)
        first = set(writer.keys)
        pouring = iter(later)
        view = HistoryView(
            AtOnce(history), Resilience("it", RetryRules(), BreakerRules()), UpstreamLimit(0, 1)
        )
        pages = asyncio.run(walk(view, limit, lambda: writer.write(next(pouring, []))))

        found = list(itertools.chain(*pages))
        assert len(set(found)) == len(found)
        assert first <= set(found)
        in_order, key = writer.newest_first(found)
        assert found == in_order
        # Only what took place before a page's end came into later ones.
        top = max(map(key, first))
        assert all(key(price) <= top for price in found)
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert 1 <= len(pages[-1]) <= limit

        again = asyncio.run(walk(view, limit, lambda: None))
        assert list(itertools.chain(*again)) == writer.newest_first(writer.keys)[0]


@settings(max_examples=30)
@given(st.lists(rows, min_size=1, max_size=30), st.integers(1, 30))
def test_a_time_in_ms_has_what_took_place_before_it(stored, limit):
    with (
        tempfile.TemporaryDirectory() as folder,
        sqlite_stores(Path(folder)) as new_url,
        open_store(url := new_url()) as store,
        open_history(url) as history,
    ):
        writer = Writer(store)
        writer.write(stored)
        in_order, key = writer.newest_first(writer.keys)
        for moment_ms in range(3):
            before_ns = NOON_NS + moment_ms * MS
            page = history.page("AAPL", limit, parse_place(str(before_ns // MS), "AAPL"))
            older = [price for price in in_order if key(price)[0] < before_ns]
            assert page.trades.price.tolist() == older[:limit]
