"""A client of `WS /stream`: what it subscribes to, and servers that send what is not understood."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import web

from mdtool.adapters.gateway_stream import GatewayStreamClient
from mdtool.core.errors import PeerError, UsageError
from mdtool.services.http.listening import listening
from mdtool.wire.alert_lines import decode_alert, encode_alert
from mdtool.wire.vwap_lines import LineError, VwapState, decode_state
from tests.support.waiting import bounded

VWAP = {
    "symbol": "AAPL",
    "vwap": "187.2",
    "price": "187.25",
    "size": "7",
    "window": "100",
    "timestamp": "2024-12-26T12:00:00.000000001Z",
}
ALERT = {
    "symbol": "AAPL",
    "id": "jump:AAPL:1",
    "kind": "jump",
    "severity": "low",
    "begin": "2024-12-26T12:00:00Z",
    "end": None,
    "value": "105",
    "baseline": "100",
}


@contextlib.asynccontextmanager
async def gateway(*messages: str):
    """The URL of a server that sends messages to who subscribes to alerts, and its requests."""
    requests: list[dict[str, object]] = []

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            requests.append(json.loads(message.data))
            if requests[-1].get("channel") == "alerts":
                for text in messages:
                    await socket.send_str(text)
                await socket.close(code=1001)
        return socket

    app = web.Application()
    app.router.add_get("/base/stream", serve)
    async with listening(app, "127.0.0.1", 0) as address:
        yield f"http://{address}/base/", requests


async def received(url: str, **options) -> list[bytes]:
    found: list[bytes] = []
    async with bounded():
        try:
            async for lines in GatewayStreamClient(url, **options).lines():
                found += lines
        except PeerError as error:
            return [*found, str(error).encode()]
    raise AssertionError("a connection ends with its reason")


def update(channel: str, data: object) -> str:
    return json.dumps({"id": channel, "channel": channel, "symbol": "AAPL", "data": data})


async def test_vwaps_and_alerts_are_lines_of_the_feed():
    messages = (json.dumps({"id": "vwap", "ok": True}), update("vwap", VWAP))
    async with gateway(*messages, update("alerts", ALERT)) as (url, requests):
        state, alert, end = await received(url, symbols=frozenset({"MSFT", "AAPL"}), token="t")
    time_ns = 1_735_214_400 * 10**9 + 1
    expected = VwapState("AAPL", 187_250_000_000, 7, 187_200_000_000, 100, time_ns)
    assert decode_state(state) == expected
    assert decode_alert(alert).kind == "jump"
    assert b"closed the connection (1001)" in end
    symbols = ["AAPL", "MSFT"]
    assert requests == [
        {"op": "auth", "token": "t"},
        {"op": "subscribe", "id": "symbols", "channel": "symbols", "symbols": symbols},
        {"op": "subscribe", "id": "vwap", "channel": "vwap", "symbols": symbols},
        {"op": "subscribe", "id": "alerts", "channel": "alerts", "symbols": symbols},
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("garbage", "it is not a gateway"),
        ("[1]", "it is not a gateway"),
        ("x" * (1 << 20) + "x", "a message of more than 1,048,576 bytes"),
        ('{"id":"vwap","error":{"code":"forbidden","message":"not yours"}}', "not yours"),
    ],
)
async def test_what_is_not_a_gateway_or_rejects_the_client_is_one_reason(message, reason):
    async with gateway(message) as (url, _):
        [end] = await received(url, token="")
    assert reason in end.decode()


@pytest.mark.parametrize("data", [VWAP | {"price": "x"}, VWAP | {"window": []}, {"symbol": 5}])
async def test_a_state_that_is_not_understood_is_passed_on_as_it_is(data):
    unknown = json.dumps({"id": 9, "channel": "halts", "data": 1})
    async with gateway(update("vwap", data), unknown) as (url, _):
        line, _end = await received(url, token="")
    with pytest.raises(LineError):
        decode_state(line)


@pytest.mark.parametrize("channel", ["alerts", "symbols"])
async def test_a_gateway_without_a_channel_is_followed_nevertheless(channel):
    rejected = json.dumps({"id": channel, "error": {"code": "unknown_channel", "message": "no"}})
    async with gateway(rejected, update("vwap", VWAP)) as (url, _):
        assert len(await received(url, token="")) == 2


async def test_volumes_have_the_lots_of_their_symbols_and_stale_states_are_marked():
    known = [{"symbol": "AAPL", "lot": "0.00001"}, {"symbol": "MSFT", "lot": None}, {"symbol": "X"}]
    messages = (*(update("symbols", each) for each in known), update("vwap", VWAP))
    async with gateway(*messages, update("vwap", VWAP | {"stale": True})) as (url, _):
        live, stale, _end = await received(url, token="")
    assert decode_state(live).size == 7 * 10_000
    assert (decode_state(live).is_stale, decode_state(stale).is_stale) == (False, True)


async def test_another_server_is_no_gateway():
    async with listening(web.Application(), "127.0.0.1", 0) as address:
        [end] = await received(f"ws://{address}/stream", token="")
    assert b"answers 404" in end


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:99999"])
def test_urls_that_are_not_valid(url):
    with pytest.raises((UsageError, ValueError)):
        GatewayStreamClient(url, token="")


@pytest.mark.parametrize("change", [{"kind": 5}, {"end": 7}, {"value": None}])
def test_alerts_that_are_not_valid(change):
    with pytest.raises(LineError):
        decode_alert(encode_alert(ALERT | change))
    with pytest.raises(LineError):
        decode_alert(b'{"alert":[]}')


def test_a_client_reconnects():
    async def run() -> list[str]:
        seen: list[str] = []
        twice = asyncio.Event()

        class Seen:
            def connected(self) -> None:
                seen.append("connected")

            def received(self, lines: list[bytes]) -> None:
                seen.append("received")

            def lost(self, reason: str, delay_s: float, attempts: int) -> None:
                if seen.count("connected") == 2:
                    twice.set()

        async with gateway(update("vwap", VWAP)) as (url, _), bounded():
            task = asyncio.create_task(GatewayStreamClient(url, token="").follow(Seen()))
            await twice.wait()
            task.cancel()
        return seen

    assert asyncio.run(run()) == ["connected", "received"] * 2
