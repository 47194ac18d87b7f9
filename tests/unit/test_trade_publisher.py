"""What follows committed trades gets each once, in order, or is told that it was too slow."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import TradeRun
from mdtool.engine.market import Change
from mdtool.services.aggregator.trade_publisher import BehindError, TradePublisher
from mdtool.wire.batches import decode_batch
from tests.reference.market import batch
from tests.support.aggregators import tick


def change(next_sequence: int, *frames) -> Change:
    run = TradeRun(SymbolTable(), "s", next_sequence - len(frames), batch(frames))
    return Change(run, np.empty(0, np.uint32))


async def taken(follower, table: SymbolTable):
    """The next batch as first sequence and (symbol, price) rows."""
    run = decode_batch(await anext(follower), table)
    columns = run.trades.symbol.tolist(), run.trades.price.tolist()
    return run.first_sequence, [(table[s], p) for s, p in zip(*columns, strict=True)]


async def test_batches_come_in_order_with_the_symbols_that_they_need():
    symbols = SymbolTable(["AAPL"])
    publisher = TradePublisher(symbols)
    with publisher.follow() as early:
        publisher.publish([change(1, tick(100))])
        symbols.intern("MSFT")
        with publisher.follow() as later:
            publisher.publish([change(4, 2, tick(200, symbol=1), tick(300))])
            table = SymbolTable()
            assert await taken(early, table) == (0, [("AAPL", 10**9)])
            assert await taken(early, table) == (1, [("MSFT", 2 * 10**9), ("AAPL", 3 * 10**9)])
            assert (await taken(later, SymbolTable()))[0] == 1
    assert len(publisher) == 0


async def test_changes_without_trades_are_not_published():
    publisher = TradePublisher(SymbolTable(["AAPL"]))
    with publisher.follow() as follower:
        publisher.publish([change(1, 3), change(2, tick(100))])
        assert (await taken(follower, SymbolTable()))[0] == 1


async def test_a_slow_follower_is_disconnected_and_others_are_not():
    publisher = TradePublisher(SymbolTable(["AAPL"]), max_behind=2)
    with publisher.follow() as slow, publisher.follow() as quick:
        table = SymbolTable()
        for number in range(3):
            publisher.publish([change(number + 1, tick(100))])
            assert (await taken(quick, table))[0] == number
        with pytest.raises(BehindError, match="more than 2 trades"):
            await anext(slow)
        publisher.publish([change(4, tick(100))])
        with pytest.raises(BehindError):
            await anext(slow)


async def test_batches_are_collected_until_the_interval_ends_or_they_are_requested():
    publisher = TradePublisher(SymbolTable(["AAPL"]))
    with publisher.follow() as follower:
        follower.collect(3_600_000)
        publisher.publish([change(1, tick(100))])
        waiting = asyncio.create_task(taken(follower, SymbolTable()))
        await asyncio.sleep(0)
        assert not waiting.done()
        follower.request(3_600_000)
        follower.request(0)
        assert (await waiting)[0] == 0
        assert [(await anext(follower)).frames for _ in range(2)] == [0, 0]
        publisher.publish([change(2, tick(200))])
        assert (await anext(follower)).first_sequence == 1
        follower.collect(1)
        for sequence in (2, 3):
            publisher.publish([change(sequence + 1, tick(100))])
            assert (await anext(follower)).first_sequence == sequence


async def test_many_trades_are_not_collected():
    publisher = TradePublisher(SymbolTable(["AAPL"]))
    with publisher.follow() as follower:
        follower.collect(3_600_000)
        publisher.publish([change(2_000, *[tick(100)] * 2_000)])
        assert (await anext(follower)).frames == 2_000


async def test_closing_ends_followers_after_their_queue():
    publisher = TradePublisher(SymbolTable(["AAPL"]))
    with publisher.follow() as follower:
        publisher.publish([change(1, tick(100))])
        publisher.close()
        assert len([batch async for batch in follower]) == 1
    with publisher.follow() as late:
        assert [batch async for batch in late] == []


async def test_batches_of_one_stream_that_wait_are_joined():
    symbols = SymbolTable(["AAPL"])
    publisher = TradePublisher(symbols)

    def run(stream_id: str, first: int, *frames) -> Change:
        return Change(TradeRun(symbols, stream_id, first, batch(frames)), np.empty(0, np.uint32))

    with publisher.follow() as follower:
        publisher.publish([run("s", 0, tick(100)), run("s", 1, 2, tick(200))])
        publisher.publish([run("s", 4, tick(300)), run("other", 4, tick(400))])
        publisher.publish([run("other", 5, tick(500)), run("other", 7, tick(600))])
        table = SymbolTable()
        rows = [await taken(follower, table) for _ in range(4)]
    prices = [(first, [price // 10**7 for _, price in trades]) for first, trades in rows]
    assert prices == [(0, [100, 200]), (4, [300]), (4, [400, 500]), (7, [600])]


@pytest.mark.parametrize("n_symbols", [0, 150_000])
async def test_messages_fit_what_any_client_accepts_however_many_symbols_and_trades(n_symbols):
    names = [f"{number:0>70}" for number in range(n_symbols)]
    symbols = SymbolTable(["AAPL", *names])
    publisher, n_frames = TradePublisher(symbols), 120_000
    with publisher.follow() as follower:
        publisher.publish([change(n_frames, *[tick(100)] * n_frames)])
        publisher.close()
        messages = [message async for message in follower]
    assert max(message.ByteSize() for message in messages) < 4 << 20
    table = SymbolTable()
    runs = [decode_batch(message, table) for message in messages]
    assert list(table) == list(symbols)
    sent = [run for run in runs if len(run.trades)]
    assert sum(len(run.trades) for run in sent) == n_frames
    next_sequence = 0
    for run in sent:
        assert run.first_sequence == next_sequence
        next_sequence = run.next_sequence
