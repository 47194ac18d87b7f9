"""`/stream`: requests and replies, limits, and the order of what is written, with plain feeds."""

from __future__ import annotations

import contextlib
import json

import pytest
from aiohttp import ClientSession, WSMsgType

from mdtool.services.client import Admission
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.feeds.bars import Bar
from mdtool.services.gateway.feeds.feed import Key
from mdtool.services.gateway.feeds.quotes import LatestQuote
from mdtool.services.gateway.http import Routes
from mdtool.services.gateway.parameters import ParameterError
from mdtool.services.gateway.protocols.stream import (
    MAX_MESSAGE_BYTES,
    MAX_SUBSCRIPTIONS,
    MAX_SYMBOLS,
    Stream,
)
from mdtool.services.gateway.proxies import Proxies
from mdtool.services.http.entry import IN_BAND
from mdtool.services.http.listening import listening
from mdtool.services.http.origins import Origins
from mdtool.services.limits import LimitError, Limits
from tests.reference.plain_feeds import Trade, plain_feeds

QUOTE = LatestQuote("AAPL", 100 * 10**9, None, None, 1_000, is_stale=False)
DATA = {
    "symbol": "AAPL",
    "bid": "100",
    "ask": None,
    "last": None,
    "timestamp": "1970-01-01T00:00:01.000000000Z",
}
BAR = Bar("AAPL", "1m", 0, 1, 2, 3, 4, 5, 6)


class Peer:
    """A client of `/stream`."""

    def __init__(self, socket) -> None:
        self.socket = socket

    async def ask(self, **request):
        """The next message behind a request."""
        await self.socket.send_json(request)
        return await self.socket.receive_json()

    async def subscribe(self, identity, channel, *symbols, **members):
        members |= {"symbols": [*symbols]} if symbols else {}
        return await self.ask(op="subscribe", id=identity, channel=channel, **members)

    async def error(self, **request) -> tuple[object, str, str]:
        """The id, the code and the text of the error that a request gets."""
        reply = await self.ask(**request)
        assert list(reply) == ["id", "error"]
        return reply["id"], *reply["error"].values()

    async def next(self):
        return await self.socket.receive_json()


@pytest.fixture
def feeds():
    return plain_feeds()


@pytest.fixture
async def peer(feeds):
    routes = Routes(Admission(Limits()), Origins(""), Proxies())
    for (method, path), handler in Stream(GatewayConfig(), feeds).routes.items():
        routes.add(method, path, handler, IN_BAND)
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(routes.app, "127.0.0.1", 0))
        session = await stack.enter_async_context(ClientSession(f"http://{address}"))
        yield Peer(await stack.enter_async_context(session.ws_connect("/stream")))


async def test_the_reply_precedes_the_current_state_and_each_change(feeds, peer):
    feeds.plain["quotes"].rows = [QUOTE]
    assert await peer.subscribe(1, "quotes", "aapl", " NEW ") == {
        "id": 1,
        "ok": True,
        "unknown": ["NEW"],
    }
    head = {"id": 1, "channel": "quotes", "symbol": "AAPL"}
    assert await peer.next() == {**head, "data": DATA}
    feeds.plain["quotes"].publish(QUOTE._replace(is_stale=True))
    assert await peer.next() == {**head, "data": {**DATA, "stale": True}}


async def test_ids_are_numbers_or_texts_and_messages_carry_them(feeds, peer):
    feeds.plain["quotes"].rows = [QUOTE]
    for identity in (0, -7, "a", 'quo"te'):
        assert await peer.subscribe(identity, "quotes", "AAPL") == {"id": identity, "ok": True}
        assert (await peer.next())["id"] == identity
        assert await peer.ask(op="unsubscribe", id=identity) == {"id": identity, "ok": True}
    assert not feeds.plain["quotes"]


@pytest.mark.parametrize("members", [{}, {"interval": None}, {"interval": ""}])
async def test_an_option_that_is_absent_null_or_empty_has_its_default(feeds, peer, members):
    assert await peer.subscribe(1, "bars", "AAPL", "MSFT", after="", **members) == {
        "id": 1,
        "ok": True,
        "unknown": ["AAPL", "MSFT"],
    }
    feeds.plain["bars"].publish(BAR._replace(symbol="MSFT"), "5m")
    feeds.plain["bars"].publish(BAR, "1m")
    assert (await peer.next())["symbol"] == "AAPL"


async def test_every_symbol_stands_for_all_others(feeds, peer):
    assert await peer.subscribe(1, "quotes", "AAPL", "*", "AAPL") == {"id": 1, "ok": True}
    feeds.plain["quotes"].publish(QUOTE)
    assert (await peer.next())["symbol"] == "AAPL"
    assert await peer.ask(op="ping") == {"op": "pong"}


async def test_depth_may_be_a_number(feeds, peer):
    assert (await peer.subscribe(1, "books", "AAPL", depth=3))["ok"] is True
    feeds.plain["books"].fail(Key("AAPL", 3), ParameterError("depth: not today"))
    assert (await peer.next())["error"] == {"code": "bad_request", "message": "depth: not today"}


async def test_events_of_a_snapshot_are_marked_and_missed_ones_counted(feeds, peer):
    trade = Trade("AAPL", "s:1", 0, 5 * 10**9, 3)
    feeds.plain["trades"].rows = [trade]
    await peer.subscribe("t", "trades", "AAPL")
    head = {"id": "t", "channel": "trades", "symbol": "AAPL"}
    first = await peer.next()
    assert first == {**head, "snapshot": True, "data": first["data"]}
    feeds.plain["trades"].publish(trade._replace(sequence="s:2"))
    second = await peer.next()
    assert second == {**head, "data": {**first["data"], "sequence": "s:2"}}
    for count in (12, None):
        feeds.plain["trades"].miss("AAPL", count)
        assert await peer.next() == {**head, "missed": count}


async def test_after_is_the_feeds_to_understand(feeds, peer, monkeypatch):
    requests = []
    follow = feeds.plain["trades"].follow

    def noting(key, subscription, after=None):
        requests.append((key.symbol, after))
        return follow(key, subscription)

    monkeypatch.setattr(feeds.plain["trades"], "follow", noting)
    await peer.subscribe(1, "trades", "AAPL", after="s:17")
    await peer.subscribe(2, "trades", "AAPL", after=None)
    assert requests == [("AAPL", "s:17"), ("AAPL", None)]


async def test_auth_is_an_error_until_it_is_configured(peer):
    assert await peer.error(op="auth", token="secret") == (
        *(None, "unauthorized", "auth: not configured; connect without a token"),
    )


@pytest.mark.parametrize(
    ("members", "code", "message"),
    [
        ({"op": None}, "bad_request", "op: expects subscribe"),
        ({"op": "shout"}, "bad_request", "op: expects subscribe, unsubscribe, auth or ping, not"),
        ({"id": None}, "bad_request", "id: missing"),
        ({"id": ""}, "bad_request", "id: missing"),
        ({"id": 1.5}, "bad_request", "id: expects"),
        ({"id": True}, "bad_request", "id: expects"),
        ({"id": "x" * 65}, "bad_request", "id: expects"),
        ({"channel": None}, "bad_request", "channel: missing; name one of aggregates, bars"),
        ({"channel": "sport"}, "unknown_channel", "channel: 'sport' does not exist"),
        ({"channel": ["bars"]}, "unknown_channel", "channel: ['bars'] does not exist"),
        ({"symbols": None}, "bad_request", "symbols: missing"),
        ({"symbols": []}, "bad_request", "symbols: missing"),
        ({"symbols": "AAPL"}, "bad_request", "symbols: expects a list"),
        ({"symbols": ["AAPL", 7]}, "bad_request", "symbols: expects a list"),
        ({"symbols": ["AAPL", "é"]}, "bad_request", "symbol: "),
        ({"interval": "soon"}, "bad_request", "interval: "),
        ({"interval": {}}, "bad_request", "interval: {} is not valid"),
        ({"channel": "books", "depth": 0}, "bad_request", "depth: "),
        ({"channel": "books", "depth": True}, "bad_request", "depth: True is not valid"),
        ({"after": "s:1"}, "bad_request", "after: bars cannot be resumed"),
        ({"channel": "trades", "after": 7}, "bad_request", "after: expects"),
        ({"op": "unsubscribe", "id": 9}, "bad_request", "id: no subscription 9"),
        ({"symbols": [f"S{n}" for n in range(MAX_SYMBOLS + 1)]}, "limit", "limit of 1,000 symbols"),
    ],
)
async def test_a_bad_request_gets_an_error_and_nothing_else(peer, members, code, message):
    request = {"op": "subscribe", "id": 1, "channel": "bars", "symbols": ["AAPL"], **members}
    _, its_code, its_message = await peer.error(**request)
    assert (its_code, its_message[: len(message)]) == (code, message)
    assert await peer.ask(op="ping") == {"op": "pong"}


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "7", "[" * 100_000, '{"op":'])
async def test_a_message_that_is_not_an_object_gets_an_error(peer, text):
    await peer.socket.send_str(text)
    assert (await peer.next())["error"]["code"] == "bad_request"
    await peer.socket.send_bytes(b'{"op":"ping"}')
    assert await peer.next() == {"op": "pong"}


async def test_a_message_that_is_too_large_gets_an_error_and_a_close(peer):
    await peer.socket.send_str("x" * (MAX_MESSAGE_BYTES + 1))
    assert "131,072 bytes" in (await peer.next())["error"]["message"]
    closed = await peer.socket.receive()
    assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1009)


async def test_an_id_is_used_once_at_a_time(feeds, peer):
    await peer.subscribe(1, "quotes", "AAPL")
    reply = await peer.subscribe(1, "bars", "AAPL")
    assert reply["error"]["message"] == "id: subscription 1 already exists; choose another id"
    feeds.plain["quotes"].publish(QUOTE)
    assert (await peer.next())["channel"] == "quotes"


async def test_subscriptions_and_their_symbols_are_bounded_and_released(peer):
    symbols = [f"S{number}" for number in range(MAX_SYMBOLS - MAX_SUBSCRIPTIONS + 1)]
    await peer.subscribe("many", "quotes", *symbols)
    for number in range(MAX_SUBSCRIPTIONS - 1):
        assert (await peer.subscribe(number, "quotes", "AAPL"))["ok"] is True
    assert (await peer.subscribe("more", "quotes", "AAPL"))["error"]["code"] == "limit"
    await peer.ask(op="unsubscribe", id=1)
    assert (await peer.subscribe("more", "quotes", "A", "B"))["error"]["code"] == "limit"
    assert (await peer.subscribe("more", "quotes", "A"))["ok"] is True


async def test_a_subscription_that_fails_halfway_writes_its_error_alone(feeds, peer, monkeypatch):
    follow = feeds.plain["quotes"].follow
    feeds.plain["quotes"].rows = [QUOTE]

    def limited(key, subscription, after=None):
        if key.symbol == "LAST":
            raise LimitError("too much", {})
        return follow(key, subscription)

    monkeypatch.setattr(feeds.plain["quotes"], "follow", limited)
    reply = await peer.subscribe(1, "quotes", "AAPL", "LAST")
    assert reply == {"id": 1, "error": {"code": "limit", "message": "too much"}}
    assert not feeds.plain["quotes"]
    assert (await peer.subscribe(1, "quotes", "AAPL"))["ok"] is True
    assert (await peer.next())["data"] == DATA


async def test_a_subscription_that_cannot_be_served_ends_with_an_error(feeds, peer):
    await peer.subscribe(1, "bars", "AAPL", interval="5m")
    feeds.plain["bars"].fail(Key("AAPL", "5m"), ParameterError("interval: no bars of 5m"))
    error = {"code": "bad_request", "message": "interval: no bars of 5m"}
    assert await peer.next() == {"id": 1, "error": error}
    assert not feeds.plain["bars"]
    reply = await peer.ask(op="unsubscribe", id=1)
    assert json.dumps(reply["error"]["code"]) == '"bad_request"'
