"""The first page in a real browser: what it shows, and what it survives."""

from __future__ import annotations

import contextlib
import json
import signal

import pytest

from tests.reference.market_source import TIME_NS, Bar, MarketSource
from tests.support.aggregators import aggregator, message, tick
from tests.support.browser import chromium
from tests.support.feed_sources import SOURCES, World, world_of
from tests.support.gateways import gateway_of
from tests.support.requirements import node_modules
from tests.support.services import port_for, service
from tests.support.tokens import Keys, required_by_gateways

NOWHERE = "http://127.0.0.1:9/npm"
SIZES = ((390, 844), (1440, 900), (3840, 2160))
RIGHT_TO_LEFT = "RT\u202eL\u200f"
ODD_SYMBOLS = ("<SCRIPT>ALERT(1)</SCRIPT>", "A B C", "X" * 70, RIGHT_TO_LEFT)

ROWS = """[...document.querySelectorAll('.row')]
    .sort((one, other) => one.ariaRowIndex - other.ariaRowIndex)"""
TAPE = "[...document.querySelectorAll('.tape:not(.alerts) tbody tr')]"


def url_of(client, path: str = "/") -> str:
    return f"http://{client.host}:{client.port}{path}"


def row(symbol: str) -> str:
    """An expression for the row of a symbol."""
    return f"document.querySelector('.row[data-symbol={json.dumps(symbol)}]')"


def shows(symbol: str, column: str, text: str) -> str:
    """A condition: the symbol's row is live and has this text."""
    found = row(symbol)
    cell = f"{found}.querySelector('.{column}').textContent"
    return f"{found} && !{found}.classList.contains('stale') && {cell} === {json.dumps(text)}"


@pytest.fixture
async def market():
    async with MarketSource().serving() as source:
        for symbol, price in (("AAPL", 187.25), ("GOOG", 191.5), ("MSFT", 410.5), ("TSLA", 380.0)):
            source.trade(symbol, price, 400)
            for interval in ("1s", "1m"):
                source.bars[symbol, interval] = [Bar(TIME_NS + at * 60 * 10**9) for at in range(9)]
        yield source


async def test_what_is_shown_is_what_the_api_answers():
    async with world_of(SOURCES["vwap"], assets=str(node_modules())) as world, chromium() as tab:
        for prices in ({"AAPL": 20_000, "MSFT": 41_050}, {"AAPL": 20_100, "MSFT": 41_000}):
            await world.trade(prices)
        await tab.resize(1800, 900)
        await tab.open(url_of(world.client))
        await tab.until(shows("AAPL", "last", "201"))
        await world.trade({"AAPL": 20_125})
        await tab.until(shows("AAPL", "last", "201.25"))
        await tab.until(f"{row('AAPL')}.querySelector('.vwap').textContent !== '—'")
        _, session = await world.client.answer("/api/v2/aggregates/AAPL")
        _, vwap = await world.client.answer("/api/v2/vwap/AAPL")
        session, vwap = session["data"], vwap["data"]
        change = float(session["close"]) / float(session["open"]) - 1
        distance = float(session["close"]) / float(vwap["vwap"]) - 1
        expected = {
            "last": session["close"],
            "volume": session["volume"],
            "change": f"+{change:.2%}".replace("%", " %"),
            "vwap": f"{float(vwap['vwap']):.3f}",
            "distance": f"+{distance:.2%}".replace("%", " %"),
        }
        for column, text in expected.items():
            await tab.until(shows("AAPL", column, text))
        await tab.until(shows("MSFT", "change", "\u22120.12 %"))
        for column in ("last", "volume", "change", "vwap"):
            await tab.until(
                f"document.querySelector('[data-value={column}]').textContent"
                f" === {json.dumps(expected[column])}"
            )
        # Every trade is on the tape, the newest first.
        _, trades = await world.client.answer("/api/v2/trades/AAPL?order=asc")
        newest_first = [each["sequence"] for each in trades["data"]][::-1]
        sequences = f"{TAPE}.map((row) => row.dataset.sequence).join()"
        await tab.until(f"{sequences} === '{','.join(map(str, newest_first))}'")
        await tab.until("document.querySelector('.chart canvas')")
        # The VWAP service was started, the quotes' source and the store were not.
        await tab.until("document.querySelector('#service-vwap')?.dataset.state === 'ready'")
        names = "[...document.querySelectorAll('.service dt')].map((name) => name.textContent)"
        assert await tab.run(names) == ["gateway", "aggregator", "vwap"]
        # Nor is there a book, until there is one.
        assert await tab.run("document.querySelector('.view .book').hidden")
        await world.quote({"AAPL": 20_120})
        level = "document.querySelector('.view .ladder tbody tr')"
        await tab.until(f"{level}?.cells[2].textContent === '201.2'")
        # It has buyers alone.
        depth = (
            "[...document.querySelectorAll('.depth path')].map((path) => path.getAttribute('d'))"
        )
        await tab.until(f"{depth}.map((path) => path.slice(0, 1)).join() === 'M,'")
        assert tab.complaints == []


async def test_volumes_are_shown_times_the_lot(market):
    market.lots = {"BTC/USD": 10_000, "WHEAT": 5_000 * 10**9, "AAPL": 10**9}
    market.trade("BTC/USD", 60_000.0, 123_456_789_012_345_678)
    market.trade("WHEAT", 5.5, 3)
    async with gateway_of(market.address, assets=str(node_modules())) as client, chromium() as tab:
        await tab.resize(1800, 900)
        await tab.open(url_of(client, "/?symbol=BTC%2FUSD"))
        await tab.until(shows("BTC/USD", "volume", "1,234,567,890,123.45678"))
        await tab.until(shows("WHEAT", "volume", "15,000"))
        await tab.until(shows("AAPL", "volume", "400"))
        shown = "document.querySelector('[data-value=volume]').textContent"
        await tab.until(f"{shown} === '1,234,567,890,123.45678'")


async def test_a_gateway_is_killed_and_restarted_without_a_reload(tmp_path):
    store = f"sqlite:///{tmp_path}/trades.db"
    async with aggregator(store=store) as running, chromium() as tab:

        async def trade(sequence: int, cents: int) -> None:
            await running.send(message(sequence, [tick(cents)], ["AAPL"]))

        await trade(0, 20_000)
        port = port_for(tab)
        command = ("gateway", "--port", port, "--aggregator", running.address, "--store", store)
        with service(*command, "--assets", node_modules()) as gateway:
            await tab.resize(1440, 900)
            await tab.open(f"http://127.0.0.1:{port}/")
            await tab.until(f"{shows('AAPL', 'last', '200')} && {TAPE}.length === 1")
            await tab.run("globalThis.isSamePage = true")
            gateway.end(signal.SIGKILL)
        await tab.until(f"{row('AAPL')}.classList.contains('stale')")
        await tab.until("document.querySelector('#notice').innerText.includes('lost')")
        await tab.until("document.querySelector('.since').innerText.startsWith('stale')")
        await trade(1, 20_100)
        with service(*command, "--assets", node_modules()):
            await tab.until(shows("AAPL", "last", "201"))
            await trade(2, 20_200)
            await tab.until(shows("AAPL", "last", "202"))
            # The newest may come before the one it missed.
            prices = f"{TAPE}.map((row) => row.cells[1]?.textContent).join()"
            await tab.until(f"{prices} === '202,201,200'")
            await tab.until("document.querySelector('#notice').hidden")
            assert await tab.run("globalThis.isSamePage")


async def test_a_tab_that_slept_shows_what_is_and_what_was():
    async with world_of(SOURCES["trades"], assets=NOWHERE) as world, chromium() as tab:
        await world.trade({"AAPL": 20_000})
        await tab.resize(1440, 900)
        await tab.open(url_of(world.client, "/?symbol=AAPL"))
        await tab.until(f"{shows('AAPL', 'last', '200')} && {TAPE}.length === 1")
        await tab.send("Page.setWebLifecycleState", state="frozen")
        for cents in range(20_052, 20_102):
            await world.trade({"AAPL": cents})
        await tab.send("Page.setWebLifecycleState", state="active")
        await tab.send("Emulation.setFocusEmulationEnabled", enabled=True)  # it is looked at again
        await tab.until(shows("AAPL", "last", "201.01"))
        await tab.until(f"{TAPE}[0]?.cells[1].textContent === '201.01'")
        # The newest may come before those it missed.
        await tab.until(f"{TAPE}.length === 51 && document.querySelector('.tape .gap') === null")


async def test_all_bars_since_a_lost_connection_are_read(market):
    pages = (
        "performance.getEntriesByType('resource')"
        ".filter(({ name }) => /bars.AAPL.interval=1m/.test(name))"
    )
    older_pages = f"{pages}.filter(({{ name }}) => name.includes('cursor=')).length"
    async with chromium() as tab:
        settings = {"assets": str(node_modules()), "port": port_for(tab)}
        async with gateway_of(market.address, **settings) as client:
            await tab.resize(1440, 900)
            await tab.open(url_of(client, "/?symbol=AAPL"))
            await tab.until(
                f"{shows('AAPL', 'last', '187.25')} && document.querySelector('.chart canvas')"
            )
            assert await tab.run(older_pages) == 0
        await tab.until(f"{row('AAPL')}.classList.contains('stale')")
        # The newest 500, 500 older ones, and those down to the bars that the page has; a connection
        # that is lost once more reads some again.
        market.bars["AAPL", "1m"] += [Bar(TIME_NS + at * 60 * 10**9) for at in range(9, 1_200)]
        async with gateway_of(market.address, **settings):
            await tab.until(f"{older_pages} >= 2 && {shows('AAPL', 'last', '187.25')}")


async def test_older_bars_are_read_as_one_scrolls_back(market):
    market.bars["AAPL", "1m"] = [Bar(TIME_NS + at * 60 * 10**9) for at in range(1_200)]
    older = (
        "performance.getEntriesByType('resource')"
        ".filter(({ name }) => /bars.AAPL.interval=1m.*&to=/.test(name)).length"
    )
    settings = {"assets": str(node_modules())}
    async with gateway_of(market.address, **settings) as client, chromium() as tab:
        await tab.resize(1440, 900)
        await tab.open(url_of(client, "/?symbol=AAPL"))
        await tab.until("document.querySelector('.chart canvas')")
        chart = "document.querySelector('.chart').getBoundingClientRect()"
        x, y = await tab.run(f"[{chart}.x + {chart}.width / 2, {chart}.y + {chart}.height / 2]")
        while await tab.run(older) < 2:
            wheel = {"type": "mouseWheel", "x": x, "y": y, "deltaX": -2_000, "deltaY": 0}
            await tab.send("Input.dispatchMouseEvent", **wheel)
        # Pages are of 500 bars, each before the one that was read last.
        bars = market.bars["AAPL", "1m"]
        asked = [request.before // 10**6 for request in market.asked if request.before]
        assert asked[:2] == [bars[700].start // 10**6, bars[200].start // 10**6]


async def test_the_keyboard_alone_is_enough(market):
    async with gateway_of(market.address, assets=NOWHERE) as client, chromium() as tab:
        await tab.resize(1440, 900)
        await tab.open(url_of(client))
        await tab.until(f"{ROWS}.length === 4")
        await tab.press("ArrowDown", "ArrowDown")
        await tab.until("document.querySelector('#symbol').innerText === 'MSFT'")
        await tab.press("w", "/", "g", "o")
        await tab.until(f"{ROWS}.length === 1 && {ROWS}[0].dataset.symbol === 'GOOG'")
        await tab.press("Escape", "ArrowDown", "Enter")
        await tab.until("document.querySelector('#symbol').innerText === 'GOOG'")
        await tab.until("location.search === '?symbol=GOOG&search=go'")
        await tab.press("?")
        await tab.until("document.querySelector('#help').open")
        await tab.press("Escape")
        await tab.until("!document.querySelector('#help').open")
        # A link shows the same, a star is the browser's.
        await tab.open(url_of(client, "/?symbol=TSLA&interval=1s&sort=-last&list=starred"))
        await tab.until(f"{ROWS}.map((row) => row.dataset.symbol).join() === 'MSFT'")
        assert await tab.text("#symbol") == "TSLA"
        assert await tab.run("document.querySelector('#interval').value") == "1s"
        async with tab.leaving():
            await tab.press("b")
        await tab.until("document.querySelector('#receiver')")
        assert await tab.run("location.pathname + location.search") == "/book?symbol=TSLA"


async def test_the_table_is_sorted_by_what_its_headings_say(market):
    market.trade("AAPL", 200.0, 1)
    market.trade("TSLA", 370.0, 1)
    async with gateway_of(market.address, assets=NOWHERE) as client, chromium() as tab:
        await tab.resize(1440, 900)
        await tab.open(url_of(client, "/?sort=-change"))
        names = f"{ROWS}.map((row) => row.dataset.symbol).join()"
        await tab.until(f"{names} === 'AAPL,GOOG,MSFT,TSLA'")
        await tab.click("[data-column=last] button")
        await tab.until(f"{names} === 'MSFT,TSLA,AAPL,GOOG'")
        sort = "document.querySelector('[data-column=last]').ariaSort"
        await tab.until(f"{sort} === 'descending'")
        market.trade("GOOG", 500.0, 1)
        await tab.until(f"{names} === 'GOOG,MSFT,TSLA,AAPL'")


async def test_odd_symbols_are_shown_as_they_are():
    async with MarketSource().serving() as source:
        for symbol in ODD_SYMBOLS:
            source.trade(symbol, 1.5, 1)
        async with gateway_of(source.address, assets=NOWHERE) as client, chromium() as tab:
            await tab.resize(1440, 900)
            await tab.open(url_of(client))
            await tab.until(f"{ROWS}.length === {len(ODD_SYMBOLS)}")
            shown = await tab.run(f"{ROWS}.map((row) => row.children[1].textContent)")
            assert shown == sorted(ODD_SYMBOLS)
            assert not await tab.run("document.querySelector('main script')")
            # The API follows no symbol that ticks cannot have; it is grey.
            for symbol in ODD_SYMBOLS[:-1]:
                await tab.until(shows(symbol, "last", "1.5"))
            assert await tab.run(f"{ROWS}.filter((row) => row.matches('.stale')).length") == 1
            await tab.click(".row .symbol")
            await tab.until(f"document.querySelector('h2').innerText === {json.dumps(shown[0])}")
            query = "new URLSearchParams(location.search).get('symbol')"
            await tab.until(f"{query} === {json.dumps(shown[0])}")
            root = "document.documentElement"
            assert await tab.run(f"{root}.scrollWidth <= {root}.clientWidth")


async def test_of_thousands_of_symbols_only_the_visible_ones_exist_and_are_followed():
    async with MarketSource().serving() as source:
        symbols = [f"S{number:04}" for number in range(10_000)]
        for symbol in symbols:
            source.trade(symbol, 1.5, 1)
        async with gateway_of(source.address, assets=NOWHERE) as client, chromium() as tab:
            await tab.resize(1440, 900)
            await tab.open(url_of(client))
            await tab.until(shows(symbols[0], "last", "1.5"))
            grid = "document.querySelector('#watchlist')"
            await tab.until(f"{grid}.ariaRowCount === '{len(symbols) + 1}'")
            assert await tab.run(f"{ROWS}.length") < 60
            await tab.run(f"{grid}.scrollTop = {grid}.scrollHeight")
            await tab.until(shows(symbols[-1], "last", "1.5"))
            source.trade(symbols[-1], 2.5, 1)
            await tab.until(shows(symbols[-1], "last", "2.5"))
            assert await tab.run(f"{ROWS}.length") < 60


@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_nothing_moves_while_the_page_fills(market, width, height):
    settings = {"assets": str(node_modules())}
    async with gateway_of(market.address, **settings) as client, chromium() as tab:
        await tab.send(
            "Page.addScriptToEvaluateOnNewDocument",
            source="globalThis.moved = 0; new PerformanceObserver((list) => {"
            "  list.getEntries().forEach(({ value }) => { globalThis.moved += value; });"
            "}).observe({ type: 'layout-shift', buffered: true })",
        )
        await tab.resize(width, height)
        await tab.open(url_of(client, "/?symbol=AAPL"))
        await tab.until("document.querySelector('.chart canvas')")
        await tab.until("document.querySelector('#service-aggregator')")
        await tab.until("document.querySelector('[data-value=last]').textContent === '187.25'")
        drawn = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
        await tab.run(f"{drawn}.then(() => 0)")
        assert await tab.run("globalThis.moved") < 0.01


async def test_without_its_library_only_the_chart_is_absent(market):
    async with gateway_of(market.address, assets=NOWHERE) as client, chromium() as tab:
        await tab.resize(1440, 900)
        await tab.open(url_of(client))
        await tab.until("!document.querySelector('.chart-message').hidden")
        assert "127.0.0.1:9 cannot be reached" in await tab.text(".chart-message")
        market.trade("AAPL", 188.5, 1)
        await tab.until(shows("AAPL", "last", "188.50"))


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_nothing_keeps_anybody_from_using_it(market, scheme):
    axe = (node_modules() / "axe-core" / "axe.min.js").read_text()
    settings = {"assets": str(node_modules())}
    async with gateway_of(market.address, **settings) as client, chromium() as tab:
        await tab.prefer(prefers_color_scheme=scheme)
        for width, height in SIZES:
            await tab.resize(width, height)
            await tab.open(url_of(client, "/?symbol=AAPL"))
            await tab.until("document.querySelector('.chart canvas')")
            await tab.run(f"{axe}; 0")
            for leave in ("0", "document.querySelector('#back').click()"):
                await tab.run(leave)
                found = "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => "
                assert await tab.run(found + "[id, nodes.map(({ html }) => html)]))") == []
        assert tab.complaints == []


async def test_a_client_signs_in_where_the_gateway_requires_a_token(market, tmp_path, monkeypatch):
    keys = Keys(tmp_path)
    required_by_gateways(monkeypatch, keys.security)
    async with gateway_of(market.address, assets=NOWHERE) as client, chromium() as tab:
        await tab.resize(1440, 900)
        await tab.open(url_of(client))
        for token, is_valid in (("wrong", False), (keys["some"], True)):
            await tab.until("document.querySelector('#sign-in').open")
            assert await tab.run(f"{ROWS}.length") == 0
            await tab.press(*token, "Enter")
            await tab.until(
                "!document.querySelector('#sign-in').open"
                if is_valid
                else "!document.querySelector('#token-problem').hidden"
            )
        # What the principal may not read is absent.
        await tab.until(shows("AAPL", "last", "187.25"))
        assert await tab.run(f"{ROWS}.map((row) => row.dataset.symbol)") == ["AAPL"]
        market.trade("AAPL", 188.5, 1)
        await tab.until(shows("AAPL", "last", "188.50"))
        # The token was in memory only.
        await tab.open(url_of(client, "/?symbol=AAPL"))
        await tab.until("document.querySelector('#sign-in').open")


async def test_prices_are_grey_while_the_aggregator_is_unavailable():
    source = MarketSource()
    source.trade("AAPL", 187.25, 400)
    async with contextlib.AsyncExitStack() as stack:
        tab = await stack.enter_async_context(chromium())
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address, assets=NOWHERE))
            await tab.resize(1440, 900)
            await tab.open(url_of(client))
            await tab.until(shows("AAPL", "last", "187.25"))
        await tab.until(f"{ROWS}.every((row) => row.matches('.stale'))")
        state = "document.querySelector('#service-aggregator')?.dataset.state"
        await tab.until(f"{state} === 'unavailable'")


async def test_alerts_are_listed_and_marked_on_the_chart():
    row_of = "document.querySelector('.alerts tbody tr[data-id^=\"band:{}\"]')"
    first = row_of.format("AAPL")
    async with (
        world_of(SOURCES["alerts"], assets=str(node_modules())) as world,
        chromium() as tab,
    ):
        await World.alert(world, {"AAPL": 101})
        await tab.resize(1440, 900)
        await tab.open(url_of(world.client, "/?symbol=AAPL"))
        await tab.until(f"{first}?.innerText.includes('open')")
        await tab.until("document.querySelector('.chart').dataset.marks === '1'")
        assert await tab.run("document.querySelector('.alerts .note').hidden")
        # It has ended with the next trade, which is another one.
        await World.alert(world, {"AAPL": 102, "MSFT": 555})
        await tab.until("document.querySelectorAll('.alerts tbody tr').length === 3")
        await tab.until("document.querySelector('.chart').dataset.marks === '2'")
        _, answer = await world.client.answer("/api/v2/alerts/AAPL")
        shown = "[...document.querySelectorAll('.alerts [data-symbol=AAPL]')]"
        ids = f"{shown}.map((button) => button.closest('tr').dataset.id)"
        assert await tab.run(ids) == [alert["id"] for alert in answer["data"]]
        await tab.click(".alerts [data-symbol=MSFT]")
        await tab.until("document.querySelector('#symbol').innerText === 'MSFT'")
        await tab.until("location.search === '?symbol=MSFT'")
        assert tab.complaints == []
