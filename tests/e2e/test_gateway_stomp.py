"""STOMP over a raw WebSocket: frames, versions, heart-beats, fixed bodies, and errors."""

from __future__ import annotations

import contextlib

import pytest
from aiohttp import WSServerHandshakeError

from mdtool.services.gateway import outbox
from mdtool.wire.stomp import encode
from mdtool.wire.websocket import close_frame
from tests.reference.market_source import MarketSource
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.gateways import connected, gateway_of
from tests.support.stomp_peers import PATH, DeafPeer, StompPeer, counted, stomp
from tests.support.waiting import WITHIN_S, bounded

AAPL = {
    "symbol": "AAPL",
    "open": 187.25,
    "high": 187.25,
    "low": 187.25,
    "close": 187.25,
    "volume": "400",
    "timestamp": "1735201234567",
}


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
async def test_the_aggregate_is_sent_at_once_and_on_each_update(source, client, version):
    async with stomp(client, version) as peer:
        await peer.follow("/topic/market-data/aapl")
        assert await peer.message() == ("/topic/market-data/AAPL", AAPL)
        for volume in range(401, 406):
            source.trade("AAPL", 187.5, 1)
            assert (await peer.message())[1]["volume"] == str(volume)


async def test_messages_name_their_subscription_and_have_an_identity(source, client):
    async with stomp(client) as peer:
        await peer.follow("/topic/market-data/AAPL", "first")
        await peer.follow("/topic/market-data/AAPL", "second")
        frames = [await peer.receive(), await peer.receive()]
        source.trade("AAPL", 2.0, 3)
        frames += [await peer.receive(), await peer.receive()]
        assert [frame.headers["subscription"] for frame in frames] == ["first", "second"] * 2
        first, second, third, fourth = (frame.headers["message-id"] for frame in frames)
        assert len({first, second, third}) == 3
        assert third == fourth  # one message, sent twice


async def test_symbols_may_have_a_slash_a_colon_or_a_backslash(source, client):
    for symbol in ("BTC/USD", "A:B", "A\\B"):
        source.trade(symbol, 3.0, 5)
    for version in ("1.0", "1.1", "1.2"):
        async with stomp(client, version) as peer:
            for number, symbol in enumerate(("BTC/USD", "A:B", "A\\B")):
                await peer.follow(f"/topic/market-data/{symbol}", str(number))
                destination, content = await peer.message()
                while content["symbol"] != symbol:  # a state may come twice
                    destination, content = await peer.message()
                assert destination == f"/topic/market-data/{symbol}"
                assert content["symbol"] == symbol


async def test_messages_are_stale_while_the_aggregator_is_unavailable():
    source = MarketSource()
    source.trade("AAPL", 1.0, 1)
    async with contextlib.AsyncExitStack() as stack:
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address))
            peer = await stack.enter_async_context(stomp(client))
            await peer.follow("/topic/market-data/AAPL")
            assert "stale" not in (await peer.message())[1]
        # A subscription that begins while its first state waits for a round gets that state twice.
        while (message := (await peer.message())[1]).get("stale") is None:
            pass
        assert message["stale"] is True
        async with source.serving():
            assert "stale" not in (await peer.message())[1]


async def test_a_disconnect_is_receipted_and_closed(client):
    async with stomp(client) as peer:
        answer = await peer.ask("DISCONNECT", {"receipt": "bye"})
        assert answer.headers == {"receipt-id": "bye"}
        assert await peer.closed() == 1000


async def test_frames_may_come_in_pieces_and_several_at_once(client):
    stream = encode("CONNECT", {"accept-version": "1.2"})
    stream += b"\n\r\n" + encode("SUBSCRIBE", {"id": "0", "destination": "/topic/market-data/AAPL"})
    async with client.ws_connect(PATH) as socket:
        peer = StompPeer(socket)
        await peer.send_bytes(stream)
        assert (await peer.receive()).command == "CONNECTED"
        assert (await peer.receive()).command == "MESSAGE"
    async with client.ws_connect(PATH) as socket:
        peer = StompPeer(socket)
        for number in range(len(stream)):
            await socket.send_str(stream[number : number + 1].decode())
        assert (await peer.receive()).command == "CONNECTED"
        assert (await peer.receive()).command == "MESSAGE"


async def test_the_subprotocol_is_the_first_known_one_of_the_client(client):
    offered = ("v13.stomp", "v12.stomp", "v11.stomp")
    async with client.ws_connect(PATH, protocols=offered) as socket:
        assert socket.protocol == "v12.stomp"


async def test_heart_beats_are_kept_and_expected(source):
    async with gateway_of(source.address, stomp_heart_beat_ms=80) as client:
        async with client.ws_connect(PATH) as socket:
            peer = StompPeer(socket)
            answer = await peer.connect(**{"heart-beat": "0,10"})
            assert answer.headers["heart-beat"] == "80,80"
            for _ in range(3):
                assert (await socket.receive_str()) == "\n"
        async with stomp(client, **{"heart-beat": "10,0"}) as peer:
            assert await peer.error() == "no heart-beat within 0.16 s"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode("SEND", {"destination": "/queue/x"}), "'/queue/x': unknown destination"),
        (encode("SEND", {"destination": "/topic/market-data/AAPL"}), "unknown destination"),
        (encode("SUBSCRIBE", {"destination": "/topic/market-data/A"}), "header id is missing"),
        (
            encode("SUBSCRIBE", {"id": "1", "destination": "/topic/x"}),
            "'/topic/x': unknown destination",
        ),
        (encode("SUBSCRIBE", {"id": "1", "destination": "/topic/market-data/"}), "symbol: expects"),
        (
            encode("SUBSCRIBE", {"id": "1", "destination": "/topic/market-data/" + "A" * 71}),
            "symbol: expects 1 to 70 printable ASCII",
        ),
        (
            encode("SUBSCRIBE", {"id": "1", "destination": "/topic/market-data/" + "A" * 1_000}),
            "header destination takes more than 256 characters",
        ),
        (
            encode("SUBSCRIBE", {"id": "1", "destination": "/topic/market-data/é"}),
            "symbol: expects 1 to 70 printable ASCII",
        ),
        (
            encode("SUBSCRIBE", {"id": "1", "destination": "/topic/bars/AAPL"}),
            "bars: expects /topic/bars/SYMBOL/INTERVAL",
        ),
        (
            encode("SUBSCRIBE", {"id": "1", "destination": "/topic/bars/AAPL/x"}),
            "interval: expects",
        ),
        (encode("CONNECT", {"accept-version": "1.2"}), "already connected"),
        (encode("HELLO"), "no such command"),
        (b"SEND\ndestination:a\\tb\n\n\0", "no escape"),
        (bytes(range(256)) * 4, ""),
        (b"SEND\na:" + b"x" * 16_384, "command and headers take more than 16,384 bytes"),
        (encode("SEND", {"destination": "/x"}, bytes(65_536)), "more than 65,536 bytes"),
    ],
)
async def test_a_mistake_gets_an_error_and_disturbs_no_other_client(source, client, data, message):
    async with stomp(client) as bystander:
        await bystander.follow("/topic/market-data/AAPL")
        await bystander.message()
        async with stomp(client) as peer:
            await peer.send_bytes(data)
            assert message in await peer.error()
        source.trade("AAPL", 1.0, 1)
        assert (await bystander.message())[1]["volume"] == "401"


@pytest.mark.parametrize("offered", ["2.0", "1.3,1.4", "latest"])
async def test_an_unknown_version_is_rejected_with_the_supported_ones(client, offered):
    async with client.ws_connect(PATH) as socket:
        peer = StompPeer(socket)
        answer = await peer.ask("CONNECT", {"accept-version": offered})
        assert (answer.command, answer.headers["version"]) == ("ERROR", "1.0,1.1,1.2")
        assert await peer.closed() == 1002


async def test_a_message_that_is_too_large_gets_an_error_and_a_close(client):
    async with stomp(client) as peer:
        await peer.send("SEND", {"destination": "/app/signal"}, bytes(1 << 20))
        assert await peer.error(1009) == "a message takes more than 131,072 bytes"
    assert (await client.answer("/health"))[0] == 200


async def test_a_request_without_an_upgrade_is_426(client):
    async with client.get(PATH) as response:
        assert response.status == 426
        assert response.headers["Upgrade"] == "websocket"


async def test_pages_of_other_origins_are_rejected(client):
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect(PATH, headers={"Origin": "https://evil.example"})
    assert error.value.status == 403


async def test_a_client_that_never_reads_is_closed_and_delays_no_other(source, monkeypatch):
    monkeypatch.setattr(outbox, "_LINGER_S", WITHIN_S)
    async with (
        gateway_of(source.address, slow_client_s=1) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        await connected(client)
        deaf = stack.enter_context(contextlib.closing(DeafPeer(client, PATH)))
        follow = [
            encode("SUBSCRIBE", {"id": str(number), "destination": "/topic/market-data/AAPL"})
            for number in range(50)
        ]
        await deaf.connect()
        await deaf.say(encode("CONNECT"), *follow)
        async with stomp(client) as brisk:
            await brisk.follow("/topic/market-data/AAPL")
            while await counted(client, "mdtool_sockets_behind_total", PATH) == 0:
                for _ in range(200):
                    source.trade("AAPL", 2.0, 1)
                volume = str(source.sessions["AAPL"].volume)
                async with bounded():
                    while (await brisk.message())[1]["volume"] != volume:
                        pass
        assert await counted(client, "mdtool_socket_conflated_total", PATH) > 0
        heard = await deaf.hear()
        assert heard.endswith(close_frame(4000, "nothing was read for 1 s"))


async def test_bars_are_sent_at_once_and_as_they_change():
    async with aggregator() as running, gateway_of(running.address) as client:
        await running.send(message(0, [tick(100)], ["AAPL"]))
        async with stomp(client) as peer, stomp(client, "1.0") as other:
            expected = {
                "symbol": "AAPL",
                "interval": "1s",
                "timestamp": str(NOON_NS // 10**6),
                **dict.fromkeys(("open", "high", "low", "close"), 1),
                "volume": "1",
                "count": 1,
            }
            for each, topic in ((peer, "AAPL"), (other, "*"), (other, "aapl")):
                await each.follow(f"/topic/bars/{topic}/1s", topic)
                assert await each.message() == ("/topic/bars/AAPL/1s", expected)
            # The bar that ended is sent, too, though another one follows at once.
            await running.send(message(1, [tick(102, 2), tick(103, 3, at_s=1)], ["AAPL"]))
            told = [(await peer.message())[1] for _ in range(2)]
            assert [(bar["close"], bar["volume"]) for bar in told] == [(1.02, "3"), (1.03, "3")]


async def test_upstream_requests_of_many_subscriptions_are_spread():
    settings = {"upstream_requests_per_s": 50, "upstream_burst": 1}
    async with aggregator() as running, gateway_of(running.address, **settings) as client:
        await running.send(message(0, [tick(100), tick(200, symbol=1)], ["AAPL", "MSFT"]))
        async with stomp(client) as peer:
            topics = [
                f"/topic/bars/{name}/{interval}"
                for name in ("AAPL", "MSFT")
                for interval in ("1s", "1m")
            ]
            for topic in topics:
                await peer.follow(topic, topic)
            assert {(await peer.message())[0] for _ in topics} == set(topics)


@pytest.mark.usefixtures("no_refill")
async def test_too_many_upstream_subscriptions_are_rejected_and_leave_nothing_behind(source):
    settings = {"upstream_requests_per_s": 1, "upstream_burst": 1}
    async with gateway_of(source.address, **settings) as client:
        for number in range(15):
            async with stomp(client) as peer:
                await peer.follow(f"/topic/bars/NEW{number}/1m")
                await peer.ask("DISCONNECT", {"receipt": "gone"})
        for _ in range(2):  # the second is as new as the first
            async with stomp(client) as peer:
                headers = {"id": "0", "destination": "/topic/bars/NEW/1m", "receipt": "granted"}
                frame = await peer.ask("SUBSCRIBE", headers)
                assert frame.command == "ERROR"
                assert "rate limit of 1 requests a second exceeded" in frame.headers["message"]


async def test_an_interval_that_is_not_kept_is_rejected_at_once(source):
    async with gateway_of(source.address) as client, stomp(client) as peer:
        headers = {"id": "0", "destination": "/topic/bars/AAPL/7m", "receipt": "granted"}
        frame = await peer.ask("SUBSCRIBE", headers)
        assert frame.command == "ERROR"
        assert "expects 1s, 1m, 5m, 1h or 1d" in frame.headers["message"]
