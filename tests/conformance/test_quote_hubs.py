"""What every hub of quotes owes its listeners, whatever carries the quotes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from mdtool.adapters.quotes import SCHEMES, open_hub
from mdtool.core.errors import ConfigError
from mdtool.wire.quotes import Quote
from tests.support.redis_servers import redis_server


class Heard:
    """What a listener was told, in order."""

    def __init__(self, hub) -> None:
        self.quotes: list[Quote] = []
        self._news = asyncio.Event()
        hub.subscribe(self._take)

    def _take(self, quotes) -> None:
        symbols = [quote.symbol for quote in quotes]
        assert len(symbols) == len(set(symbols))
        self.quotes.extend(quotes)
        self._news.set()

    async def until(self, quote: Quote) -> None:
        while quote not in self.quotes:
            self._news.clear()
            await self._news.wait()


@pytest.fixture(params=SCHEMES)
async def url(request, tmp_path):
    if request.param == "memory":
        yield "memory:"
    else:
        async with redis_server(tmp_path) as server:
            yield server.url


@pytest.fixture
def hub(url):
    return open_hub(url)


def quote(number: int, symbol: str = "AAPL") -> Quote:
    return Quote(symbol, number * 10**9, None, number * 10**9 - 1, number)


async def test_every_listener_is_told_of_every_symbol(hub):
    first, second = Heard(hub), Heard(hub)
    quotes = [quote(1, f"SYMBOL{number}") for number in range(1_500)]
    async with hub:
        hub.publish(quotes)
        for heard in (first, second):
            await heard.until(quotes[-1])
            assert sorted(heard.quotes) == sorted(quotes)


async def test_quotes_of_a_symbol_come_in_order_and_the_last_one_does(hub):
    heard = Heard(hub)
    async with hub:
        for number in range(1, 201):
            hub.publish([quote(number), quote(number, "MSFT")])
            if number % 10 == 0:
                await asyncio.sleep(0)
        for symbol in ("AAPL", "MSFT"):
            await heard.until(quote(200, symbol))
    for symbol in ("AAPL", "MSFT"):
        times = [quote.ts_ms for quote in heard.quotes if quote.symbol == symbol]
        assert times[-1] == 200
        assert all(earlier < later for earlier, later in itertools.pairwise(times))


async def test_prices_come_as_they_were_published(hub):
    heard = Heard(hub)
    odd = Quote("ES 1", -(2**63 - 2), 1, None, 2**63 // 10**6 - 1)
    async with hub:
        hub.publish([odd])
        await heard.until(odd)


async def test_nothing_is_told_after_its_end(hub):
    heard = Heard(hub)
    async with hub:
        hub.publish([quote(1)])
        await heard.until(quote(1))
    before = list(heard.quotes)
    hub.publish([quote(2)])
    await asyncio.sleep(0)
    assert heard.quotes == before


async def test_an_error_within_it_comes_out_as_it_is(hub):
    with pytest.raises(ZeroDivisionError):
        async with hub:
            raise ZeroDivisionError


async def test_it_can_be_cancelled(hub):
    is_open = asyncio.Event()

    async def hold() -> None:
        async with hub:
            is_open.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await is_open.wait()
    assert hub.lost_because is None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


def test_an_unknown_scheme_names_those_that_there_are():
    for url in ("nats://127.0.0.1", "", "localhost:6379"):
        with pytest.raises(ConfigError, match="memory, redis"):
            open_hub(url)


def test_a_hub_in_memory_takes_no_address():
    with pytest.raises(ConfigError, match="memory:"):
        open_hub("memory://127.0.0.1")
