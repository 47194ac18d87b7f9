"""The quotes that are streamed beside ticks, from any source of records to whoever follows them."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest

from mdtool.adapters.dbn_source import ClosesOnExit
from mdtool.adapters.quotes.dbn_stream import DbnQuotes
from mdtool.adapters.simulated import SimulatedSource
from mdtool.core.batch import Resolver
from mdtool.core.dtypes import F_LAST, MBP1, RTYPE_MBP1, record_length
from mdtool.core.instruments import Instruments
from mdtool.core.tcp import ReservedPort
from mdtool.core.units import NS_PER_MS, UNDEF_PRICE
from mdtool.engine.pacing import Pacer
from mdtool.engine.simulate import Exchange
from mdtool.services.send.quotes import QuotePort
from mdtool.services.send.ticks import tick_pacer
from mdtool.wire.dbn_metadata import make_metadata
from tests.reference.quotes import PlainQuotes
from tests.support.services import logged
from tests.support.waiting import bounded

START_NS = 1_735_201_234_567_000_000


class Followed:
    """The latest quotes that a follower was sent."""

    def __init__(self) -> None:
        self.quotes = {}
        self._changed = asyncio.Event()

    def receive(self, quotes) -> None:
        self.quotes.update((quote.symbol, quote) for quote in quotes)
        self._changed.set()

    async def until(self, is_seen):
        async with bounded():
            while not is_seen(self.quotes):
                self._changed.clear()
                await self._changed.wait()


class Levels(ClosesOnExit):
    """Best prices of one symbol, (ms since the start, bid, ask), in batches of two."""

    name, size_bytes, bytes_read, is_ordered, begin_ns = "levels", None, 0, True, None

    def __init__(self, rows) -> None:
        self.instruments = Instruments()
        self.metadata = make_metadata("X", "mbp-1", START_NS, None, {7: "ES"})
        self._resolver = Resolver(self.instruments, "levels", self.metadata)
        self.records = np.zeros(len(rows), MBP1)
        self.records["length"], self.records["rtype"] = record_length(MBP1), RTYPE_MBP1
        self.records["instrument_id"], self.records["flags"] = 7, F_LAST
        self.records["action"] = b"A"
        for record, (ms, bid, ask) in zip(self.records, rows, strict=True):
            record["ts_recv"] = record["ts_event"] = START_NS + ms * NS_PER_MS
            record["bid_px_00"], record["ask_px_00"] = bid, ask

    def __iter__(self):
        for begin in range(0, len(self.records), 2):
            yield self._resolver.batch(self.records[begin : begin + 2])


@contextlib.asynccontextmanager
async def streaming(make_source, pacer):
    """A port that streams the quotes of a source, read to its end in a thread, and its address."""
    with ReservedPort("127.0.0.1") as reserved:
        port = QuotePort(f"127.0.0.1:{reserved.port}")
        source = port.watch(make_source())
        serving = asyncio.create_task(port.run(pacer))
        reading = asyncio.create_task(asyncio.to_thread(lambda: [len(batch) for batch in source]))
        try:
            yield port.address, reading, serving
        finally:
            serving.cancel()
            await asyncio.wait({serving, reading})


@contextlib.asynccontextmanager
async def following(address):
    followed = Followed()
    task = asyncio.create_task(DbnQuotes(address, followed.receive).run())
    try:
        yield followed
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_quotes_of_a_simulated_exchange_arrive_with_both_sides():
    symbols = ("AAPL", "MSFT")
    expected, generated = PlainQuotes(), Exchange(symbols).generate(4_000, "mbp-1")
    expected.update(generated)

    class First(SimulatedSource):
        def __iter__(self):
            yield self._resolver.batch(generated)

    async with (
        streaming(lambda: First(Exchange(symbols), "mbp-1"), Pacer(0.0)) as (address, *_),
        following(address) as followed,
    ):
        await followed.until(lambda quotes: len(quotes) == len(symbols))
    for number, symbol in enumerate(symbols, 1):
        (prices,) = [each for key, each in expected.quotes.items() if key[1] == number]
        quote = followed.quotes[symbol]
        assert (quote.bid, quote.ask, quote.last) == prices
        assert quote.bid < quote.ask
        assert not quote.is_partial


async def test_a_quote_is_streamed_when_the_ticks_have_reached_its_time():
    reached_ns = [START_NS]
    pacer = tick_pacer(1.0)
    pacer.reached_ns = lambda _now_ns: reached_ns[0]
    rows = [(0, 10, 11), (5, 20, 21), (10, 30, UNDEF_PRICE)]
    async with (
        streaming(lambda: Levels(rows), pacer) as (address, reading, _),
        following(address) as followed,
    ):
        await reading
        for (ms, bid, ask), next_ms in zip(rows, (4, 9, 10), strict=True):
            await followed.until(lambda quotes, bid=bid: "ES" in quotes and quotes["ES"].bid == bid)
            assert followed.quotes["ES"].ask == (None if ask == UNDEF_PRICE else ask)
            assert followed.quotes["ES"].ts_ms == START_NS // NS_PER_MS + ms
            reached_ns[0] = START_NS + (next_ms + 1) * NS_PER_MS


async def test_a_source_is_blocked_while_too_much_of_it_is_not_due_and_released_at_the_end():
    pacer = tick_pacer(1.0)
    pacer.reached_ns = lambda _now_ns: START_NS
    rows = [(ms, 10 + ms, 2_000) for ms in range(1_000)]
    async with (
        streaming(lambda: Levels(rows), pacer) as (address, reading, serving),
        following(address) as followed,
    ):
        await followed.until(lambda quotes: "ES" in quotes)
        assert not reading.done()
        serving.cancel()
        async with bounded():
            assert sum(await reading) == len(rows)


async def test_a_follower_that_comes_later_gets_all_quotes_and_one_of_an_ended_stream_waits():
    async with streaming(lambda: Levels([(0, 10, 11)]), Pacer(0.0)) as (address, reading, serving):
        await reading
        for _ in range(2):
            async with following(address) as followed:
                await followed.until(lambda quotes: quotes.get("ES"))
        with logged("mdtool.adapters.quotes") as log:
            async with following(address) as followed:
                await followed.until(lambda quotes: quotes.get("ES"))
                serving.cancel()
                async with bounded():
                    await log.heard("the stream has ended")
    assert not any("reconnecting" in line for line in log.lines)


@pytest.mark.parametrize("request_line", [b"from=start\n", b"stream=x|position=3\n", b"GET / \n"])
async def test_what_cannot_be_streamed_is_refused(request_line):
    async with streaming(lambda: Levels([(0, 10, 11)]), Pacer(0.0)) as (address, reading, _):
        await reading
        reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
        writer.write(request_line)
        async with bounded():
            said = await reader.read()
        writer.close()
    assert b"request" in said
