"""How pages meet a server that sends garbage, is gone, or says how its services are."""

from __future__ import annotations

import json

import pytest

from mdtool.services.http.listening import listening
from tests.support.browser import chromium
from tests.support.page_server import PageServer, dashboard, page_of
from tests.support.waiting import bounded

TIME = "2024-12-26T12:00:00.000000000Z"
GARBAGE = ("", "{", "null", "[]", "7", '"text"', '{"id":99}', '{"id":1,"ok":true}', "x" * 4_000_000)
MALFORMED = 7
"""Of `GARBAGE`, those that are no JSON objects."""

FOLLOW = """import('/static/connection.js').then(({ Connection }) => {
    const connection = globalThis.connection = new Connection('stream');
    globalThis.waits = [];
    connection.addEventListener('change', () => {
        if (connection.state === 'waiting') {
            waits.push(connection.retryAt - Date.now());
        }
        document.title = `${connection.state} ${connection.generation}`;
    });
    connection.subscribe({ channel: 'trades', symbols: ['AAPL'] }, ({ data }) => {
        document.body.append(`${data.sequence} `);
    });
})"""


def trade(sequence: str) -> dict:
    data = {"symbol": "AAPL", "sequence": sequence, "timestamp": TIME, "price": "1.5", "size": "3"}
    return {"id": 1, "channel": "trades", "symbol": "AAPL", "data": data}


async def test_garbage_is_skipped_and_trades_resume_after_each_lost_connection():
    server = PageServer()
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.open(f"http://{address}/")
        await tab.run(FOLLOW)
        request = {"op": "subscribe", "id": 1, "channel": "trades", "symbols": ["AAPL"]}
        after = {}
        for generation in range(1, 4):
            socket = await server.sockets.get()
            assert await server.requests.get() == request | after
            for text in GARBAGE:
                await socket.send_str(text)
            await socket.send_bytes(b"\0")
            await socket.send_json(trade(f"s:{generation}"))
            await tab.until(f"document.body.textContent.includes('s:{generation}')")
            after = {"after": f"s:{generation}"}
            socket._req.transport.abort()
        await tab.until("waits.length === 3")
        assert await tab.run("connection.malformed") == 3 * (MALFORMED + 1)
        # Each connection brought a message, so that each wait is a first one.
        assert all(wait <= 2_000 for wait in await tab.run("waits"))
        assert tab.complaints == []


FOLLOW_STOMP = "import('/static/stomp.js').then(({ Stomp }) => new Stomp().open())"


@pytest.mark.parametrize("follow", [FOLLOW, FOLLOW_STOMP], ids=["stream", "stomp"])
async def test_waits_grow_to_half_a_minute_and_are_jittered(follow):
    server = PageServer()
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.open(f"http://{address}/")
        # Timers fire at once, so that what is tested is the time that was asked for.
        await tab.run(
            "globalThis.asked = []; const later = setTimeout;"
            "globalThis.setTimeout = (act, delay) => { asked.push(delay);"
            "  return asked.length < 40 ? later(act, 0) : null; };"
            "globalThis.WebSocket = class extends EventTarget { constructor() { super();"
            "  later(() => { const event = new CloseEvent('close'); this.dispatchEvent(event);"
            "    this.onclose?.(event); }, 0); } };"
        )
        await tab.run(follow)
        await tab.until("asked.length >= 40")
        waits = await tab.run("asked")
        for attempt, wait in enumerate(waits, start=1):
            assert 1_000 <= wait <= min(30_000, 1_000 * 2**attempt)
        assert max(waits[6:]) > 10_000
        assert len(set(waits)) == len(waits)


def session(symbol: str, close: str, **other: object) -> dict:
    prices = dict.fromkeys(("open", "high", "low"), "187.25")
    row = {"symbol": symbol, **prices, "close": close, "volume": "400", "trades": "1"}
    return row | {"timestamp": TIME} | other


def page_of_rows(*rows: object) -> dict:
    return {"data": rows, "next": None}


WRONG_ROWS = (
    None,
    7,
    [],
    {"symbol": "WRONG"},
    session("WRONG", 187.25),
    session("WRONG", "187.25", timestamp="2024-99-99T00:00:00Z"),
    session("WRONG", "187.25", volume="1e9"),
    session("W" * 71, "187.25"),
)


def last(symbol: str) -> str:
    """An expression for the last price that the dashboard shows."""
    return f"document.querySelector('.row[data-symbol={symbol}] .last')?.textContent"


async def test_the_dashboard_goes_on_whatever_a_server_sends():
    server = PageServer(dashboard())
    later = session("LATER", "1.5", timestamp="2099-01-01T00:00:00Z")
    server.tell("api/v2/aggregates", page_of_rows(session("AAPL", "187.25"), later, *WRONG_ROWS))
    server.answers |= {"api/v2/quotes": "{", "health": "[", "api/v2/alerts/AAPL": "null"}
    server.tell("api/v2/symbols", {"data": {"symbol": "AAPL"}, "next": "again"})
    server.tell("api/v2/bars/AAPL", page_of_rows({"start": TIME, "close": {}}))
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.resize(1440, 900)
        await tab.open(f"http://{address}/")
        socket = await server.sockets.get()
        number = await server.subscription("aggregates")
        for row in WRONG_ROWS:
            await socket.send_json({"id": number, "channel": "aggregates", "data": row})
        whole = {"id": number, "symbol": "AAPL", "data": session("AAPL", "1")}
        for wrong in (
            whole | {"channel": "nonsense"},
            whole | {"channel": "__proto__"},
            whole | {"channel": "aggregates", "missed": "many"},
            whole | {"channel": "aggregates", "error": None},
            whole | {"channel": "aggregates", "rest": "x" * 4_000_000},
        ):
            await socket.send_json(wrong)
        update = {"channel": "aggregates", "data": session("AAPL", "188.5", trades="2")}
        await socket.send_str(json.dumps({"id": number, "symbol": None, **update}))
        await tab.until(f"{last('AAPL')} === '188.50'")
        assert await tab.run("document.querySelectorAll('.row').length") == 2
        # By a clock that is ahead nothing is old, nor drawn before it was traded.
        age = "document.querySelector('.row[data-symbol=LATER] .age').textContent"
        assert await tab.run(age) in {"< 1 s", *(f"{seconds} s" for seconds in range(1, 60))}
        await tab.until("document.querySelector('#rate').textContent.includes('updates/s')")
        server.tell("health", {"aggregator": {"connected": True}, "ticks": "many"})
        await tab.until("document.querySelector('#service-aggregator')?.dataset.state === 'ready'")
        assert "to screen" not in await tab.text("#rate")
        assert tab.complaints == []


async def test_trades_that_were_missed_are_marked_on_the_tape_also_after_a_long_sleep():
    server = PageServer(dashboard())
    server.tell("api/v2/aggregates", page_of_rows(session("AAPL", "187.25")))
    tape = "[...document.querySelectorAll('.tape:not(.alerts) tbody tr')]"
    texts = f"{tape}.map((row) => row.className === 'gap' ? row.innerText : row.dataset.sequence)"
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.resize(1440, 900)
        await tab.open(f"http://{address}/?symbol=AAPL")
        socket = await server.sockets.get()
        number = await server.subscription("trades")
        missed = {"id": number, "channel": "trades", "symbol": "AAPL"}
        for message in (trade("s:1"), missed | {"missed": 1_200}, trade("s:1202")):
            await socket.send_json(message | {"id": number})
        await tab.until(f"{texts}.join() === 's:1202,1,200 trades missed,s:1'")
        # The tab sleeps until its connection is lost, and what it missed is no history any more.
        await tab.send("Page.setWebLifecycleState", state="frozen")
        socket._req.transport.abort()
        await tab.send("Page.setWebLifecycleState", state="active")
        await tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        socket = await server.sockets.get()
        while (request := await server.requests.get()).get("channel") != "trades":
            pass
        assert request["after"] == "s:1202"
        for message in (missed | {"missed": None}, trade("s:90000")):
            await socket.send_json(message | {"id": request["id"]})
        await tab.until(f"{texts}.slice(0, 3).join() === 's:90000,some trades missed,s:1202'")


async def test_the_services_that_were_started_are_shown_with_what_they_do():
    here = {"address": "127.0.0.1:1", "connected": True, "message": None}
    gone = here | {"connected": False, "message": "refused"}
    health = {
        "status": "ok",
        "aggregator": here,
        "quotes": {"source": None},
        "vwap": gone,
        "store": here,
        "sender": gone,
        "receiver": here,
        "ticks": 1_000,
        "sent": 5_000,
    }
    server = PageServer(dashboard())
    server.tell("health", health)
    states = (
        "[...document.querySelectorAll('.service')]"
        ".map((part) => `${part.innerText.replace(/\\s+/, ' ')}`).join()"
    )
    rate = "document.querySelector('#rate').textContent"
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.resize(1440, 900)
        await tab.open(f"http://{address}/")
        await tab.until(f"{states} === 'gateway ready,aggregator ready,store ready,receiver ready'")
        health |= {"status": "blocked", "store": gone}

        def counting() -> str:
            health["ticks"] += 3_000_000
            health["sent"] += 9_000_000
            return json.dumps(health)

        server.answers["health"] = counting
        await tab.until(
            f"{states} === 'gateway ready,aggregator blocked,store unavailable,receiver ready'"
        )
        await tab.until(f"/^[1-9][\\d,]* in.s · [1-9][\\d,]* out.s$/.test({rate})")
        # Another process counts from 0 on.
        server.tell("health", health | {"status": "ok", "ticks": 0, "sent": 0})
        await tab.until(f"{states}.includes('aggregator ready') && /^0 in.s/.test({rate})")
        (await server.sockets.get())._req.transport.abort()
        await tab.until(f"{states} === 'gateway reconnecting' && {rate} === ''")


@pytest.mark.parametrize("width", [390, 700, 1024, 1440])
async def test_nothing_moves_whatever_arrives_late(width):
    server = PageServer(dashboard())
    gone = {"address": "127.0.0.1:1", "connected": True, "message": None}
    names = ("aggregator", "vwap", "store", "sender", "receiver")
    level = {"price": "60000.25", "size": "12345", "orders": 3}
    book = {"symbol": "AAPL", "timestamp": TIME, "bids": [level] * 10, "asks": [level] * 10}
    alert = dict.fromkeys(("value", "baseline", "score", "limit"), "1")
    alert |= {"symbol": "AAPL", "id": "a:1", "kind": "off-quote", "severity": "high"}
    alert |= {"begin": TIME, "end": None}
    quote = {"symbol": "AAPL", "bid": "60000.25", "ask": "60000.5", "last": None, "timestamp": TIME}
    late = (
        ("quotes", quote, "document.querySelector('[data-value=ask]').textContent === '60000.50'"),
        ("trades", trade("s:1")["data"], "document.querySelector('.tape [data-sequence]')"),
        ("books", book, "document.querySelectorAll('.ladder tbody tr').length === 10"),
        ("alerts", alert, "document.querySelector('.alerts tbody tr')"),
    )
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.send(
            "Page.addScriptToEvaluateOnNewDocument",
            source="globalThis.moved = []; new PerformanceObserver((list) => {"
            "  list.getEntries().forEach(({ value, sources }) => { globalThis.moved.push("
            "    [value, ...sources.map(({ node }) => node?.id || node?.className)]); });"
            "}).observe({ type: 'layout-shift', buffered: true })",
        )
        await tab.resize(width, 800)
        await tab.open(f"http://{address}/?symbol=AAPL")
        socket = await server.sockets.get()
        await tab.until("document.querySelector('#notice').textContent.startsWith('Waiting')")
        numbers = {}
        server.tell("api/v2/aggregates", page_of_rows(session("AAPL", "60000.25")))
        await tab.until("document.querySelector('[data-value=last]').textContent === '60000.25'")
        while len(numbers) < len(late):
            request = await server.requests.get()
            if request.get("channel") in {channel for channel, *_ in late}:
                numbers[request["channel"]] = request["id"]
        server.tell(
            "health",
            dict.fromkeys(names, gone)
            | {"status": "ok", "quotes": {"source": gone}, "ticks": None},
        )
        await tab.until("document.querySelectorAll('.service').length === 7")
        for channel, data, condition in late:
            await socket.send_json({"id": numbers[channel], "channel": channel, "data": data})
            await tab.until(condition)
        await tab.run("new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
        moved = await tab.run("globalThis.moved")
        assert sum(value for value, *_ in moved) < 0.01, moved


async def test_the_age_of_updates_is_not_shown_to_whom_may_not_read_it():
    server = PageServer(page_of("demo-stomp.html"))
    server.tell("health", {"status": "ok", "age_ms": 412.75})
    text = "document.querySelector('#age dd').textContent"
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.open(f"http://{address}/")
        await tab.until(f"{text} === '413 ms old'")
        server.statuses["health"] = 403
        await tab.until(f"{text} === 'not shown'")
        assert await tab.run("document.querySelector('#age').dataset.state") == "unknown"
