"""Signals between STOMP clients: rooms, targets, and what is rejected."""

from __future__ import annotations

import contextlib
import json

import pytest

from mdtool.services.gateway.protocols.signaling import SIGNALS_AT_ONCE
from tests.reference.market_source import MarketSource
from tests.support.gateways import gateway_of
from tests.support.stomp_peers import StompPeer, stomp

TOPIC = "/topic/signaling"


@pytest.fixture
async def client():
    async with MarketSource().serving() as source, gateway_of(source.address) as client:
        yield client


@contextlib.asynccontextmanager
async def listeners(client, *names: str, room: str = ""):
    """Peers that subscribe to a room and have joined it, in order."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(stomp(client)) for _ in names]
        for peer in peers:
            await peer.subscribe(f"{TOPIC}/{room}" if room else TOPIC)
        for name, peer in zip(names, peers, strict=True):
            await say(peer, "JOIN", name, room)
            for each in peers:
                assert (await each.message())[1] == {"type": "JOIN", "senderId": name}
        yield peers


async def say(peer: StompPeer, kind: str, sender: str, room: str = "", **fields) -> None:
    signal = {"type": kind, "senderId": sender, **fields}
    destination = f"/app/signal/{room}" if room else "/app/signal"
    await peer.send("SEND", {"destination": destination}, json.dumps(signal).encode())


@pytest.mark.parametrize("target", [{}, {"targetId": None}, {"targetId": ""}])
async def test_a_signal_without_a_target_is_relayed_to_everybody_in_the_room(client, target):
    async with listeners(client, "a", "b", "c") as peers:
        await say(peers[0], "OFFER", "a", sdp="v=0\r\n", **target)
        for peer in peers:
            assert await peer.message() == (
                TOPIC,
                {"type": "OFFER", "senderId": "a", "sdp": "v=0\r\n"},
            )


async def test_a_signal_with_a_target_is_relayed_to_it_alone(client):
    async with listeners(client, "a", "b", "c") as (a, b, c):
        candidate = {"candidate": "candidate:1", "sdpMid": "0"}
        await say(a, "ICE", "a", targetId="b", candidate=candidate)
        await say(b, "ANSWER", "b", targetId="a", sdp="v=0")
        await say(c, "LEAVE", "c")
        expected = {"type": "ICE", "senderId": "a", "targetId": "b", "candidate": candidate}
        assert (await b.message())[1] == expected
        assert (await a.message())[1]["type"] == "ANSWER"
        for peer in (a, b, c):
            assert (await peer.message())[1] == {"type": "LEAVE", "senderId": "c"}


async def test_rooms_are_separate(client):
    async with (
        listeners(client, "a", room="one") as (one,),
        listeners(client, "b", room="two") as (two,),
        listeners(client, "c") as (common,),
    ):
        await say(one, "OFFER", "a", "one", sdp="1")
        await say(two, "OFFER", "b", "two", sdp="2")
        await say(common, "OFFER", "c", sdp="3")
        assert (await one.message()) == (
            f"{TOPIC}/one",
            {"type": "OFFER", "senderId": "a", "sdp": "1"},
        )
        assert (await two.message())[0] == f"{TOPIC}/two"
        assert (await common.message())[0] == TOPIC


async def test_an_absent_target_is_answered_by_its_leave(client):
    async with listeners(client, "a") as (a,):
        await say(a, "OFFER", "a", targetId="nobody", sdp="v=0")
        assert (await a.message())[1] == {"type": "LEAVE", "senderId": "nobody", "targetId": "a"}


async def test_a_client_that_disconnects_leaves_its_rooms(client):
    async with listeners(client, "a", "b", room="desk") as (a, b):
        await b.socket.close()
        assert (await a.message()) == (f"{TOPIC}/desk", {"type": "LEAVE", "senderId": "b"})
        # Its id is free again.
        async with stomp(client) as c:
            await say(c, "JOIN", "b", "desk")
            assert (await a.message())[1] == {"type": "JOIN", "senderId": "b"}


async def test_a_client_that_has_left_does_not_leave_twice(client):
    async with listeners(client, "a", "b") as (a, b):
        await say(b, "LEAVE", "b")
        assert (await a.message())[1] == {"type": "LEAVE", "senderId": "b"}
        await b.socket.close()
        await say(a, "LEAVE", "a")
        assert (await a.message())[1] == {"type": "LEAVE", "senderId": "a"}


async def test_a_session_keeps_the_sender_id_that_it_used_first(client):
    async with listeners(client, "a", "b") as (a, b):
        await say(b, "OFFER", "a", sdp="v=0")
        assert await b.error() == "SEND: senderId: 'a' is not this client's, 'b'"
        assert (await a.message())[1] == {"type": "LEAVE", "senderId": "b"}


async def test_a_sender_id_that_is_in_use_cannot_be_used_by_another(client):
    async with listeners(client, "a") as (a,):
        async with stomp(client) as spoof:
            await say(spoof, "OFFER", "a", sdp="v=0")
            assert await spoof.error() == "SEND: senderId: 'a' is another client's"
        await say(a, "LEAVE", "a")
        assert (await a.message())[1]["type"] == "LEAVE"


@pytest.mark.parametrize(
    ("destination", "body", "message"),
    [
        ("/app/signal", b"nonsense", "a signal must be a JSON object"),
        ("/app/signal", b'{"type":"SHOUT","senderId":"x"}', "type: expects OFFER"),
        ("/app/signal", b'{"type":"JOIN"}', "senderId: expects"),
        ("/app/signal/a b", b'{"type":"JOIN","senderId":"x"}', "room: expects"),
        ("/app/signal/a/b", b'{"type":"JOIN","senderId":"x"}', "room: expects"),
        ("/app/signals", b'{"type":"JOIN","senderId":"x"}', "unknown destination"),
        (
            "/app/signal",
            json.dumps({"type": "OFFER", "senderId": "x", "sdp": "x" * 40_000}).encode(),
            "sdp: 40,000 characters; at most 32,768",
        ),
        (
            "/app/signal",
            json.dumps({"type": "OFFER", "senderId": "x", "sdp": "x" * 100_000}).encode(),
            "a frame takes more than 65,536 bytes",
        ),
    ],
)
async def test_an_invalid_signal_ends_its_session_alone(client, destination, body, message):
    async with listeners(client, "a") as (a,):
        async with stomp(client) as peer:
            await peer.send("SEND", {"destination": destination}, body)
            assert message in await peer.error()
        await say(a, "LEAVE", "a")
        assert (await a.message())[1]["type"] == "LEAVE"


async def test_a_description_of_a_megabyte_gets_an_error_and_a_close(client):
    async with listeners(client, "a") as (a,):
        async with stomp(client) as peer:
            await say(peer, "OFFER", "x", sdp="x" * (1 << 20))
            assert "131,072 bytes" in await peer.error(1009)
        await say(a, "LEAVE", "a")
        assert (await a.message())[1]["type"] == "LEAVE"


@pytest.mark.parametrize("room", ["a b", "x" * 65, "a/b", "é"])
async def test_an_invalid_room_is_rejected(client, room):
    async with stomp(client) as peer:
        await peer.follow(f"{TOPIC}/{room}")
        assert "room: expects" in await peer.error()


async def test_signals_are_limited_in_rate(client):
    async with stomp(client) as peer:
        for _ in range(SIGNALS_AT_ONCE + 50):
            await say(peer, "JOIN", "a")
        assert await peer.error() == "SEND: rate limit of 20 signals a second exceeded"


async def test_listeners_are_bounded():
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address, signaling_listeners=2) as client,
        listeners(client, "a", "b", room="desk"),
    ):
        async with stomp(client) as third:
            await third.follow(f"{TOPIC}/desk")
            assert "limit of 2 listeners in this room reached" in await third.error()
        async with stomp(client) as elsewhere:
            await elsewhere.subscribe(f"{TOPIC}/other")


async def test_ice_servers_have_credentials_that_expire():
    settings = {
        "stun_urls": "stun:stun.example.com",
        "turn_urls": "turn:turn.example.com",
        "turn_secret": "secret",
    }
    async with (
        MarketSource().serving() as source,
        gateway_of(source.address, **settings) as client,
        client.get("/api/v1/ice-servers") as response,
    ):
        assert response.headers["Cache-Control"] == "no-store"
        stun, turn = (await response.json())["iceServers"]
        assert stun == {"urls": ["stun:stun.example.com"]}
        assert turn["urls"] == ["turn:turn.example.com"]
        assert turn["username"].partition(":")[0].isdigit()
        assert turn["credential"]
