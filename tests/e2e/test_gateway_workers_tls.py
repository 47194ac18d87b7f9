"""A gateway of several processes with TLS: connections that one accepts, and another serves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession, TCPConnector

from mdtool.core.addresses import parse_address
from mdtool.core.errors import StartupError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.wire.stomp import Frame, StompDecoder, encode
from tests.reference.market_source import MarketSource
from tests.support.certificates import DAY, Certificates
from tests.support.services import logged, running
from tests.support.supervised import Supervised
from tests.support.tokens import ROLES, Keys
from tests.support.waiting import bounded

MANY = 30
"""Sessions, of which each worker has some; that one has none, once in 500 million runs."""
CHILDREN = "mdtool.services.supervisor.child"
BUSY = "c[2010,"
"""Where another response of the session is being written."""
CONNECT = encode("CONNECT", {"accept-version": "1.2"})


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        source.trade("MSFT", 410.5, 7)
        yield source


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "tls")


def settings_of(certificates, monkeypatch, tmp_path, **more):
    """Settings of a gateway with TLS in front of services without it."""
    path = tmp_path / "mdtool.toml"
    path.write_text(tls_table(certificates, **more))
    monkeypatch.setenv("MDTOOL_CONFIG", str(path))


def tls_table(certificates, **more):
    settings = {"cert": certificates["server.pem"], "key": certificates["server.key"], **more}
    return "[tls.gateway]\n" + "".join(f"{key} = {value!r}\n" for key, value in settings.items())


@contextlib.asynccontextmanager
async def workers_of(source, context, **options):
    """A client of a gateway of two workers, by default with a connection for each request."""
    config = GatewayConfig(aggregator=source.address, port=0, workers=2, timeout_ms=60_000)
    options = options or {"force_close": True}
    async with bounded(), running(Gateway(config)) as (addresses, _):
        port = parse_address(addresses["http"])[1]
        every = TCPConnector(ssl=context, force_close=True)
        async with (
            ClientSession(f"https://localhost:{port}", connector=every) as first,
            open_sockets(first, MANY),  # each worker has the aggregator's state
        ):
            pass
        connector = TCPConnector(ssl=context, **options)
        async with ClientSession(f"https://localhost:{port}", connector=connector) as client:
            yield client


@contextlib.asynccontextmanager
async def open_sockets(client: ClientSession, count: int):
    """Sockets that have their first message."""
    async with contextlib.AsyncExitStack() as stack:
        connected = (client.ws_connect("/ws/marketdata?symbol=AAPL") for _ in range(count))
        sockets = [await stack.enter_async_context(each) for each in connected]
        for each in sockets:
            await each.receive_json()
        yield


class Session:
    """A session of SockJS whose frames come by streamed responses."""

    def __init__(self, client: ClientSession, name: str) -> None:
        self.path = f"/ws/000/{name}"
        self._client = client
        self._decoder = StompDecoder()
        self._lines: asyncio.Queue[str] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def streaming(self):
        async with self._client.post(f"{self.path}/xhr_streaming") as response:
            assert response.status == 200
            self._content = response.content
            assert await self.line() == "h" * 2_048
            yield self

    async def line(self) -> str:
        """The next line, empty at the end of the response."""
        return (await self._content.readline()).decode().rstrip("\n")

    async def say(self, *frames: bytes) -> None:
        body = json.dumps([frame.decode() for frame in frames])
        async with self._client.post(f"{self.path}/xhr_send", data=body) as response:
            assert response.status == 204, await response.text()

    async def frame(self) -> Frame:
        while (frame := self._decoder.next_frame()) is None:
            line = await self.line()
            assert line.startswith("a"), line
            for text in json.loads(line[1:]):
                self._decoder.feed(text.encode())
        return frame

    async def connect(self) -> None:
        assert await self.line() == "o"
        await self.say(CONNECT)
        assert (await self.frame()).command == "CONNECTED"

    async def follow(self, symbol: str) -> None:
        headers = {"id": symbol, "destination": f"/topic/market-data/{symbol}"}
        await self.say(encode("SUBSCRIBE", headers))


async def test_every_protocol_is_served_whichever_worker_gets_a_request(
    source, certificates, monkeypatch, tmp_path
):
    settings_of(certificates, monkeypatch, tmp_path)
    async with workers_of(source, certificates.context()) as client, bounded():
        async with contextlib.AsyncExitStack() as stack:
            sockets = [
                await stack.enter_async_context(client.ws_connect("/ws/marketdata?symbol=AAPL"))
                for _ in range(MANY)
            ]
            for each in sockets:
                assert (await each.receive_json())["volume"] == 400
            for _ in range(MANY):
                async with client.get("/api/v1/marketdata/AAPL") as response:
                    assert (await response.json())["volume"] == "400"
            sessions = [Session(client, f"session{number}") for number in range(MANY)]
            for session in sessions:
                await stack.enter_async_context(session.streaming())
                await session.connect()
                await session.follow("AAPL")
                assert json.loads((await session.frame()).body)["volume"] == "400"
            source.trade("AAPL", 187.5, 1)
            for each in sockets:
                assert (await each.receive_json())["volume"] == 401
            for session in sessions:
                assert json.loads((await session.frame()).body)["volume"] == "401"
            async with client.get("/health") as response:
                assert (await response.json())["sockets"] == 2 * MANY
        for session in sessions[:8]:  # their clients have left, which their workers notice
            line = BUSY
            while line.startswith(BUSY):
                async with session.streaming():
                    source.trade("AAPL", 187.5, 1)
                    line = await session.line()


async def test_a_connection_goes_from_worker_to_worker(source, certificates, monkeypatch, tmp_path):
    settings_of(certificates, monkeypatch, tmp_path)
    async with workers_of(source, certificates.context(), limit=1) as client:
        for number in range(MANY):
            path = f"/ws/000/{number}"
            async with client.post(f"{path}/xhr") as response:
                assert await response.text() == "o\n"
            body = json.dumps([CONNECT.decode()])
            async with client.post(f"{path}/xhr_send", data=body) as response:
                assert response.status == 204
            async with client.get("/api/v1/marketdata/AAPL") as response:
                assert (await response.json())["volume"] == "400"
        async with client.ws_connect("/ws/marketdata?symbol=AAPL") as following:
            assert (await following.receive_json())["volume"] == 400


async def test_a_clients_certificate_is_its_identity_at_the_other_worker(
    source, certificates, monkeypatch, tmp_path
):
    monkeypatch.setitem(ROLES, "some", {**ROLES["some"], "certificates": ["desk-*"]})
    certificates.issue("other", ["other.example"])
    keys = Keys(tmp_path)
    keys.configure(monkeypatch)
    keys.add_settings(tls_table(certificates, **{"client-ca": certificates["ca.pem"]}))
    keys.add_settings(f"[audit]\nfile = {str(tmp_path / 'audit.jsonl')!r}\n")
    async with workers_of(source, certificates.context("client"), limit=2) as client:
        for number in range(MANY):
            async with Session(client, f"session{number}").streaming() as session:
                await session.connect()
                await session.follow("MSFT")
                await session.follow("AAPL")
                frame = await session.frame()  # what it may not read is silent
                assert frame.headers["destination"].endswith("/AAPL")
            async with client.get("/api/v2/aggregates/MSFT") as response:
                assert response.status == 404
        noted = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        assert {entry["principal"] for entry in noted} == {"cert:desk-7"}
        assert {entry["address"] for entry in noted} == {"127.0.0.1"}
        connector = TCPConnector(ssl=certificates.context("other"))
        async with ClientSession(client._base_url, connector=connector) as other:
            for number in range(MANY):
                async with Session(other, f"other{number}").streaming() as session:
                    assert await session.line() == "o"
                    await session.say(CONNECT)
                    frame = await session.frame()
                    assert frame.command == "ERROR"
                    assert "token: missing" in frame.headers["message"]
        nobody = TCPConnector(ssl=certificates.context())
        async with ClientSession(client._base_url, connector=nobody) as session:
            with pytest.raises(ClientError):
                await session.get("/livez")


async def test_a_worker_that_is_killed_ends_what_it_relays_and_serves_and_no_more(
    source, certificates, monkeypatch, tmp_path
):
    settings_of(certificates, monkeypatch, tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        log = stack.enter_context(logged(CHILDREN))
        client = await stack.enter_async_context(workers_of(source, certificates.context()))
        sessions = [Session(client, f"session{number}") for number in range(MANY)]
        for session in sessions:
            await stack.enter_async_context(session.streaming())
            await session.connect()
            await session.follow("AAPL")
            await session.frame()
        started = (re.fullmatch(r"gateway 1: started as process (\d+)", at) for at in log.lines)
        (process,) = (int(found[1]) for found in started if found)
        os.kill(process, signal.SIGKILL)
        await log.heard("gateway 1 was killed by SIGKILL")
        source.trade("AAPL", 187.5, 1)
        served = 0
        for session in sessions:
            with contextlib.suppress(ClientPayloadError, AssertionError):
                assert json.loads((await session.frame()).body)["volume"] == "401"
                served += 1
        assert 0 < served < MANY
        await log.heard("gateway 1: running again")
        for number in range(MANY):
            async with Session(client, f"again{number}").streaming() as session:
                await session.connect()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_sessions_of_a_gateway_that_stops_are_told_so(
    source, certificates, monkeypatch, tmp_path, scheme
):
    if scheme == "https":
        settings_of(certificates, monkeypatch, tmp_path)
    async with contextlib.AsyncExitStack() as stack, bounded():
        config = GatewayConfig(aggregator=source.address, port=0, workers=2)
        sessions = []
        async with running(Gateway(config)) as (addresses, _):
            port = parse_address(addresses["http"])[1]
            connector = TCPConnector(ssl=certificates.context(), force_close=True)
            url = f"{scheme}://localhost:{port}"
            client = await stack.enter_async_context(ClientSession(url, connector=connector))
            for number in range(MANY):
                session = Session(client, f"session{number}")
                sessions.append(await stack.enter_async_context(session.streaming()))
                await session.connect()
        for session in sessions:
            assert (await session.line()).startswith("c[1001,")
            assert await session.line() == ""


async def test_a_new_certificate_is_used_by_every_worker(
    source, certificates, monkeypatch, tmp_path
):
    settings_of(certificates, monkeypatch, tmp_path)

    def serial() -> bytes:
        return ssl.get_server_certificate(parse_address(address))

    config = GatewayConfig(aggregator=source.address, port=0, workers=2)
    async with bounded(), running(Gateway(config)) as (addresses, _):
        address = addresses["http"]
        before = await asyncio.to_thread(serial)
        connector = TCPConnector(ssl=certificates.context())
        async with (
            ClientSession(f"https://{address}", connector=connector) as client,
            Session(client, "session").streaming() as session,
        ):
            await session.connect()
            certificates.issue("server")
            after = {await asyncio.to_thread(serial) for _ in range(MANY)}
            assert len(after) == 1
            assert before not in after
            await session.follow("AAPL")
            assert json.loads((await session.frame()).body)["volume"] == "400"


async def test_a_certificate_that_is_of_no_use_is_one_line(
    source, certificates, monkeypatch, tmp_path
):
    certificates.issue("server", valid=-DAY)
    settings_of(certificates, monkeypatch, tmp_path)
    config = GatewayConfig(aggregator=source.address, port=0, workers=2)
    with pytest.raises(StartupError, match=r"cert .*server.pem: certificate has expired; renew it"):
        async with running(Gateway(config)):
            pass


def test_a_hangup_reaches_every_worker_and_plain_clients_are_named(
    certificates, monkeypatch, tmp_path
):
    settings_of(certificates, monkeypatch, tmp_path)
    gateway = Supervised("gateway", "--port", "0", "--workers", "2", "--aggregator", "127.0.0.1:1")
    with contextlib.closing(gateway):
        port = int(gateway.heard(r"^[\d:]+ INFO +gateway: ready.*:(\d+)")[1])
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            certificates.context().wrap_socket(
                socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
            ) as client,
        ):
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")
            assert plain.recv(1) == b""
            gateway.heard("rejected 127.0.0.1:.*: the peer does not speak TLS; clients .* need TLS")
            gateway.process.send_signal(signal.SIGHUP)
            workers = {gateway.heard(r"(gateway \d).*\[tls\] cert .*: read again")[1]}
            workers.add(gateway.heard(r"(gateway \d).*\[tls\] cert .*: read again")[1])
            assert workers == {"gateway 0", "gateway 1"}
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        for _ in range(MANY):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")
                assert plain.recv(1) == b""
        assert gateway.end(signal.SIGTERM) == 0
    said = "".join(gateway.lines)
    assert said.count("the peer does not speak TLS") <= 2  # of each worker
    assert "Traceback" not in said
