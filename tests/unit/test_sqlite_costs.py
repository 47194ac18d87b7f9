"""The cost of reading a SQLite store does not depend on its size."""

from __future__ import annotations

import contextlib
import sqlite3

import numpy as np
import pytest

from mdtool.adapters.stores.port import StreamRun
from mdtool.adapters.stores.sqlite import History, Store
from mdtool.core.trades import Trades
from tests.support.stores import NOON_NS, run, step

TRADES = 100_000
SESSION = (1, 1, 1, 1, 1, 1, NOON_NS, NOON_NS)


@pytest.fixture
def url(tmp_path) -> str:
    url = f"sqlite:///{tmp_path}/trades.db?synchronous=normal"
    sequence = np.arange(TRADES)
    times = NOON_NS + sequence // 5_000
    trades = Trades(np.zeros(TRADES, np.uint32), sequence + 1, sequence + 1, times, times)
    whole = StreamRun("stream", 0, TRADES, sequence, trades)
    with Store(url) as store:
        store.write(step(["AAPL"], whole, sessions={0: SESSION}, counts={"ticks": TRADES}))
    return url


def work(history: History, read) -> int:
    """How many steps SQLite's machine takes for an answer."""
    ticks = []
    history._connection.read(lambda s: s.set_progress_handler(lambda: ticks.append(1), 1))
    read()
    history._connection.read(lambda s: s.set_progress_handler(None, 0))
    return len(ticks)


def test_the_last_page_costs_what_the_first_does(url):
    with History(url) as history:
        first = history.page("AAPL", 100)
        later = history.page("AAPL", TRADES - 1_000).key(-1)
        middle = history.page("AAPL", TRADES // 2 + 1_234).key(-1)
        expected = work(history, lambda: history.page("AAPL", 100, first.key(-1)))
        for before in (later, middle):
            cost = work(history, lambda before=before: history.page("AAPL", 100, before))
            assert abs(cost - expected) < 100  # of one block, or of two where a page lies in both
        assert expected < 3_000


def test_totals_cost_nothing_by_the_trade(url):
    with History(url) as history:
        assert work(history, history.symbols) < 100
        assert work(history, lambda: history.has("AAPL")) < 100


def test_a_market_is_restored_without_reading_trades(tmp_path, url):
    with contextlib.closing(sqlite3.connect(tmp_path / "trades.db")) as connection:
        connection.executescript("DROP VIEW trades; DROP TABLE trade_rows; DROP TABLE trade_blocks")
    with Store(url) as store:
        state = store.load(10, 10**12)
        assert state.positions == {"stream": TRADES}
        assert state.counts == {"ticks": TRADES}
        assert state.sessions.tolist() == [SESSION]
        assert store.symbols()[0].trade_count == TRADES


def test_silent_streams_are_not_read(tmp_path):
    url = f"sqlite:///{tmp_path}/streams.db?synchronous=normal"
    with Store(url) as store:
        store.write(step([], *(run(f"stream-{number}", 0, []) for number in range(1_000))))
        few = work(store, lambda: store.load(3, 0))
        store.write(step([], *(run(f"other-{number}", 0, []) for number in range(9_000))))
        assert work(store, lambda: store.load(3, 0)) == few
        assert list(store.load(2, 0).positions) == ["other-8998", "other-8999"]
