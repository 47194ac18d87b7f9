"""STOMP over SockJS, transport by transport."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import ClientSession

from mdtool.services.gateway import outbox
from mdtool.services.gateway.protocols import sockjs
from mdtool.wire.stomp import Frame, StompDecoder, encode
from mdtool.wire.websocket import close_frame
from tests.support.browser import chromium
from tests.support.gateways import connected, gateway_of
from tests.support.requirements import node_modules
from tests.support.stomp_peers import DeafPeer, counted
from tests.support.waiting import WITHIN_S, bounded

SESSION = "/ws/000/s1"
CONNECT = encode("CONNECT", {"accept-version": "1.2"}).decode()
FOLLOW = encode("SUBSCRIBE", {"id": "0", "destination": "/topic/market-data/AAPL"}).decode()


@pytest.fixture(autouse=True)
def _patient_sessions(monkeypatch):
    """Keep sessions whose next request is long in coming, as on a busy machine."""
    monkeypatch.setattr(sockjs, "_ABSENCE_S", WITHIN_S)


class Frames:
    """Takes STOMP frames out of SockJS frames."""

    def __init__(self) -> None:
        self._decoder = StompDecoder()

    def of(self, frame: str) -> list[Frame]:
        assert frame.startswith("a"), frame
        for text in json.loads(frame[1:]):
            self._decoder.feed(text.encode())
        return list(iter(self._decoder.next_frame, None))


async def _say(client, *texts: str, session: str = SESSION) -> None:
    async with client.post(f"{session}/xhr_send", data=json.dumps(texts)) as response:
        assert response.status == 204
        assert response.headers["Content-Type"].startswith("text/plain")


async def _poll(client, session: str = SESSION) -> list[str]:
    """The frames of one poll."""
    async with client.post(f"{session}/xhr") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].lower() == "application/javascript; charset=utf-8"
        assert "no-store" in response.headers["Cache-Control"]
        return (await response.text()).splitlines()


async def test_a_client_learns_which_transports_there_are(client):
    async with client.get("/ws") as response:
        assert await response.text() == "Welcome to SockJS!\n"
    first, second = [(await client.answer("/ws/info"))[1] for _ in range(2)]
    assert first["websocket"] is True
    assert first["cookie_needed"] is False
    assert first["origins"] == ["*:*"]
    assert first["entropy"] != second["entropy"]


async def test_websocket(source, client):
    async with client.ws_connect(f"{SESSION}/websocket") as socket:
        frames = Frames()
        assert await socket.receive_str() == "o"
        await socket.send_str("")
        await socket.send_str(json.dumps([CONNECT, FOLLOW]))
        (frame,) = frames.of(await socket.receive_str())
        assert frame.command == "CONNECTED"
        (frame,) = frames.of(await socket.receive_str())
        assert json.loads(frame.body)["volume"] == "400"
        source.trade("AAPL", 187.5, 1)
        (frame,) = frames.of(await socket.receive_str())
        assert json.loads(frame.body)["volume"] == "401"
        await socket.send_str(json.dumps(encode("DISCONNECT").decode()))
        assert await socket.receive_str() == 'c[1000,"disconnected"]'
        assert (await socket.receive()).data == 1000


async def test_two_websockets_may_have_one_session_id(client):
    async with (
        client.ws_connect(f"{SESSION}/websocket") as first,
        client.ws_connect(f"{SESSION}/websocket") as second,
    ):
        assert await first.receive_str() == await second.receive_str() == "o"


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '["a', "nonsense"])
async def test_an_invalid_websocket_message_ends_the_session(client, text):
    async with client.ws_connect(f"{SESSION}/websocket") as socket:
        await socket.send_str(text)
        assert await socket.receive_str() == "o"
        assert await socket.receive_str() == 'c[1008,"Broken JSON encoding."]'
        assert (await socket.receive()).data == 1008


async def test_an_error_ends_the_session_with_its_text(client):
    async with client.ws_connect(f"{SESSION}/websocket") as socket:
        frames = Frames()
        await socket.send_str(json.dumps([CONNECT, encode("HELLO").decode()]))
        assert await socket.receive_str() == "o"
        commands = [frames.of(await socket.receive_str())[0].command for _ in range(2)]
        assert commands == ["CONNECTED", "ERROR"]
        assert (await socket.receive_str()).startswith('c[1002,"HELLO: ')


async def test_polling(source, client):
    frames = Frames()
    assert await _poll(client) == ["o"]
    await _say(client, CONNECT)
    (answer,) = await _poll(client)
    assert frames.of(answer)[0].command == "CONNECTED"
    await _say(client, FOLLOW)
    (answer,) = await _poll(client)
    (frame,) = frames.of(answer)
    assert json.loads(frame.body)["volume"] == "400"
    waiting = asyncio.create_task(_poll(client))
    source.trade("AAPL", 187.5, 1)
    (frame,) = frames.of((await waiting)[0])
    assert json.loads(frame.body)["volume"] == "401"
    await _say(client, encode("DISCONNECT", {"receipt": "bye"}).decode())
    assert [frame.command for frame in frames.of((await _poll(client))[0])] == ["RECEIPT"]
    # Each further poll gets the end of the session again.
    for _ in range(2):
        assert await _poll(client) == ['c[1000,"disconnected"]']


async def test_between_polls_only_the_latest_state_is_kept(source, client):
    frames = Frames()
    assert await _poll(client) == ["o"]
    await _say(client, CONNECT, FOLLOW)
    await _poll(client)
    async with client.ws_connect("/ws/marketdata?symbol=AAPL") as brisk:
        for _ in range(50):
            source.trade("AAPL", 187.5, 1)
        async with bounded():
            while (await brisk.receive_json())["volume"] < 450:
                pass
    (answer,) = await _poll(client)
    (frame,) = frames.of(answer)
    assert json.loads(frame.body)["volume"] == "450"


@pytest.mark.parametrize(
    ("method", "path", "prelude", "before", "after"),
    [
        ("POST", "xhr_streaming", b"h" * 2_048 + b"\n", b"", b"\n"),
        ("GET", "eventsource", b"\r\n", b"data: ", b"\r\n\r\n"),
    ],
)
async def test_streaming(source, client, method, path, prelude, before, after):
    frames = Frames()
    async with client.request(method, f"{SESSION}/{path}") as response:
        stream = response.content
        assert await stream.readexactly(len(prelude)) == prelude

        async def told() -> str:
            chunk = await stream.readuntil(after)
            assert chunk.startswith(before)
            return chunk[len(before) : -len(after)].decode()

        assert await told() == "o"
        await _say(client, CONNECT, FOLLOW)
        assert frames.of(await told())[0].command == "CONNECTED"
        volumes = [json.loads(frames.of(await told())[0].body)["volume"]]
        for _ in range(3):
            source.trade("AAPL", 187.5, 1)
            volumes.append(json.loads(frames.of(await told())[0].body)["volume"])
        assert volumes == ["400", "401", "402", "403"]
        await _say(client, encode("DISCONNECT").decode())
        assert await told() == 'c[1000,"disconnected"]'
        assert await stream.read() == b""


async def test_a_streamed_response_ends_before_a_browser_has_too_much_of_it(source, client):
    symbols = [f"S{number}" for number in range(500)]
    for symbol in symbols:
        source.trade(symbol, 1.0, 1)
    async with client.post(f"{SESSION}/xhr_streaming") as response:
        follow = encode("SUBSCRIBE", {"id": "0", "destination": "/topic/market-data/*"})
        await response.content.readuntil(b"o\n")
        await _say(client, CONNECT, follow.decode())
        received = 0
        while data := await response.content.read(1 << 16):
            received += len(data)
            source.trade(symbols[received % 500], 1.0, 1)
            source.trade(symbols[received % 499], 1.0, 1)
        assert 128 * 1024 <= received < 512 * 1024
    source.trade("S1", 2.0, 1)  # the session goes on
    async with client.post(f"{SESSION}/xhr_streaming") as response:
        await response.content.readuntil(b"a")
        await _say(client, encode("DISCONNECT").decode())
        assert (await response.text()).endswith('c[1000,"disconnected"]\n')


async def test_a_second_request_while_one_waits_is_rejected(client):
    async with client.post(f"{SESSION}/xhr_streaming") as response:
        await response.content.readuntil(b"o\n")
        assert await _poll(client) == ['c[2010,"Another connection still open"]']
        await _say(client, CONNECT)
        assert (await response.content.readline()).startswith(b'a["CONNECTED')


async def test_a_message_to_an_unknown_session_is_404(client):
    async with client.post(f"{SESSION}/xhr_send", data='["x"]') as response:
        assert response.status == 404


@pytest.mark.parametrize("payload", ["", "[", "{}", "[1]", '["a'])
async def test_an_invalid_message_is_400(client, payload):
    await _poll(client)
    async with client.post(f"{SESSION}/xhr_send", data=payload) as response:
        assert response.status == 400
        message = (await response.json())["message"]
        assert message in {"Payload expected.", "Broken JSON encoding."}


async def test_an_invalid_content_encoding_is_400(client):
    await _poll(client)
    headers = {"Content-Encoding": "gzip"}
    async with client.post(f"{SESSION}/xhr_send", data='["x"]', headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"] == "bad_body"


async def test_a_message_that_is_too_long_is_413(client):
    await _poll(client)
    async with client.post(f"{SESSION}/xhr_send", data="x" * 500_000) as response:
        assert response.status == 413
        assert (await response.json())["error"] == "too_large"


async def test_unknown_transports_and_invalid_sessions_are_404(client):
    for path in (f"{SESSION}/jsonp", f"/ws/000/{'s' * 65}/eventsource"):
        async with client.get(path) as response:
            assert response.status == 404


async def test_pages_of_other_origins_are_rejected(client):
    headers = {"Origin": "https://evil.example"}
    async with client.post(f"{SESSION}/xhr", headers=headers) as response:
        assert response.status == 403


async def test_pages_of_allowed_origins_may_send_their_cookies(source):
    origin = "https://charts.example"
    async with (
        gateway_of(source.address, allowed_origins=origin) as client,
        client.post(f"{SESSION}/xhr", headers={"Origin": origin}) as response,
    ):
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert response.headers["Access-Control-Allow-Credentials"] == "true"


async def test_the_session_of_a_client_without_requests_expires(client, monkeypatch):
    monkeypatch.setattr(sockjs, "_ABSENCE_S", 0.05)
    assert await _poll(client) == ["o"]
    async with bounded():
        while (await client.answer("/health"))[1]["sockets"]:
            pass
    assert await _poll(client) == ["o"]


async def test_a_client_that_leaves_while_it_waits_is_noticed(client, monkeypatch):
    monkeypatch.setattr(sockjs, "_ABSENCE_S", 0.05)
    monkeypatch.setattr(sockjs, "_POLL_S", 0.05)
    async with client.post(f"{SESSION}/xhr_streaming") as response:
        await response.content.readuntil(b"o\n")
        response.close()
    async with bounded():
        while (await client.answer("/health"))[1]["sockets"]:
            pass


async def test_a_client_that_waits_gets_heart_beats(client, monkeypatch):
    monkeypatch.setattr(sockjs, "_BEAT_S", 0.05)
    monkeypatch.setattr(sockjs, "_POLL_S", 0.05)
    async with client.post(f"{SESSION}/xhr_streaming") as response:
        await response.content.readuntil(b"o\n")
        assert [await response.content.readline() for _ in range(3)] == [b"h\n"] * 3


async def test_a_client_that_stops_polling_is_closed(client, source):
    """What waits for it is bounded; beyond that the session ends."""
    await _poll(client)
    await _say(client, CONNECT)
    await _poll(client)
    listen = encode("SUBSCRIBE", {"id": "0", "destination": "/topic/signaling"}).decode()
    await _say(client, listen)
    for _ in range(10):
        join = encode("BEGIN", {"transaction": "t", "receipt": "r"}).decode()
        abort = encode("ABORT", {"transaction": "t", "receipt": "r"}).decode()
        await _say(client, *[join, abort] * 20)
    assert await _poll(client) == ['c[4000,"too many messages wait to be read"]']


async def test_a_websocket_client_that_never_reads_gets_the_reason_in_sockjs(source, monkeypatch):
    monkeypatch.setattr(outbox, "_LINGER_S", WITHIN_S)
    async with (
        gateway_of(source.address, slow_client_s=1) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        await connected(client)
        path = f"{SESSION}/websocket"
        deaf = stack.enter_context(contextlib.closing(DeafPeer(client, path)))
        await deaf.connect()
        await deaf.say(json.dumps([encode("CONNECT").decode()]).encode())
        for number in range(50):
            headers = {"id": str(number), "destination": "/topic/market-data/*"}
            follow = json.dumps([encode("SUBSCRIBE", headers).decode()])
            await deaf.say(follow.encode())
        while await counted(client, "mdtool_sockets_behind_total", "/ws") == 0:
            for number in range(200):
                source.trade(f"S{number}", 2.0, 1)
        heard = await deaf.hear()
        reason = "nothing was read for 1 s"
        assert heard.endswith(b'c[4000,"%s"]' % reason.encode() + close_frame(4000, reason))


async def test_clients_of_all_transports_get_a_code_when_the_gateway_stops(source):
    async with ClientSession() as session:
        async with gateway_of(source.address) as client:
            url = f"http://{client.host}:{client.port}{SESSION}"
            streaming = await session.post(f"{url}/xhr_streaming")
            await streaming.content.readuntil(b"o\n")
            socket = await session.ws_connect(f"{url}x/websocket")
            assert await socket.receive_str() == "o"
            told = asyncio.create_task(socket.receive_str())
        assert await told == 'c[1001,"the gateway stops"]'
        assert await streaming.content.read() == b'c[1001,"the gateway stops"]\n'


async def test_a_websocket_message_that_is_too_large_gets_an_error(client):
    async with client.ws_connect(f"{SESSION}/websocket") as socket:
        frames = Frames()
        await socket.send_str(json.dumps([CONNECT]))
        await socket.send_str(json.dumps(["x" * (1 << 20)]))
        assert await socket.receive_str() == "o"
        told = [frames.of(await socket.receive_str())[0] for _ in range(2)]
        assert [frame.command for frame in told] == ["CONNECTED", "ERROR"]
        assert told[1].headers["message"] == "a message takes more than 393,216 bytes"
        assert (await socket.receive_str()).startswith('c[1002,"a message')
        assert (await socket.receive()).data == 1009


async def test_the_greeting_is_at_the_path_with_a_slash_too(client):
    async with client.get("/ws/") as response:
        assert (response.status, await response.text()) == (200, "Welcome to SockJS!\n")


async def test_load_balancers_get_a_cookie_where_it_is_configured(source):
    async with gateway_of(source.address, sockjs_cookie=True) as client:
        _, info = await client.answer("/ws/info")
        assert info["cookie_needed"] is True
        async with client.post(f"{SESSION}/xhr") as response:
            assert response.cookies["JSESSIONID"].OutputString() == "JSESSIONID=dummy; Path=/"
        headers = {"Cookie": "JSESSIONID=gateway-2"}
        async with client.post(f"{SESSION}/xhr_send", data='["x"]', headers=headers) as response:
            assert response.cookies["JSESSIONID"].value == "gateway-2"


@pytest.mark.parametrize("name", ["iframe.html", "iframe-1.6.1.html", "iframe.html?t=7"])
async def test_the_frame_of_other_origins_has_no_script_of_its_own(source, name):
    async with (
        gateway_of(source.address, allowed_origins="https://charts.example") as client,
        client.get(f"/ws/{name}") as response,
    ):
        policy = response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'self' https://charts.example" in policy
        assert "unsafe-inline" not in policy
        assert 'src="static/sockjs-iframe.js"></script>' in await response.text()


async def test_a_page_of_another_origin_follows_a_topic_through_the_frame(source):
    files = str(node_modules())
    async with gateway_of(source.address) as page, chromium() as tab:
        origin = f"http://{page.host}:{page.port}"
        settings = {"assets": files, "allowed_origins": origin}
        async with gateway_of(source.address, **settings) as client:
            await connected(client)
            gateway = f"http://{client.host}:{client.port}"
            await tab.open(f"{origin}/livez")
            await tab.run(
                f"fetch('{gateway}/assets/sockjs-client/dist/sockjs.min.js')"
                ".then((response) => response.text()).then((script) => (0, eval)(script))"
            )
            opened = await tab.run(
                f"""new Promise((resolve) => {{
                    const socket = new SockJS('{gateway}/ws', null, {{
                        transports: ['iframe-eventsource'],
                    }});
                    socket.onopen = () => resolve(socket.transport);
                    socket.onclose = ({{ reason }}) => resolve(reason);
                }})"""
            )
    assert opened == "iframe-eventsource"
