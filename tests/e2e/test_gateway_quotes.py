"""Quotes through a gateway: REST and WebSockets, out of trades, MBP-1 and order books."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import numpy as np
import pytest
from aiohttp import WSServerHandshakeError

from mdtool.adapters.quotes.redis import RedisQuoteHub
from mdtool.core.dtypes import F_LAST, MBO, MBP1, record_length
from mdtool.core.errors import ConfigError
from mdtool.core.units import UNDEF_PRICE
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds import quotes
from mdtool.services.gateway.parameters import MAX_SYMBOLS
from mdtool.services.gateway.server import Gateway
from mdtool.wire.dbn import encode_records
from mdtool.wire.dbn_session import Begin, End, Refused, encode_begin, encode_end, encode_refused
from mdtool.wire.quotes import Quote
from tests.reference.dbn_streams import START, header
from tests.reference.market_source import TIME_NS, MarketSource
from tests.support.book_services import sender_of
from tests.support.gateways import connected, gateway_of
from tests.support.redis_servers import redis_server
from tests.support.stomp_peers import stomp
from tests.support.waiting import bounded

TIME_MS = TIME_NS // 10**6


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        source.trade("MSFT", 415.5, 10)
        yield source


def of_trade(symbol: str, last: float, **more) -> dict:
    return {"symbol": symbol, "bid": None, "ask": None, "last": last, "ts": TIME_MS, **more}


async def told(socket, **wanted) -> dict:
    """The first message that says so."""
    while True:
        message = await socket.receive_json()
        if wanted.items() <= message.items() and "error" not in message:
            return message


async def test_quotes_of_trades_have_a_last_price_and_no_other(client):
    assert await client.answer("/v1/quotes?symbol=AAPL") == (200, of_trade("AAPL", 187.25))
    assert await client.answer("/v1/quotes?symbol=%20aapl") == (200, of_trade("AAPL", 187.25))
    all_of_them = [of_trade("AAPL", 187.25), of_trade("MSFT", 415.5)]
    for path in ("/v1/quotes", "/v1/quotes?symbol="):
        assert await client.answer(path) == (200, all_of_them)
    async with client.get("/v1/quotes") as response:
        assert "Warning" not in response.headers


@pytest.mark.parametrize(
    "query", ["symbols=MSFT,none,AAPL", "symbol=msft,AAPL", "symbol=AAPL&symbol=MSFT&symbols="]
)
async def test_quotes_of_several_symbols_are_an_array_of_those_that_are_known(client, query):
    expected = [of_trade("AAPL", 187.25), of_trade("MSFT", 415.5)]
    assert await client.answer(f"/v1/quotes?{query}") == (200, expected)
    assert await client.answer("/v1/quotes?symbols=AAPL") == (200, expected[:1])


async def test_an_unknown_symbol_is_404(client):
    status, answer = await client.answer("/v1/quotes?symbol=NEW")
    assert (status, answer["error"]) == (404, "not_found")


@pytest.mark.parametrize("query", ["", "?symbols="])
async def test_a_socket_without_symbols_has_every_quote(client, query):
    async with client.ws_connect(f"/ws{query}") as socket:
        first = [await socket.receive_json() for _ in range(2)]
        assert first == [of_trade("AAPL", 187.25), of_trade("MSFT", 415.5)]


@pytest.mark.parametrize("symbol", ["%20", "%00", "%C3%A9", "%FF", "A" * 71, "A" * 1_000])
async def test_a_bad_symbol_is_400(client, symbol):
    status, answer = await client.answer(f"/v1/quotes?symbol={symbol}")
    assert (status, answer["error"]) == (400, "bad_parameter")
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect(f"/ws?symbols=AAPL,{symbol}")
    assert error.value.status == 400


async def test_too_many_symbols_are_400(client):
    symbols = ",".join(f"S{number}" for number in range(MAX_SYMBOLS + 1))
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect(f"/ws?symbols={symbols}")
    assert error.value.status == 400


async def test_where_nothing_can_be_known_it_is_503():
    async with gateway_of("127.0.0.1:1") as client:
        for path in ("/v1/quotes", "/v1/quotes?symbol=AAPL"):
            status, answer = await client.answer(path)
            assert (status, answer["error"]) == (503, "unavailable")


async def test_quotes_are_marked_stale_once_nobody_stands_for_them_and_fresh_again():
    source = MarketSource()
    source.trade("AAPL", 187.25, 400)
    async with contextlib.AsyncExitStack() as stack:
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address))
            await connected(client)
            socket = await stack.enter_async_context(client.ws_connect("/ws"))
            assert await socket.receive_json() == of_trade("AAPL", 187.25)
        stale = of_trade("AAPL", 187.25, stale=True)
        assert await socket.receive_json() == stale
        assert await client.answer("/v1/quotes?symbol=AAPL") == (200, stale)
        async with client.get("/v1/quotes") as response:
            assert response.headers["Warning"].startswith("110 ")
        _, health = await client.answer("/health")
        assert health["quotes"]["stale"] == 1
        async with source.serving():
            assert await socket.receive_json() == of_trade("AAPL", 187.25)


async def test_a_socket_has_the_quotes_of_its_symbols(source, client):
    async with client.ws_connect("/ws?symbols=msft,NEW,MSFT") as socket:
        assert await socket.receive_json() == of_trade("MSFT", 415.5)
        unknown = await socket.receive_json()
        assert (unknown["error"], unknown["symbol"]) == ("not_found", "NEW")
        source.trade("AAPL", 188.0, 1)
        source.trade("NEW", 1.5, 1)
        source.trade("MSFT", 415.75, 1)
        assert await socket.receive_json() == of_trade("NEW", 1.5)
        assert await socket.receive_json() == of_trade("MSFT", 415.75)


async def test_a_request_that_is_no_websocket_is_for_sockjs(client):
    async with client.get("/ws") as response:
        assert await response.text() == "Welcome to SockJS!\n"


# In other protocols


async def test_graphql_answers_and_streams_quotes(source, client):
    query = "{ quote(symbol: %s) { symbol bid ask last timestamp stale } }"
    apple = {
        "symbol": "AAPL",
        "bid": None,
        "ask": None,
        "last": 187.25,
        "timestamp": str(TIME_MS),
        "stale": False,
    }
    for symbol, expected in (('"aapl"', apple), ('"NONE"', None)):
        async with client.post("/graphql", json={"query": query % symbol}) as response:
            assert await response.json() == {"data": {"quote": expected}}
    async with client.ws_connect("/graphql", protocols=["graphql-transport-ws"]) as socket:
        await socket.send_json({"type": "connection_init"})
        assert (await socket.receive_json())["type"] == "connection_ack"
        payload = {"query": "subscription " + query % '"AAPL"'}
        await socket.send_json({"type": "subscribe", "id": "1", "payload": payload})
        assert (await socket.receive_json())["payload"] == {"data": {"quote": apple}}
        source.trade("MSFT", 1.5, 1)
        source.trade("AAPL", 188.0, 1)
        message = await socket.receive_json()
        assert message["payload"] == {"data": {"quote": {**apple, "last": 188.0}}}
        await socket.send_json({"type": "complete", "id": "1"})


async def test_stomp_has_quotes_as_rest_has_them(client):
    async with stomp(client) as peer:
        await peer.follow("/topic/quotes/aapl")
        assert await peer.message() == ("/topic/quotes/AAPL", of_trade("AAPL", 187.25))


# Out of a DBN stream


def levels(*rows) -> np.ndarray:
    """MBP-1 records of one instrument of (action, price, bid, ask)."""
    records = np.zeros(len(rows), MBP1)
    records["length"], records["rtype"] = record_length(MBP1), 1
    records["publisher_id"], records["instrument_id"] = 1, 2
    records["flags"], records["size"] = F_LAST, 1
    for at, (action, price, bid, ask) in enumerate(rows):
        records["action"][at] = action
        records["price"][at] = price
        records["bid_px_00"][at], records["ask_px_00"][at] = bid, ask
    records["ts_recv"] = records["ts_event"] = START + np.arange(len(rows)) * 1_000_000
    return records


def cents(price: float) -> int:
    return round(price * 10**9)


class Sender:
    """The data port of a sender, each connection to which is told what is said here."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[bytes] = []
        self._writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._all: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def serving(self):
        async def met(reader, writer):
            self._all.append(writer)
            self.requests.append(await reader.readline())
            self._writers.put_nowait(writer)

        server = await asyncio.start_server(met, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        try:
            yield self
        finally:
            server.close()
            for writer in self._all:
                writer.transport.abort()

    async def next(self, schema: str = "mbp-1", position: int = 0) -> asyncio.StreamWriter:
        """The next connection, with a stream begun."""
        writer = await self._writers.get()
        writer.write(header(schema) + encode_begin(Begin("s", position), START))
        return writer


@pytest.fixture
async def sender():
    async with Sender().serving() as sender:
        yield sender


async def test_quotes_come_out_of_a_dbn_stream(source, sender):
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            gateway_of(source.address, quotes_from=sender.address)
        )
        await connected(client)
        socket = await stack.enter_async_context(client.ws_connect("/ws?symbols=MSFT"))
        assert await socket.receive_json() == of_trade("MSFT", 415.5)
        writer = await sender.next()
        assert sender.requests == [b"from=live\n"]
        records = levels(
            (b"A", cents(9), cents(10.25), UNDEF_PRICE),
            (b"T", cents(10.5), cents(10.25), cents(10.5)),
            (b"C", cents(10.5), cents(10.25), cents(11)),
        )
        writer.write(encode_records(records[:1]))
        first = {"symbol": "MSFT", "bid": 10.25, "ask": None, "last": None, "ts": START // 10**6}
        assert await socket.receive_json() == first
        writer.write(encode_records(records[1:]))
        last = {**first, "ask": 11, "last": 10.5, "ts": START // 10**6 + 2}
        assert await socket.receive_json() == last
        # What trades say is less, and it is not told while the stream is there.
        source.trade("MSFT", 500.0, 1)
        source.trade("AAPL", 200.0, 1)
        async with client.ws_connect("/ws?symbols=AAPL") as other:
            await told(other, last=200)
        assert await client.answer("/v1/quotes?symbol=MSFT") == (200, last)
        _, health = await client.answer("/health")
        assert health["quotes"]["source"] == {
            "address": sender.address,
            "connected": True,
            "message": None,
        }
        metrics = await (await client.get("/metrics")).text()
        assert "mdtool_quote_source_up 1.0" in metrics
        # Once it is gone for good, trades are all that there is.
        writer.write(encode_end(End("s", 3), START))
        writer.close()
        assert (await told(socket, bid=None))["last"] == 500


async def test_a_stream_that_is_lost_is_taken_up_again_one_that_ended_is_not_told_twice(
    source, sender
):
    async with (
        gateway_of(source.address, quotes_from=sender.address) as client,
        client.ws_connect("/ws?symbols=MSFT") as socket,
    ):
        for bid in (10, 11):
            writer = await sender.next()
            writer.write(encode_records(levels((b"A", 0, cents(bid), cents(12)))))
            await told(socket, bid=bid, ask=12)
            writer.transport.abort()
        writer = await sender.next()
        writer.write(encode_records(levels((b"A", 0, cents(20), cents(21)))))
        writer.write(encode_end(End("s", 1), START))
        writer.close()
        await told(socket, bid=20)
        # The next one is asked for once, and again only where whoever was asked is gone.
        writer = await sender._writers.get()
        _, health = await client.answer("/health")
        assert health["quotes"]["source"]["message"] == "the stream has ended"
        writer.transport.abort()
        writer = await sender._writers.get()
        assert sender.requests == [b"from=live\n"] * 3 + [b"from=next\n"] * 2
        writer.write(header("mbp-1") + encode_begin(Begin("s", 0), START))
        writer.write(encode_records(levels((b"A", 0, cents(15), cents(16)))))
        await told(socket, bid=15)
        writer.transport.abort()
        await sender.next()
        assert sender.requests[5:] == [b"from=live\n"]


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"." * 200,
        header("mbp-1") + levels((b"A", 0, 1, 2)).tobytes(),
        header("mbp-1") + encode_refused(Refused("too many", is_final=False), START),
        header("mbp-1") + encode_begin(Begin("s", 0), START) + b"\x00" * 64,
    ],
)
async def test_what_is_no_stream_is_told_and_tried_again(source, sender, stream):
    async with (
        gateway_of(source.address, quotes_from=sender.address) as client,
        client.ws_connect("/ws?symbols=AAPL") as socket,
    ):
        await socket.receive_json()
        writer = await sender._writers.get()
        writer.write(stream)
        writer.close()
        (await sender._writers.get()).close()
        _, health = await client.answer("/health")
        assert health["quotes"]["source"]["connected"] is False
        assert health["quotes"]["source"]["message"]
        assert (await client.answer("/v1/quotes?symbol=AAPL"))[0] == 200


@pytest.mark.parametrize("is_partial", [False, True])
async def test_quotes_come_out_of_the_books_of_a_replay(source, tmp_path, is_partial):
    orders = np.zeros(4, MBO)
    orders["length"], orders["rtype"] = record_length(MBO), 160
    orders["publisher_id"], orders["instrument_id"] = 1, 1
    orders["order_id"] = np.arange(4)
    orders["action"] = [b"R", b"A", b"A", b"T"]
    orders["side"] = [b"N", b"B", b"A", b"B"]
    orders["price"] = [UNDEF_PRICE, cents(99.5), cents(100.25), cents(100.25)]
    orders["size"] = [0, 5, 5, 1]
    orders["flags"] = F_LAST
    orders["ts_recv"] = orders["ts_event"] = START
    path = tmp_path / "mbo.dbn"
    path.write_bytes(header() + encode_records(orders[is_partial:]))
    async with (
        sender_of(path) as sender,
        gateway_of(source.address, quotes_from=sender.data) as client,
        client.ws_connect("/ws?symbols=AAPL") as socket,
    ):
        await sender.start("/start-streaming")
        quote = await told(socket, bid=99.5)
        ts = START // 10**6
        expected = {"symbol": "AAPL", "bid": 99.5, "ask": 100.25, "last": 100.25, "ts": ts}
        assert quote == expected | ({"partial": True} if is_partial else {})
        _, answer = await client.answer("/api/v2/quotes/AAPL")
        assert (answer["data"]["bid"], answer["data"].get("partial", False)) == ("99.5", is_partial)
        query = {"query": '{ quote(symbol: "AAPL") { ask partial } }'}
        async with client.post("/graphql", json=query) as response:
            told_by = (await response.json())["data"]["quote"]
        assert told_by == {"ask": 100.25, "partial": is_partial}


async def test_quotes_of_a_simulated_market_are_all_two_sided_and_in_order(source, tmp_path):
    path = tmp_path / "quotes.dbn"
    simulate = ("simulate", "--schema", "mbp-1", "--limit", "5000", "-o", str(path))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "mdtool", *simulate)
    assert await process.wait() == 0
    async with (
        sender_of(path) as sender,
        gateway_of(source.address, quotes_from=sender.data) as client,
        client.ws_connect("/ws?symbols=GOOG") as socket,
    ):
        await sender.start("/start-streaming")
        quote = await told(socket, symbol="GOOG")
        assert quote["bid"] < quote["ask"]
        assert quote["last"] is None or quote["last"] > 0


# Shared


async def test_many_gateways_share_one_feed(source, sender, tmp_path):
    async with (
        redis_server(tmp_path) as server,
        gateway_of(source.address, quotes_hub=server.url, quotes_from=sender.address) as fed,
        gateway_of("127.0.0.1:1", quotes_hub=server.url) as other,
        fed.ws_connect("/ws?symbols=MSFT") as here,
        other.ws_connect("/ws?symbols=MSFT") as there,
    ):
        writer = await sender.next()
        writer.write(encode_records(levels((b"A", 0, cents(10), cents(11)))))
        for socket in (here, there):
            assert (await told(socket, bid=10))["ask"] == 11
        status, quote = await other.answer("/v1/quotes?symbol=MSFT")
        assert (status, quote["bid"]) == (200, 10)
        await server.kill()
        writer.write(encode_records(levels((b"A", 0, cents(12), cents(13)))))
        await told(here, bid=12)
        assert (await told(there, stale=True))["bid"] == 10
        await server.start()
        assert "stale" not in await told(there, bid=12)
        writer.close()


async def test_a_gateway_shows_what_others_publish(tmp_path, monkeypatch):
    monkeypatch.setattr(quotes, "TTL_S", 60.0)
    async with (
        redis_server(tmp_path) as server,
        RedisQuoteHub(server.url) as hub,
        gateway_of("127.0.0.1:1", quotes_hub=server.url) as client,
        client.ws_connect("/ws") as socket,
    ):
        hub.publish([Quote("ES", cents(-1), None, None, 5)])
        quote = {"symbol": "ES", "bid": -1, "ask": None, "last": None, "ts": 5}
        assert await socket.receive_json() == quote
        assert await client.answer("/v1/quotes") == (200, [quote])
        # Who is told of other symbols knows that there is none of this one.
        assert (await client.answer("/v1/quotes?symbol=NQ"))[0] == 404


async def test_a_hub_that_is_away_is_no_reason_not_to_serve(tmp_path, monkeypatch):
    monkeypatch.setattr(RedisQuoteHub.__init__, "__defaults__", (0.1,))
    async with redis_server(tmp_path) as server:
        await server.kill()
        async with gateway_of("127.0.0.1:1", quotes_hub=server.url) as client, bounded():
            assert (await client.answer("/livez"))[0] == 200
            hub = (await client.answer("/health"))[1]["quotes"]["hub"]
            assert hub["address"] == f"redis 127.0.0.1:{server.port}"
            assert not hub["connected"]
            await server.start()
            while not (await client.answer("/health"))[1]["quotes"]["hub"]["connected"]:
                pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quotes_from": "nowhere"}, "HOST:PORT"),
        ({"quotes_hub": "nats://127.0.0.1"}, "memory, redis"),
        ({"quotes_hub": "redis:"}, "HOST:PORT"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError.__base__, match=message):
        Gateway(GatewayConfig(**settings))
