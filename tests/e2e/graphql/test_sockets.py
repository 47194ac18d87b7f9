"""graphql-transport-ws: messages in and out of order, closes, and subscriptions that end."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError

from mdtool.wire.graphql import SUBPROTOCOL
from tests.reference.market_source import MarketSource
from tests.support.aggregators import aggregator, message, tick
from tests.support.gateways import connected, gateway_of
from tests.support.waiting import bounded

CLOSE = 'subscription { marketData(symbol: "AAPL") { close } }'
INIT = {"type": "connection_init"}
ACK = {"type": "connection_ack"}


def subscribe(id_: str, query: str, **parameters) -> dict:
    return {"id": id_, "type": "subscribe", "payload": {"query": query, **parameters}}


def following(id_: str, data: object) -> dict:
    return {"id": id_, "type": "next", "payload": {"data": data}}


def complete(id_: str) -> dict:
    return {"id": id_, "type": "complete"}


@contextlib.asynccontextmanager
async def talking(client):
    """A socket whose connection is acknowledged."""
    async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket:
        await socket.send_json(INIT)
        assert await socket.receive_json() == ACK
        yield socket


async def closed(socket) -> tuple[int, str]:
    """The code and the reason with which a socket is closed, next."""
    message = await socket.receive()
    assert message.type is WSMsgType.CLOSE
    return message.data, message.extra


async def test_a_subscription_begins_with_the_state_and_has_each_update(source, client):
    async with talking(client) as socket:
        await socket.send_json(subscribe("1", CLOSE))
        assert await socket.receive_json() == following("1", {"marketData": {"close": 188.5}})
        for price in (189.0, 189.25):
            source.trade("AAPL", price, 1)
            expected = following("1", {"marketData": {"close": price}})
            assert await socket.receive_json() == expected


async def test_each_subscription_has_its_own_selection_and_id(source, client):
    query = "subscription($s: String!) { now: marketData(symbol: $s) { volume __typename } }"
    async with talking(client) as first, talking(client) as second:
        await first.send_json(subscribe("a", CLOSE))
        await first.send_json(subscribe('"b\\', query, variables={"s": "aapl"}))
        await second.send_json(subscribe("a", query, variables={"s": "AAPL"}))
        for _ in range(2):
            await first.receive_json()
        await second.receive_json()
        source.trade("AAPL", 190.0, 1)
        now = {"now": {"volume": "1001", "__typename": "Aggregate"}}
        received = [await first.receive_json() for _ in range(2)]
        assert sorted(received, key=lambda each: each["id"]) == [
            following('"b\\', now),
            following("a", {"marketData": {"close": 190}}),
        ]
        assert await second.receive_json() == following("a", now)


async def test_an_unknown_symbol_is_followed_from_its_first_trade_on(source, client):
    async with talking(client) as socket:
        query = 'subscription { marketData(symbol: "NEW") { symbol volume } }'
        await socket.send_json(subscribe("1", query))
        source.trade("AAPL", 1.0, 1)
        source.trade("NEW", 2.0, 3)
        expected = {"marketData": {"symbol": "NEW", "volume": "3"}}
        assert await socket.receive_json() == following("1", expected)


async def test_a_completed_subscription_ends_and_its_id_is_free(source, client):
    async with talking(client) as socket:
        await socket.send_json(subscribe("1", CLOSE))
        await socket.receive_json()
        await socket.send_json(complete("1"))
        await socket.send_json(complete("never heard of"))
        await socket.send_json({"type": "ping"})
        assert await socket.receive_json() == {"type": "pong"}
        source.trade("AAPL", 190.0, 1)
        async with client.ws_connect("/ws/marketdata?symbol=AAPL") as other, bounded():
            while (await other.receive_json())["close"] != 190:
                pass
        await socket.send_json(subscribe("1", CLOSE))
        assert await socket.receive_json() == following("1", {"marketData": {"close": 190}})


async def test_queries_are_answered_and_completed(client):
    async with talking(client) as socket:
        await socket.send_json(subscribe("1", "{ symbols }"))
        assert await socket.receive_json() == following("1", {"symbols": ["AAPL"]})
        assert await socket.receive_json() == complete("1")


async def test_a_slow_query_blocks_no_other_and_can_be_cancelled(source):
    source.is_silent = True
    async with gateway_of(source.address, timeout_ms=600_000) as client, talking(client) as socket:
        await connected(client)
        await socket.send_json(subscribe("slow", '{ bars(symbol: "AAPL") { open } }'))
        await socket.send_json(subscribe("fast", "{ symbols }"))
        assert (await socket.receive_json())["id"] == "fast"
        assert await socket.receive_json() == complete("fast")
        await socket.send_json(complete("slow"))
        await socket.send_json(subscribe("slow", "{ symbols }"))
        assert (await socket.receive_json())["payload"]["data"] == {"symbols": ["AAPL"]}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("subscription {", "GRAPHQL_PARSE_FAILED"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ('subscription { marketData(symbol: "") { close } }', "BAD_USER_INPUT"),
        ('subscription { marketData(symbol: "\\u0000") { close } }', "BAD_USER_INPUT"),
        ('subscription { bars(symbol: "AAPL", interval: "soon") { close } }', "BAD_USER_INPUT"),
        ("subscription($s: String!) { marketData(symbol: $s) { close } }", "BAD_USER_INPUT"),
        ("{" + "".join(f"a{n}: symbols " for n in range(10_000)) + "}", "GRAPHQL_PARSE_FAILED"),
        ("{" + "a {" * 100 + "b" + "}" * 101, "QUERY_TOO_COMPLEX"),
    ],
)
async def test_an_invalid_operation_is_an_error_of_that_operation_only(client, query, code):
    async with talking(client) as socket:
        await socket.send_json(subscribe("good", CLOSE))
        await socket.receive_json()
        await socket.send_json(subscribe("bad", query))
        error = await socket.receive_json()
        assert (error["id"], error["type"]) == ("bad", "error")
        assert error["payload"][0]["extensions"]["code"] == code
        await socket.send_json(subscribe("bad", "{ symbols }"))
        assert (await socket.receive_json())["type"] == "next"


async def test_operations_of_a_client_are_bounded(client):
    async with talking(client) as socket:
        for number in range(101):
            query = f'subscription {{ marketData(symbol: "NEW{number}") {{ close }} }}'
            await socket.send_json(subscribe(str(number), query))
        error = await socket.receive_json()
        assert (error["id"], error["type"]) == ("100", "error")
        assert error["payload"][0]["extensions"]["code"] == "TOO_MANY_OPERATIONS"


@pytest.mark.parametrize(
    "query", ['bars(symbol: "NEW%d") { close }', 'book(symbol: "NEW%d") { orders }']
)
async def test_upstream_requests_of_subscriptions_are_limited(source, query, no_refill):
    settings = {"upstream_requests_per_s": 1, "upstream_burst": 1}
    async with gateway_of(source.address, **settings) as client, talking(client) as socket:
        for number in range(15):
            await socket.send_json(subscribe(str(number), f"subscription {{ {query % number} }}"))
        await socket.send_json({"type": "ping"})
        error = await socket.receive_json()
        assert error["type"] == "error"
        assert error["payload"][0]["extensions"]["code"] == "TOO_MANY_REQUESTS"
        number = int(error["id"])
        assert number > 10
        await socket.send_json(subscribe("again", f"subscription {{ {query % number} }}"))
        async with bounded():
            while (error := await socket.receive_json()).get("id") != "again":
                pass
        assert error["payload"][0]["extensions"]["code"] == "TOO_MANY_REQUESTS"


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ([subscribe("1", CLOSE)], 4401, "Unauthorized"),
        ([INIT, INIT], 4429, "Too many initialisation requests"),
        (
            [INIT, subscribe("1", CLOSE), subscribe("1", CLOSE)],
            4409,
            "Subscriber for 1 already exists",
        ),
        (
            [INIT, subscribe("\ud800", CLOSE), subscribe("\ud800", CLOSE)],
            4409,
            "Subscriber for ? already exists",
        ),
        ([{"type": "start"}], 4400, "Invalid message: type: expects one that clients send"),
        ([INIT, subscribe("", CLOSE)], 4400, None),
        ([INIT, {"id": "1", "type": "subscribe", "payload": {"query": 7}}], 4400, None),
        (["not an object"], 4400, None),
    ],
)
async def test_a_protocol_error_closes_with_its_code(client, messages, code, reason):
    async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket:
        for each in messages:
            await socket.send_json(each)
        async with bounded():
            while (received := await socket.receive()).type is WSMsgType.TEXT:
                pass
        assert received.type is WSMsgType.CLOSE
        assert received.data == code
        assert reason is None or received.extra == reason


@pytest.mark.parametrize("send", ["send_str", "send_bytes"])
async def test_garbage_is_a_bad_message(client, send):
    async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket:
        garbage = "\x00{" if send == "send_str" else bytes(range(256))
        await getattr(socket, send)(garbage)
        assert (await closed(socket))[0] == 4400
    assert (await client.answer("/health"))[0] == 200


async def test_a_message_that_is_too_long_closes_the_socket(source):
    settings = {"graphql_max_body_bytes": 1_000}
    async with gateway_of(source.address, **settings) as client, talking(client) as socket:
        await connected(client)
        await socket.send_json(subscribe("1", " " * 1_000))
        assert (await closed(socket))[0] == 1009
        assert (await client.answer("/health"))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "websocket"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    ],
)
async def test_an_invalid_upgrade_is_426(client, headers, caplog):
    async with client.get("/graphql", headers=headers) as response:
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"
        assert (await response.json())["error"] == "upgrade_required"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("protocols", [[], ["graphql-ws"], ["v12.stomp"]])
async def test_another_subprotocol_is_not_acceptable(client, caplog, protocols):
    async with client.ws_connect("/graphql", protocols=protocols) as socket:
        assert await closed(socket) == (4406, "Subprotocol not acceptable")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_pings_are_answered_at_any_time(client):
    async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket:
        await socket.send_json({"type": "pong"})
        await socket.send_json({"type": "ping", "payload": {"n": 1}})
        assert await socket.receive_json() == {"type": "pong"}


async def test_a_client_that_does_not_initialise_is_closed(client, monkeypatch):
    monkeypatch.setattr("mdtool.services.gateway.protocols.graphql.sockets._INIT_S", 0.01)
    async with client.ws_connect("/graphql", protocols=[SUBPROTOCOL]) as socket:
        assert await closed(socket) == (4408, "Connection initialisation timeout")


async def test_sockets_are_bounded(source):
    async with gateway_of(source.address, max_sockets=1) as client, talking(client):
        with pytest.raises(WSServerHandshakeError) as error:
            await client.ws_connect("/graphql", protocols=[SUBPROTOCOL])
        assert error.value.status == 503
        metrics = await (await client.get("/metrics")).text()
        assert 'mdtool_sockets_refused_total{path="/graphql"} 1.0' in metrics
        assert 'mdtool_sockets{path="/graphql"} 1.0' in metrics


async def test_a_gateway_that_stops_closes_with_going_away(source):
    async with ClientSession() as session:
        async with gateway_of(source.address) as client:
            url = f"http://{client.host}:{client.port}/graphql"
            socket = await session.ws_connect(url, protocols=[SUBPROTOCOL])
            closing = asyncio.create_task(closed(socket))
        assert (await closing)[0] == 1001


async def test_a_subscription_outlives_the_aggregator():
    query = 'subscription { marketData(symbol: "AAPL") { volume stale } }'
    source = MarketSource()
    source.trade("AAPL", 1.0, 5)
    async with gateway_of(source.address) as client, talking(client) as socket:
        await socket.send_json(subscribe("1", query))
        received = []
        for _ in range(2):
            async with source.serving():
                received.append(await socket.receive_json())
            received.append(await socket.receive_json())
        fresh, stale = ({"volume": "5", "stale": stale} for stale in (False, True))
        assert [each["payload"]["data"]["marketData"] for each in received] == [
            *(fresh, stale, fresh, stale)
        ]


class TestBars:
    """In front of the aggregation service itself."""

    QUERY = """subscription($interval: String! = "1s") {
        bars(symbol: "AAPL", interval: $interval) { timestamp close volume count }
    }"""

    async def test_the_newest_bar_comes_at_once_and_then_whatever_changes(self):
        async with (
            aggregator(bars_lateness_ms=5_000) as running,
            gateway_of(running.address) as client,
            talking(client) as first,
            talking(client) as second,
        ):
            await running.send(message(0, [tick(100), tick(101, at_s=1)], ["AAPL"]))
            await first.send_json(subscribe("1", self.QUERY))
            assert await self.bar(first) == (1, 1.01, "1", "1")
            await second.send_json(subscribe("1", self.QUERY))
            assert await self.bar(second) == (1, 1.01, "1", "1")
            frames = [tick(102, 2, at_s=2), tick(103, 3, at_s=3), tick(99, 4)]
            await running.send(message(2, frames, ["AAPL"]))
            for socket in (first, second):
                received = [await self.bar(socket) for _ in range(3)]
                assert received == [(0, 0.99, "5", "2"), (2, 1.02, "2", "1"), (3, 1.03, "3", "1")]
            await first.close()
            await running.send(message(5, [tick(104, 1, at_s=3)], ["AAPL"]))
            assert await self.bar(second) == (3, 1.04, "4", "2")

    async def test_an_interval_without_bars_is_an_error_of_each_subscription(self):
        async with (
            aggregator() as running,
            gateway_of(running.address) as client,
            talking(client) as socket,
        ):
            for id_ in ("1", "2", "1"):
                await socket.send_json(subscribe(id_, self.QUERY, variables={"interval": "7m"}))
                error = await socket.receive_json()
                assert (error["id"], error["type"]) == (id_, "error")
                assert "interval: expects 1s, 1m" in error["payload"][0]["message"]
                assert error["payload"][0]["extensions"]["code"] == "BAD_USER_INPUT"

    async def test_the_aggregators_stream_ends_with_the_last_subscription(self):
        async with aggregator() as running, gateway_of(running.address) as client:
            await running.send(message(0, [tick(100)], ["AAPL"]))
            await connected(client)
            readers = len(running.subscribers)
            async with talking(client) as socket:
                await socket.send_json(subscribe("1", self.QUERY))
                await socket.send_json(subscribe("2", self.QUERY))
                await self.bar(socket)
                await self.bar(socket)
                assert len(running.subscribers) == readers + 1
                await socket.send_json(complete("1"))
                await socket.send_json({"type": "ping"})
                await socket.receive_json()
                assert len(running.subscribers) == readers + 1
            await running.subscribers.left.wait()
            assert len(running.subscribers) == readers

    async def bar(self, socket) -> tuple:
        """Seconds after noon, close, volume and count of the next bar."""
        received = (await socket.receive_json())["payload"]["data"]["bars"]
        second = (int(received["timestamp"]) - 1_735_214_400_000) // 1_000
        return second, received["close"], received["volume"], received["count"]
