"""Servers that speak as the live sources do, and misbehave when they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from aiohttp import WSMsgType, web

import mdtool.adapters.live.recording
import mdtool.adapters.live.websocket  # noqa: F401 - imported before a test begins, as its logger is shared
from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.records import open_live
from mdtool.core.batch import Batch
from tests.support.waiting import bounded

AT_NS = 1_796_169_600_123_000_000
"""A time of whole milliseconds, which every source can tell."""


class Server:
    """A server of one source: what its clients said, and what it says to them.

    A subclass says what is peculiar to its source.
    """

    source: ClassVar[str]
    path: ClassVar[str]
    symbols: ClassVar[tuple[str, str]]
    keys: ClassVar[dict[str, str]] = {}
    has_ids: ClassVar[bool] = True
    has_lots: ClassVar[bool] = False
    kinds: ClassVar[frozenset[str]]
    """The fields that say what a message is; one of another kind is skipped."""
    max_symbols = 10

    def __init__(self) -> None:
        self.subscriptions: asyncio.Queue[Client] = asyncio.Queue()
        """A client for each connection, once it has subscribed."""
        self.heard: list[object] = []
        self.is_deaf = False
        self.connections = 0
        self.arrivals: asyncio.Queue[None] = asyncio.Queue()
        """An item for each connection, also of those that are turned away."""
        self.accepts_keys = True
        self.status = 101
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self):
        """Listen within the block."""
        app = web.Application()
        app.router.add_get(self.path, self._serve)
        app.router.add_get("/api/v3/exchangeInfo", self.exchange_info)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        self.url = f"ws://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        self.arrivals.put_nowait(None)
        if self.status != 101:
            return web.Response(status=self.status, headers={"Retry-After": "3600"})
        if not self.lets_in(request):
            return web.Response(status=401)
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        client = Client(socket, request)
        await self.greet(client)
        try:
            while True:
                message = await socket.receive()
                if message.type == WSMsgType.TEXT:
                    said = json.loads(message.data)
                    self.heard.append(said)
                    await self.answer(client, said)
                elif message.type == WSMsgType.PING and not self.is_deaf:
                    await socket.pong(message.data)
                elif message.type == WSMsgType.PONG:
                    client.pongs.put_nowait(message.data)
                elif message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING}:
                    return socket
        except ConnectionError:
            return socket

    def lets_in(self, request: web.Request) -> bool:
        """Return whether the handshake succeeds."""
        return True

    async def exchange_info(self, request: web.Request) -> web.Response:
        """Answer what some source has over HTTP."""
        return web.Response(status=404)

    async def greet(self, client: Client) -> None:
        """Say what the source says first."""

    async def answer(self, client: Client, said: dict) -> None:
        """Answer a message."""
        raise NotImplementedError

    def trade(self, symbol: str, price: str, size: str, ts_ns: int, number: int) -> str:
        """Return the message of a trade whose buyer was the aggressor, if the source tells."""
        raise NotImplementedError

    def busy(self, reason: str = "server busy, try again") -> str:
        """Return an error message of the moment; the reason is text of JSON."""
        raise NotImplementedError

    def joined(self, *trades: str) -> str | None:
        """Return a message of several trades, whatever these are; None where it has one."""
        return None

    def chatter(self) -> list[str]:
        """Return messages that bring nothing."""
        return []


class Client:
    """A connection that has subscribed."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self._request = request

    async def say(self, *texts: str) -> None:
        for text in texts:
            await self.socket.send_str(text)

    def abort(self) -> None:
        """Reset the connection."""
        assert self._request.transport is not None
        self._request.transport.abort()


class Kraken(Server):
    source, path, symbols = "kraken", "/v2", ("BTC/USD", "ETH/USD")
    kinds = frozenset({"channel", "type"})
    has_lots = True

    def __init__(self) -> None:
        super().__init__()
        self.busy_for: list[str] = []
        """Symbols whose subscription is refused for the moment, one after the other."""

    async def answer(self, client, said):
        channel = said["params"]["channel"]
        if channel == "instrument":
            pairs = [
                {"symbol": "BTC/USD", "qty_increment": "STEP", "price_increment": 0.1},
                {"symbol": "ETH/USD", "qty_increment": 0.001, "price_increment": 0.01},
            ]
            text = json.dumps({"channel": channel, "type": "snapshot", "data": {"pairs": pairs}})
            await client.say(text.replace('"STEP"', "0.00001"))
            return
        wanted = said["params"]["symbol"]
        if self.busy_for and self.busy_for[0] in wanted:
            symbol = self.busy_for.pop(0)
            wanted = [each for each in wanted if each != symbol]
            refusal = {"error": "Exceeded msg rate", "symbol": symbol, "success": False}
            await client.say(json.dumps({"method": "subscribe", **refusal}))
            if not wanted:
                return
        for symbol in wanted[: self.max_symbols]:
            result = {"channel": "trade", "snapshot": False, "symbol": symbol}
            await client.say(json.dumps({"method": "subscribe", "result": result, "success": True}))
        for symbol in wanted[self.max_symbols :]:
            refusal = {"error": "Exceeded the number of symbols", "symbol": symbol}
            await client.say(json.dumps({"method": "subscribe", "success": False, **refusal}))
        self.subscriptions.put_nowait(client)

    def busy(self, reason="server busy, try again"):
        return f'{{"method":"subscribe","success":false,"error":"{reason}"}}'

    def trade(self, symbol, price, size, ts_ns, number):
        return (
            f'{{"channel":"trade","type":"update","data":[{{"symbol":"{symbol}","side":"buy",'
            f'"price":{price},"qty":{size},"ord_type":"limit","trade_id":{number},'
            f'"timestamp":"{rfc3339(ts_ns)}"}}]}}'
        )

    def joined(self, *trades):
        return joined_data(trades)

    def chatter(self):
        old = self.trade("BTC/USD", "1", "1", AT_NS, 7).replace("update", "snapshot")
        return ['{"channel":"heartbeat"}', '{"channel":"status","type":"update","data":[{}]}', old]


class Binance(Server):
    source, path, symbols = "binance", "/ws", ("BTCUSDT", "ETHUSDT")
    kinds = frozenset({"e"})
    has_lots = True

    def __init__(self) -> None:
        super().__init__()
        self.instead: list[web.Response] = []
        """What is answered about instruments at first."""

    async def exchange_info(self, request):
        if self.instead:
            return self.instead.pop(0)
        steps = {"BTCUSDT": "0.00001000", "ETHUSDT": "0.00100000"}
        wanted = json.loads(request.query["symbols"])
        if not set(wanted) <= set(steps):
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        symbols = [
            {
                "symbol": symbol,
                "filters": [
                    {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                    {"filterType": "LOT_SIZE", "minQty": "0.00001", "stepSize": steps[symbol]},
                ],
            }
            for symbol in wanted
        ]
        return web.json_response({"timezone": "UTC", "symbols": symbols})

    async def answer(self, client, said):
        if len(said["params"]) > self.max_symbols:
            error = {"code": 3, "msg": "Invalid request: too many streams"}
            await client.say(json.dumps({"error": error, "id": said["id"]}))
            return
        await client.say(json.dumps({"result": None, "id": said["id"]}))
        self.subscriptions.put_nowait(client)

    def busy(self, reason="server busy, try again"):
        return f'{{"error":{{"code":-1008,"msg":"{reason}"}},"id":1}}'

    def trade(self, symbol, price, size, ts_ns, number):
        trade = {"e": "trade", "E": ts_ns // 10**6 + 1, "s": symbol, "t": number, "p": price}
        return json.dumps({**trade, "q": size, "T": ts_ns // 10**6, "m": False, "M": True})


class Finnhub(Server):
    source, path, symbols = "finnhub", "/", ("AAPL", "MSFT")
    kinds = frozenset({"type"})
    keys: ClassVar = {"FINNHUB_API_KEY": "secret-of-finnhub"}
    has_ids = False

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def lets_in(self, request):
        return self.accepts_keys and request.query["token"] == self.keys["FINNHUB_API_KEY"]

    async def answer(self, client, said):
        self._count = self._count + 1 if client.socket.prepared else 0
        if self._count > self.max_symbols:
            await client.say('{"type":"error","msg":"Subscribing to too many symbols"}')
        if said["symbol"] == self.symbols[0]:
            self.subscriptions.put_nowait(client)

    def busy(self, reason="server busy, try again"):
        return f'{{"type":"error","msg":"{reason}"}}'

    def trade(self, symbol, price, size, ts_ns, number):
        return (
            f'{{"type":"trade","data":[{{"s":"{symbol}","p":{price},"t":{ts_ns // 10**6},'
            f'"v":{size},"c":["1"]}}]}}'
        )

    def joined(self, *trades):
        return joined_data(trades)

    def chatter(self):
        return ['{"type":"ping"}', self.trade("AAPL", "1", "0", AT_NS, 0)]


class Alpaca(Server):
    source, path, symbols = "alpaca", "/v2/iex", ("AAPL", "MSFT")
    kinds = frozenset({"T"})
    keys: ClassVar = {"APCA_API_KEY_ID": "id-of-alpaca", "APCA_API_SECRET_KEY": "secret-of-alpaca"}

    async def greet(self, client):
        await client.say('[{"T":"success","msg":"connected"}]')

    async def answer(self, client, said):
        if said["action"] == "auth":
            given = {"APCA_API_KEY_ID": said["key"], "APCA_API_SECRET_KEY": said["secret"]}
            if not self.accepts_keys or given != self.keys:
                await client.say('[{"T":"error","code":402,"msg":"auth failed"}]')
            else:
                await client.say('[{"T":"success","msg":"authenticated"}]')
        elif len(said["trades"]) > self.max_symbols:
            await client.say('[{"T":"error","code":405,"msg":"symbol limit exceeded"}]')
        else:
            await client.say(json.dumps([{"T": "subscription", **said}]))
            self.subscriptions.put_nowait(client)

    def busy(self, reason="server busy, try again"):
        return f'[{{"T":"error","code":500,"msg":"{reason}"}}]'

    def trade(self, symbol, price, size, ts_ns, number):
        return (
            f'[{{"T":"t","S":"{symbol}","i":{number},"x":"V","p":{price},"s":{size},"c":["@"],'
            f'"t":"{rfc3339(ts_ns)}","z":"C"}}]'
        )

    def joined(self, *trades):
        inner = [text[1:-1] if text[0] == "[" else text for text in trades]
        return f"[{','.join(inner)}]"


SERVERS: dict[str, Callable[[], Server]] = {
    kind.source: kind for kind in (Kraken, Binance, Finnhub, Alpaca)
}


def joined_data(trades: Sequence[str]) -> str:
    """Return one message with the trades of several, and others as they are."""
    head, found = "", []
    for text in trades:
        before, mark, data = text.partition('"data":[')
        head = before + mark if mark else head
        found.append(data[:-2] if mark else text)
    return f"{head}{','.join(found)}]}}"


def rfc3339(ts_ns: int) -> str:
    """Return a time as sources write it."""
    second = datetime.fromtimestamp(ts_ns // 10**9, UTC)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{ts_ns % 10**9:09d}Z"


class Reader:
    """A source that is read batch by batch, off the test's loop."""

    def __init__(self, source) -> None:
        self.source = source
        self._batches = iter(source)

    async def next(self) -> Batch | None:
        """Return the next batch, None at the end."""
        async with bounded():
            return await asyncio.to_thread(next, self._batches, None)

    async def of(self, rtype: int) -> Batch:
        """Return the next batch of this rtype; those before it are skipped."""
        while (batch := await self.next()) is not None:
            if batch.rtype == rtype:
                return batch
        raise AssertionError(f"the stream ended without rtype {rtype}")


@contextlib.asynccontextmanager
async def reading(server: Server, *symbols: str, **settings):
    """Read from a server within the block."""
    config = SourceConfig(**{"url": server.url, "max_wait_s": 0.05, **settings})
    source = await asyncio.to_thread(
        open_live, server.source, symbols or server.symbols[:1], config
    )
    try:
        yield Reader(source)
    finally:
        await asyncio.to_thread(source.close)


async def subscribed(server: Server) -> Client:
    """Return the next connection that has subscribed."""
    async with bounded():
        return await server.subscriptions.get()
