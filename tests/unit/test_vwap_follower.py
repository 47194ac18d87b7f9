"""A feed followed while windows are filled: each trade once, none missed, whatever is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import threading

import numpy as np
import pytest

from mdtool.adapters.market import TradeStream
from mdtool.adapters.stores.errors import StoreInterruptedError, StoreUnavailableError
from mdtool.adapters.stores.port import SavedStream, SymbolTotals, TradePage
from mdtool.core.errors import PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.engine.vwap import Window
from mdtool.services.vwap import follower as module
from mdtool.services.vwap.backfill import read_backfill
from mdtool.services.vwap.follower import Follower
from mdtool.services.vwap.states import States
from tests.reference.market import batch
from tests.support.aggregators import tick

TABLE = SymbolTable(["AAPL"])


class Feed:
    """A feed that a test feeds."""

    name = "the test"

    def __init__(self) -> None:
        self.is_followed = asyncio.Event()
        self._lost: asyncio.Future[None]

    async def follow_trades(self, connected, receive) -> None:
        self.receive = receive
        self._lost = asyncio.get_running_loop().create_future()
        connected(TradeStream(lambda _: None, receive))
        self.is_followed.set()
        await self._lost

    def lose(self) -> None:
        self.is_followed.clear()
        self._lost.set_exception(PeerError("gone"))

    def send(self, first: int, *cents: int) -> None:
        frames = [tick(price) for price in cents]
        self.receive(TradeRun(TABLE, "s", first, batch(frames)))


class History:
    """A store that is read when the test says so."""

    def __init__(self, cents: list[int], position: int) -> None:
        self.is_free = threading.Event()
        self.is_asked = threading.Event()
        self.is_interrupted = False
        self.error: Exception | None = None
        self._cents = cents
        self._position = position

    def __enter__(self):
        return self

    def __exit__(self, *exc_info) -> None:
        pass

    def streams(self):
        self.is_asked.set()
        assert self.is_free.wait(60)
        if self.is_interrupted:
            raise StoreInterruptedError("told to")
        if self.error is not None:
            raise self.error
        return [SavedStream(1, "s", self._position)]

    def symbols(self):
        return [SymbolTotals("AAPL", len(self._cents), 0)]

    def page(self, _symbol, limit, before=None):
        end = len(self._cents) if before is None else before.sequence
        sequence = np.arange(end, dtype=np.int64)[::-1][:limit]
        price = np.array(self._cents, np.int64)[sequence] * 10**7
        stream, volume = np.ones_like(sequence), np.ones_like(sequence)
        columns = (sequence, stream, sequence, price, volume, sequence)
        return TradePage.of(np.stack(columns))

    def interrupt(self) -> None:
        self.is_interrupted = True
        self.is_free.set()


class Followed:
    """A follower at work, its feed, its histories, and what it published."""

    def __init__(self, histories: list[History], monkeypatch) -> None:
        monkeypatch.setattr(module, "open_history", lambda _url: histories.pop(0))
        monkeypatch.setattr(module, "delays", lambda **_: iter(lambda: 0.0, None))
        self.feed = Feed()
        self.states = States(Window(trades=100))
        self.published = asyncio.Event()
        store = "sqlite:///any" if histories else ""
        publish = lambda _symbols: self.published.set()  # noqa: E731
        follower = Follower(self.feed, self.states, publish, lambda _: None, store)
        self.task = asyncio.create_task(follower.run())

    def state(self) -> tuple[int, float]:
        line = json.loads(self.states.line("AAPL"))
        return line["window"], line["vwap"]

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_trades_that_arrive_during_a_backfill_continue_from_it(monkeypatch):
    history = History([100, 200, 300], position=3)
    followed = Followed([history], monkeypatch)
    await followed.feed.is_followed.wait()
    followed.feed.send(2, 300, 400)  # the first of them is in the store already
    followed.feed.send(4, 500)
    assert followed.states.line("AAPL") == b""
    history.is_free.set()
    await followed.published.wait()
    assert followed.state() == (5, 3)
    followed.feed.send(5, 600)
    assert followed.state() == (6, 3.5)
    await followed.end()


async def test_trades_beyond_the_positions_are_left_out_of_a_backfill(monkeypatch):
    history = History([100, 200, 300], position=2)
    followed = Followed([history], monkeypatch)
    await followed.feed.is_followed.wait()
    history.is_free.set()
    await followed.published.wait()
    assert followed.state() == (2, 1.5)
    followed.feed.send(2, 300)
    assert followed.state() == (3, 2)
    await followed.end()


async def test_a_feed_that_is_lost_during_a_backfill_cancels_it(monkeypatch):
    first, second = History([100], position=1), History([100, 200, 300], position=3)
    followed = Followed([first, second], monkeypatch)
    await followed.feed.is_followed.wait()
    await asyncio.to_thread(first.is_asked.wait)
    followed.feed.send(1, 200)
    followed.feed.lose()
    await followed.feed.is_followed.wait()
    assert first.is_interrupted
    second.is_free.set()
    await followed.published.wait()
    assert followed.state() == (3, 2)
    await followed.end()


async def test_without_a_store_windows_start_with_pending_trades(monkeypatch, caplog):
    history = History([100], position=1)
    history.error = StoreUnavailableError("the store is away")
    followed = Followed([history], monkeypatch)
    await followed.feed.is_followed.wait()
    followed.feed.send(7, 900)
    history.is_free.set()
    await followed.published.wait()
    assert followed.state() == (1, 9)
    assert "the store is away; no backfill: windows start empty" in caplog.text
    await followed.end()


async def test_a_stop_does_not_wait_for_a_store(monkeypatch):
    history = History([100], position=1)
    followed = Followed([history], monkeypatch)
    await followed.feed.is_followed.wait()
    await asyncio.to_thread(history.is_asked.wait)
    await followed.end()
    assert history.is_interrupted


def test_a_cancelled_backfill_reads_no_further_symbol():
    history = History([100, 200], position=2)
    history.is_free.set()
    read = []
    page = history.page
    history.symbols = lambda: [SymbolTotals(f"S{number}", 2, 0) for number in range(5)]
    history.page = lambda symbol, *place: (read.append(symbol), page(symbol, *place))[1]
    with pytest.raises(StoreInterruptedError, match="was cancelled"):
        read_backfill(history, Window(trades=1), lambda: len(read) == 2)
    assert read == ["S0", "S1"]


async def test_too_many_pending_trades_reconnect(monkeypatch):
    monkeypatch.setattr(module, "_MAX_PENDING", 2)
    followed = Followed([History([], position=0)], monkeypatch)
    await followed.feed.is_followed.wait()
    with pytest.raises(PeerError, match="more than 2 trades arrived during the backfill"):
        followed.feed.send(0, 100, 200, 300)
    await followed.end()


async def test_trades_that_are_left_out_are_logged(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    followed = Followed([], monkeypatch)
    followed.states._windows = type(followed.states._windows)(Window(trades=1, span_ns=10**9))
    await followed.feed.is_followed.wait()
    run = batch([tick(100, at_s=5), tick(100), tick(100, at_s=5)])
    followed.feed.receive(TradeRun(TABLE, "s", 0, run))
    await followed.end()
    assert "trades that are older than their window are left out" in caplog.text
    assert "a window is full" in caplog.text
    assert "left out of windows: 1 trade; 1 left early" in caplog.text
