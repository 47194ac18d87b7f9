"""nginx and HAProxy in front, by the configurations of deploy/proxies: TLS ends there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from pathlib import Path

import grpc
import grpc.aio
import pytest
from aiohttp import ClientSession, TCPConnector

from mdtool.adapters import rpc
from mdtool.wire._pb import marketdata_pb2
from tests.support.aggregators import aggregator, message, tick
from tests.support.certificates import Certificates
from tests.support.gateways import gateway_of
from tests.support.processes import ChildProcess
from tests.support.proxies import free_port, proxy
from tests.support.requirements import needs
from tests.support.tokens import Keys
from tests.support.waiting import bounded, wait_until


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    made = Certificates(tmp_path_factory.mktemp("tls"))
    both = Path(made["server.pem"]).read_text() + Path(made["server.key"]).read_text()
    Path(made["mdtool.pem"]).write_text(both)
    return made


class Proxied:
    """Services behind a proxy, and clients of it."""

    def __init__(self, port, certificates, keys, market) -> None:
        self.port = port
        self.keys = keys
        self.market = market
        self._certificates = certificates
        self.context = certificates.context()

    def bearer(self, role):
        return {"Authorization": f"Bearer {self.keys[role]}"}

    def http(self):
        connector = TCPConnector(ssl=self.context)
        return ClientSession(f"https://localhost:{self.port}", connector=connector)

    def grpc(self):
        trusted = Path(self._certificates["ca.pem"]).read_bytes()
        credentials = grpc.ssl_channel_credentials(trusted)
        return grpc.aio.secure_channel(f"localhost:{self.port}", credentials)

    async def ready(self):
        """Wait until the gateway behind the proxy knows the market."""
        async with self.http() as http:
            for symbol in ("AAPL", "MSFT"):
                path, status = f"/api/v2/aggregates/{symbol}", 0
                while status != 200:
                    async with http.get(path, headers=self.bearer("all")) as response:
                        status = response.status

    def answers(self):
        """Whether the proxy accepts connections."""
        probe = ["openssl", "s_client", "-connect", f"localhost:{self.port}"]
        done = subprocess.run(probe, input=b"", capture_output=True, timeout=60, check=False)
        return b"BEGIN CERTIFICATE" in done.stdout


@pytest.fixture(params=["nginx", "haproxy"])
async def proxied(request, certificates, tmp_path, monkeypatch):
    """A gateway and an aggregator that require tokens, behind a proxy."""
    needs(request.param)
    keys = Keys(tmp_path)
    keys.configure(monkeypatch)
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", "of-this-run")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(bounded())
        running = await stack.enter_async_context(aggregator())
        await running.send(message(0, [tick(100, 1), tick(200, 3, symbol=1)], ["AAPL", "MSFT"]))
        gateway = await stack.enter_async_context(gateway_of(running.address, proxies=1))
        port = free_port(stack)
        replaced = {
            "127.0.0.1:8080": f"{gateway.host}:{gateway.port}",
            "127.0.0.1:50051": running.address,
            "/etc/ssl/mdtool": str(certificates.folder),
        }
        if request.param == "nginx":
            example, replaced["listen 443"] = "nginx.conf", f"listen 127.0.0.1:{port}"
        else:
            example, replaced["bind :443"] = "haproxy.cfg", f"bind 127.0.0.1:{port}"
            for unused in (":50050", ":8888"):
                replaced[f"bind {unused} "] = f"bind 127.0.0.1:{free_port(stack)} "
        process = stack.enter_context(
            ChildProcess(proxy(example, tmp_path, replaced), stderr=subprocess.PIPE)
        )
        stack.callback(process.terminate)
        found = Proxied(port, certificates, keys, running)
        await asyncio.to_thread(wait_until, found.answers)
        await found.ready()
        yield found


async def test_requests_and_sockets_come_through_with_their_tokens(proxied):
    async with proxied.http() as http:
        path = "/api/v2/aggregates/AAPL"
        async with http.get(path, headers=proxied.bearer("some")) as response:
            assert response.status == 200
        async with http.get("/api/v2/aggregates/MSFT", headers=proxied.bearer("some")) as response:
            assert response.status == 404
        async with http.get(path) as response:
            assert response.status == 401
        origin = {"Origin": f"https://localhost:{proxied.port}"}
        async with http.ws_connect("/stream", headers=origin) as socket:
            await socket.send_json({"op": "auth", "token": proxied.keys["some"]})
            subscription = {"op": "subscribe", "id": 1, "channel": "aggregates", "symbols": ["*"]}
            await socket.send_json(subscription)
            seen = []
            while not seen or seen[-1].get("symbol") != "NEW":
                if len(seen) == 1:
                    await proxied.market.send(message(2, [tick(300, 1)], ["NEW"]))
                seen.append(json.loads((await socket.receive()).data))
            assert {each["symbol"] for each in seen if "symbol" in each} == {"AAPL", "NEW"}
        async with http.post("/api/v2/tickets", headers=proxied.bearer("some")) as response:
            ticket = (await response.json())["data"]["ticket"]
        async with http.ws_connect(f"/ws/marketdata?symbol=AAPL&ticket={ticket}") as socket:
            assert json.loads((await socket.receive()).data)["symbol"] == "AAPL"


async def test_grpc_comes_through_with_its_token(proxied, monkeypatch):
    monkeypatch.delenv("MDTOOL_AUTH_SERVICES_SECRET")  # the client is no service
    async with proxied.grpc() as channel:
        stub = rpc.Stub(channel)
        metadata = [("authorization", f"Bearer {proxied.keys['some']}")]
        updates = stub.StreamAggregates(marketdata_pb2.AggregateRequest(), metadata=metadata)
        assert (await updates.read()).symbol == "AAPL"
        await proxied.market.send(message(2, [tick(300, 1)], ["NEW"]))
        assert (await updates.read()).symbol == "NEW"
        updates.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetAggregate(marketdata_pb2.AggregateRequest(symbol="AAPL"))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


HIDDEN = (
    "GET /api/v2/aggregates/MSFT HTTP/1.1\r\nHost: localhost\r\n"
    "Authorization: Bearer {token}\r\n\r\n"
)
SMUGGLED = {
    "a length beside chunks": "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n"
    "0\r\n\r\n{hidden}",
    "two lengths": "Content-Length: 5\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}",
    "a coding that is hidden": "Content-Length: {length}\r\nTransfer-Encoding : chunked\r\n\r\n"
    "0\r\n\r\n{hidden}",
    "another coding": "Transfer-Encoding: xchunked\r\nContent-Length: {length}\r\n\r\n"
    "0\r\n\r\n{hidden}",
    "a chunk's size that overflows": "Transfer-Encoding: chunked\r\n\r\n"
    "10000000000000000\r\n\r\n0\r\n\r\n{hidden}",
    "a line feed in a header": "X-A: b\nTransfer-Encoding: chunked\r\nContent-Length: {length}"
    "\r\n\r\n0\r\n\r\n{hidden}",
}


@pytest.mark.parametrize("attack", SMUGGLED)
async def test_no_request_is_smuggled_past_a_proxy(proxied, attack):
    """Whatever is taken for the end of a request, no other client gets the answer of the rest."""
    hidden = HIDDEN.format(token=proxied.keys["all"])
    rest = SMUGGLED[attack].format(length=len(hidden) + 5, hidden=hidden)
    reader, writer = await asyncio.open_connection("localhost", proxied.port, ssl=proxied.context)
    start = f"POST /graphql HTTP/1.1\r\nHost: localhost:{proxied.port}\r\n"
    writer.write(f"{start}{rest}".encode())
    async with proxied.http() as http:
        for _ in range(4):
            path = "/api/v2/aggregates/AAPL"
            async with http.get(path, headers=proxied.bearer("some")) as response:
                assert response.status == 200
                assert (await response.json())["data"]["symbol"] == "AAPL"
    assert (await reader.readline()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 401", b"HTTP/1.1 501"))
    writer.close()
