"""The test pages of STOMP and of signaling, in a real browser."""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.reference.market_source import MarketSource
from tests.support.browser import chromium, chromium_tabs
from tests.support.feed_sources import SOURCES, world_of
from tests.support.gateways import gateway_of
from tests.support.requirements import node_modules

FAKE_DEVICES = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
CONNECTED = "document.querySelector('#state').dataset.state === 'connected'"


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        source.trade("MSFT", 410.5, 20)
        yield source


def _url(client, path: str) -> str:
    return f"http://{client.host}:{client.port}{path}"


TITLES = {
    "market": "mdtool",
    "order book": "Order book · mdtool",
    "STOMP": "STOMP · mdtool",
    "call": "Call · mdtool",
    "GraphQL": "GraphiQL · mdtool",
    "API": "API · mdtool",
}
"""The titles of pages, by the text of links to them."""


@pytest.mark.parametrize("path", ["/", "/book", "/demo/stomp", "/demo/call"])
async def test_links_lead_where_they_say(client, path):
    async with client.get(path) as response:
        page = await response.text()
    links = re.findall(r'<a[^>]* href="([^"]*)"[^>]*>([^<]*)</a>', page)
    found = {text: href for href, text in links if text in TITLES}
    assert len(found) >= 4
    for text, href in found.items():  # relative to the base of all pages, the root here
        async with client.get(f"/{href.removeprefix('./')}") as response:
            assert f"<title>{TITLES[text]}</title>" in await response.text()


async def test_the_stomp_page_follows_topics_and_sends(source, client):
    async with chromium() as tab:
        await tab.open(_url(client, "/demo/stomp"))
        await tab.until(CONNECTED)
        await tab.run("document.querySelector('#follow').requestSubmit()")
        row = "document.querySelector('[data-destination=\"/topic/market-data/AAPL\"]')"
        await tab.until(f'{row}?.innerText.includes(\'"volume":"400"\')')
        source.trade("AAPL", 187.5, 1)
        await tab.until(f"{row}.innerText.includes('\"close\":187.5')")
        await tab.run(
            "document.querySelector('#destination').value = '/topic/signaling';"
            "document.querySelector('#follow').requestSubmit();"
            "document.querySelector('#send').requestSubmit()"
        )
        heard = "document.querySelector('[data-destination=\"/topic/signaling\"]')"
        await tab.until(f"{heard}?.innerText.includes('JOIN')")
        await tab.run("document.querySelector('#subscriptions button').click()")
        assert tab.complaints == []


@pytest.mark.parametrize("path", ["/demo/stomp", "/demo/call"])
async def test_a_page_shows_the_age_of_updates(source, client, path):
    age = "document.querySelector('#age')"
    async with chromium() as tab:
        await tab.open(_url(client, path))
        await tab.until(f"{age}.innerText.includes('none lately')")
        # Updates of a few seconds count, and those only whose topics are followed by then.
        while not await tab.run(f"/\\s[\\d.]+ (ms|s|min|h|d) old/.test({age}.innerText)"):
            source.trade("AAPL", 187.5, 1)
        await tab.until(f"['ok', 'degraded'].includes({age}.dataset.state)")


async def test_the_stomp_page_survives_what_is_refused(source, client):
    async with chromium() as tab:
        await tab.open(_url(client, "/demo/stomp"))
        await tab.until(CONNECTED)
        await tab.run(
            "document.querySelector('#follow').requestSubmit();"
            "document.querySelector('#destination').value = '/topic/nothing';"
            "document.querySelector('#follow').requestSubmit()"
        )
        await tab.until(
            "document.querySelector('#log').innerText.includes(\"'/topic/nothing': unknown\")"
        )
        lines = "document.querySelector('#log').innerText"
        await tab.until(f"{lines}.split(/ connected/).length > 2 && {CONNECTED}")
        source.trade("GOOG", 2.0, 3)
        await tab.until("document.querySelector('#topics').innerText.includes('GOOG')")


async def test_the_call_page_marks_what_is_stale():
    source = MarketSource()
    source.lots = {"AAPL": 5 * 10**8}
    source.trade("AAPL", 187.25, 12_345)
    async with contextlib.AsyncExitStack() as stack:
        tab = await stack.enter_async_context(chromium())
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address))
            await tab.open(_url(client, "/demo/call"))
            await tab.until("document.querySelector('#price').value === '187.25'")
            await tab.until("!document.querySelector('#prices').matches('.stale')")
            assert "6,172.5" in await tab.text("#prices")  # halves
        await tab.until("document.querySelector('.since').innerText.startsWith('stale')")
        assert await tab.run("document.querySelector('#prices').matches('.stale')")


async def test_the_call_page_shows_the_trades_of_what_is_watched():
    tape = "[...document.querySelectorAll('.tape tbody tr')].map((row) => row.cells[1].innerText)"
    async with world_of(SOURCES["trades"]) as world, chromium() as tab:
        await world.trade({"AAPL": 20_000, "MSFT": 41_000})
        await tab.open(_url(world.client, "/demo/call?symbol=AAPL"))
        await tab.until(f"{tape}.join() === '200'")
        await world.trade({"AAPL": 20_050, "MSFT": 41_100})
        await tab.until(f"{tape}.join() === '200.5,200'")
        await tab.run(
            "document.querySelector('#symbol').value = 'MSFT';"
            "document.querySelector('#watch').requestSubmit()"
        )
        await tab.until(f"{tape}.join() === '411,410'")
        assert tab.complaints == []


async def test_two_tabs_call_each_other_and_watch_the_same_symbol(source, client):
    async with chromium_tabs(2, *FAKE_DEVICES) as (first, second):
        for tab, symbol in ((first, "AAPL"), (second, "MSFT")):
            await tab.open(_url(client, f"/demo/call?room=test&symbol={symbol}"))
            await tab.until(CONNECTED)
            await tab.run("document.querySelector('#call').requestSubmit()")
            await tab.until("document.querySelector('#state dd').innerText === 'in test'")
        for tab in (first, second):
            await tab.until("document.querySelector('#peers dd')?.innerText === 'connected'")
            await tab.run(_PLAYING)
        # Who comes later watches what is watched.
        await second.until("document.querySelector('#price').value === '187.25'")
        await second.run(
            "document.querySelector('#symbol').value = 'MSFT';"
            "document.querySelector('#watch').requestSubmit()"
        )
        await first.send("Page.bringToFront")  # nothing is drawn in a tab that is not seen
        await first.until("Number(document.querySelector('#price').value) === 410.5")
        source.trade("MSFT", 411.0, 1)
        for tab in (first, second):
            await tab.send("Page.bringToFront")
            await tab.until("Number(document.querySelector('#price').value) === 411")
        await second.run("document.querySelector('#leave').click()")
        await first.until("document.querySelector('#peers').childElementCount === 0")
        assert first.complaints == second.complaints == []


_PLAYING = """
new Promise((resolve) => {
    const look = () => {
        const video = document.querySelector('#videos figure:nth-child(2) video');
        const kinds = video.srcObject?.getTracks().map((track) => track.kind).sort().join();
        const plays = kinds === 'audio,video' && video.videoWidth > 0 && video.currentTime > 0;
        plays ? resolve() : setTimeout(look, 50);
    };
    look();
})
"""


@pytest.mark.parametrize("path", ["/", "/book", "/demo/stomp", "/demo/call", "/graphiql", "/docs"])
async def test_a_page_fits_a_narrow_screen(client, path):
    async with chromium() as tab:
        await tab.resize(320)
        await tab.open(_url(client, path))
        root = "document.documentElement"
        assert await tab.run(f"{root}.scrollWidth <= {root}.clientWidth")


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_nothing_keeps_anybody_from_using_the_pages(source, client, scheme):
    axe = (node_modules() / "axe-core" / "axe.min.js").read_text()
    found = "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => "
    found += "[id, nodes.map(({ html }) => html)]))"
    buttons = "document.querySelectorAll('form button').forEach((button) => button.hidden = false)"
    async with chromium() as tab:
        await tab.prefer(prefers_color_scheme=scheme)
        for path in ("/book", "/demo/stomp", "/demo/call"):
            for width in (390, 1440):
                await tab.resize(width)
                await tab.open(_url(client, path))
                await tab.run(f"{buttons}; {axe}; 0")
                assert await tab.run(found) == [], path


@pytest.fixture
async def offline(source):
    """A gateway whose pages find no files of others."""
    async with gateway_of(source.address, assets="http://127.0.0.1:9/npm") as client:
        yield client


async def test_the_page_of_graphiql_answers_queries_without_it(offline):
    async with chromium() as tab:
        await tab.open(_url(offline, "/graphiql"))
        await tab.until("document.querySelector('#graphiql form')")
        await tab.click("#graphiql form button")
        await tab.until("document.querySelector('pre').innerText.includes('\"symbol\": \"AAPL\"')")


async def test_the_page_of_the_api_lists_paths_without_swagger(offline):
    async with chromium() as tab:
        await tab.open(_url(offline, "/docs"))
        await tab.until("document.body.innerText.includes('/api/v2/trades/{symbol}')")
