"""How the pages' client of `/stream` meets a server that sends garbage, or is gone."""

from __future__ import annotations

import asyncio
from importlib import resources

from aiohttp import WSMsgType, web

from mdtool.services.http.listening import listening
from tests.support.browser import chromium
from tests.support.waiting import bounded

STATIC = resources.files("mdtool.services.gateway.pages") / "static"
GARBAGE = ("", "{", "null", "[]", "7", '"text"', '{"id":99}', '{"id":1,"ok":true}', "x" * 4_000_000)
MALFORMED = 6
"""Of `GARBAGE`, those that are no JSON objects or arrays."""

PAGE = '<!doctype html><base href="/"><link rel="icon" href="data:,"><title>a client</title>'
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


class Server:
    """A server of the pages' files, whose `/stream` the test speaks for."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
        self.requests: asyncio.Queue[dict] = asyncio.Queue()
        self.app = web.Application()
        self.app.router.add_get("/", self._page)
        self.app.router.add_get("/stream", self._stream)
        self.app.router.add_static("/static", str(STATIC))

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.put_nowait(socket)
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            self.requests.put_nowait(message.json())
        return socket


def trade(sequence: str) -> dict:
    return {"id": 1, "channel": "trades", "symbol": "AAPL", "data": {"sequence": sequence}}


async def test_garbage_is_skipped_and_trades_resume_after_each_lost_connection():
    server = Server()
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
        await tab.until("document.title.startsWith('waiting')")
        assert await tab.run("connection.malformed") == 3 * (MALFORMED + 1)
        waits = await tab.run("waits")
        assert len(waits) == 3
        # Each connection brought a message, so that each wait is a first one.
        assert all(900 < wait <= 2_000 for wait in waits)
        assert tab.complaints == []


async def test_waits_grow_to_half_a_minute_and_are_jittered():
    server = Server()
    async with listening(server.app, "127.0.0.1", 0) as address, chromium() as tab, bounded():
        await tab.open(f"http://{address}/")
        # Timers fire at once, so that what is tested is the time that was asked for.
        await tab.run(
            "globalThis.asked = []; const later = setTimeout;"
            "globalThis.setTimeout = (act, delay) => { asked.push(delay);"
            "  return asked.length < 40 ? later(act, 0) : null; };"
            "globalThis.WebSocket = class extends EventTarget { constructor() { super();"
            "  later(() => this.dispatchEvent(new CloseEvent('close')), 0); } };"
        )
        await tab.run(FOLLOW)
        await tab.until("asked.length >= 40")
        waits = await tab.run("asked")
        for attempt, wait in enumerate(waits, start=1):
            assert 1_000 <= wait <= min(30_000, 1_000 * 2**attempt)
        assert max(waits[6:]) > 10_000
        assert len(set(waits)) == len(waits)
