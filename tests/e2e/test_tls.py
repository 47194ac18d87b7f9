"""TLS on every listener, to mdtool's own clients and to others."""

import asyncio
import contextlib
import json
import logging
import ssl
import subprocess
import sys

import aiohttp
import grpc
import pytest

from mdtool.adapters import rpc
from mdtool.adapters.dbn_tcp import connect_source
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError, StartupError
from mdtool.core.tcp import listen
from mdtool.core.tls import ServerTls, TlsConfig, peer_certificate
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.services.supervisor.check import Route, check
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.frames import END_FRAME, Ack
from tests.e2e.ingest.test_send import runs, sender_to
from tests.support.book_services import receiver_of, sender_of
from tests.support.certificates import DAY, Certificates
from tests.support.ingest_servers import Client, frame, serving
from tests.support.recordings import record
from tests.support.services import logged, running
from tests.support.vwap_feeds import vwap_feed
from tests.support.waiting import bounded

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def certificates(shared, monkeypatch):
    """Certificates that services and clients of the test use."""
    shared.use(monkeypatch)
    return shared


@pytest.fixture(autouse=True)
async def no_client_stays_open():
    yield
    await Client.close_all()


@contextlib.asynccontextmanager
async def stack():
    """An aggregator, and the services in front of and behind it: their addresses."""
    async with contextlib.AsyncExitStack() as services:
        start = services.enter_async_context
        aggregator = (await start(running(Aggregator(AggregatorConfig(port=0))))).addresses["grpc"]
        tcp = await start(serving(aggregator))
        feed = await start(running(VwapFeed(VwapConfig(port=0, aggregator=aggregator))))
        vwap = feed.addresses["tcp"]
        config = GatewayConfig(port=0, aggregator=aggregator, vwap=vwap, timeout_ms=60_000)
        gateway = await start(running(Gateway(config)))
        yield Route(tcp, aggregator, gateway.addresses["http"], vwap)


async def connect(address, context, hello=None):
    """A client of the ingest server that is not mdtool's."""
    host, port = parse_address(address)
    return Client(*await asyncio.open_connection(host, port, ssl=context))


async def test_services_speak_it_to_each_other(certificates):
    async with bounded(), stack() as route:
        hops = await check(route, 2)
        assert len(hops) >= 4
        sender = sender_to(parse_address(route.serve_tcp), runs(5_000))
        await sender.run(lambda _: None)
        assert sender.ack == Ack(True, sender.ack.message)
        assert "Accepted 5000 ticks, refused 0" in sender.ack.message
        async with aiohttp.ClientSession() as session:
            socket = f"wss://{route.gateway}/ws/marketdata?symbol=AAPL"
            async with session.ws_connect(socket, ssl=certificates.context()) as following:
                while (await following.receive_json())["volume"] != 5_000:
                    pass
            url = f"https://{route.gateway}/api/v1/marketdata/AAPL"
            async with session.get(url, ssl=certificates.context()) as answer:
                assert (await answer.json())["volume"] == "5000"
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://{route.gateway}/livez")


async def test_services_require_a_certificate_of_each_other(shared, monkeypatch):
    shared.use(monkeypatch, client_ca=shared["ca.pem"])
    async with bounded(), stack() as route:
        await check(route, 1)
        client = await connect(route.serve_tcp, shared.context("client"))
        client.writer.write(frame() + END_FRAME)
        assert (await client.last_reply()).success
        client = await connect(route.serve_tcp, shared.context())
        client.writer.write(frame() + END_FRAME)
        with contextlib.suppress(OSError):
            assert await client.last_reply() is None
        root = (shared.folder / "ca.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(root)
        async with grpc.aio.secure_channel(route.aggregate, credentials) as channel:
            request = marketdata_pb2.AggregateRequest(symbol="AAPL")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await rpc.Stub(channel).GetAggregate(request)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_end_requests_the_ack_with_tls_and_without(shared, monkeypatch):
    async with bounded(), running(Aggregator(AggregatorConfig(port=0))) as (addresses, _):
        async with serving(addresses["grpc"]) as plain:
            client = await connect(plain, None)
            client.writer.write(frame() * 3 + END_FRAME)
            assert "Accepted 3 ticks" in (await client.last_reply()).message
            client = await connect(plain, None)
            client.writer.write(END_FRAME)
            assert "Accepted 0 ticks" in (await client.last_reply()).message
        monkeypatch.setenv("MDTOOL_TLS_CERT", "")
    shared.use(monkeypatch)
    async with bounded(), stack() as route:
        client = await connect(route.serve_tcp, shared.context())
        client.writer.write(frame() * 3 + END_FRAME)
        assert "Accepted 3 ticks" in (await client.last_reply()).message


async def test_the_command_watch_speaks_it(certificates):
    async with bounded(), stack() as route:
        client = await connect(route.serve_tcp, certificates.context())
        client.writer.write(frame() * 3 + END_FRAME)
        assert "Accepted 3 ticks" in (await client.last_reply()).message
        for where in (route.vwap, f"https://{route.gateway}"):
            watching = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mdtool", "watch", where), stdout=subprocess.PIPE
            )
            assert watching.stdout is not None
            assert b'"AAPL"' in await watching.stdout.readline()
            watching.terminate()
            await watching.wait()


async def test_a_sender_and_a_receiver_of_books(certificates, tmp_path):
    path = tmp_path / "day.dbn"
    record(path, 1_000)
    trusted = aiohttp.TCPConnector(ssl=certificates.context())
    async with (
        bounded(),
        sender_of(path) as sender,
        receiver_of(sender.data) as receiver,
        aiohttp.ClientSession(connector=trusted) as session,
    ):
        for url in (
            f"https://{receiver.address}/start-processing",
            f"https://{sender.address}/start-streaming",
        ):
            async with session.post(url) as answer:
                assert answer.status == 200
        source = await asyncio.to_thread(connect_source, *parse_address(sender.data))
        await asyncio.to_thread(source.close)
        async with session.get(f"https://{receiver.address}/status") as answer:
            assert "state" in json.loads(await answer.read())


async def test_a_new_certificate_is_used_without_losing_connections(tmp_path, monkeypatch):
    certificates = Certificates(tmp_path / "own")
    certificates.use(monkeypatch)
    async with bounded(), stack() as route:
        before = await connect(route.serve_tcp, certificates.context())
        before.writer.write(frame())
        async with rpc.open_channel(route.aggregate) as channel:
            request = marketdata_pb2.AggregateRequest(symbol="")
            call = rpc.Stub(channel).StreamAggregates(request)
            await call.initial_metadata()
            first = serial(before)
            certificates.issue("server")
            after = await connect(route.serve_tcp, certificates.context())
            assert serial(after) != first
            host, port = parse_address(route.aggregate)
            served = await asyncio.to_thread(ssl.get_server_certificate, (host, port))
            assert ssl.PEM_cert_to_DER_cert(served) == after.writer.get_extra_info(
                "ssl_object"
            ).getpeercert(binary_form=True)
            before.writer.write(frame() + END_FRAME)
            assert "Accepted 2 ticks" in (await before.last_reply()).message
            assert (await call.read()).symbol == "AAPL"
            call.cancel()


def serial(client):
    return client.writer.get_extra_info("peercert")["serialNumber"]


async def test_the_name_of_a_clients_certificate(shared):
    tls = ServerTls(
        TlsConfig(shared["server.pem"], shared["server.key"], client_ca=shared["ca.pem"])
    )
    names = asyncio.Queue()

    class Naming(asyncio.Protocol):
        def connection_made(self, transport):
            names.put_nowait(peer_certificate(transport).name)
            transport.close()

    listener = await listen(Naming, "127.0.0.1", 0, tls=tls)
    with contextlib.closing(listener):
        client = await connect(listener.address, shared.context("client"))
        async with bounded():
            assert await names.get() == "desk-7"
            assert await client.reader.read() == b""
        client.writer.close()


class TestBadCertificates:
    @pytest.mark.parametrize(
        ("hosts", "valid", "error"),
        [
            (["elsewhere.example"], DAY, "the certificate of the peer is rejected: .*mismatch"),
            (["127.0.0.1"], -DAY, "certificate has expired"),
        ],
    )
    async def test_of_another_name_or_time(self, tmp_path, monkeypatch, hosts, valid, error):
        certificates = Certificates(tmp_path)
        certificates.issue("server", hosts, valid)
        certificates.use(monkeypatch)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates["server.pem"], certificates["server.key"])
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=tls)
        async with bounded(), server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(PeerError, match=error):
                await sender_to(("127.0.0.1", port), runs(1)).run(print)
        if valid < 0 * DAY:
            with pytest.raises(StartupError, match="has expired; renew it"):
                async with serving("127.0.0.1:1"):
                    pass

    async def test_of_an_authority_that_is_not_trusted(self, certificates, tmp_path, monkeypatch):
        other = Certificates(tmp_path)
        async with bounded(), stack() as route:
            monkeypatch.setenv("MDTOOL_TLS_CA", other["ca.pem"])
            sender = sender_to(parse_address(route.serve_tcp), runs(1))
            with pytest.raises(PeerError, match=r"is rejected: .*(issuer certificate|self-signed)"):
                await sender.run(print)

    async def test_another_name_may_be_expected(self, tmp_path, monkeypatch):
        certificates = Certificates(tmp_path)
        certificates.issue("server", ["md.example.com"])
        certificates.use(monkeypatch, name="md.example.com")
        async with bounded(), stack() as route:
            await check(route, 1)


class TestMistakenPorts:
    async def test_plain_clients_are_named_once(self, certificates, caplog):
        caplog.set_level(logging.INFO)
        async with bounded(), stack() as route:
            for _ in range(5):
                client = await connect(route.serve_tcp, None)
                client.writer.write(frame())
                with contextlib.suppress(ConnectionError):
                    await client.reader.read()
            lines = [each for each in caplog.messages if "rejected" in each]
            assert len(lines) == 1
            assert "the peer does not speak TLS; clients of this port need TLS" in lines[0]
            client = await connect(route.serve_tcp, certificates.context())
            client.writer.write(frame() + END_FRAME)
            assert (await client.last_reply()).success

    async def test_a_sender_to_a_plain_port(self, shared, monkeypatch):
        async with bounded(), stack() as route:
            monkeypatch.setenv("MDTOOL_TLS_CA", shared["ca.pem"])
            sender = sender_to(parse_address(route.serve_tcp), runs(1))
            with pytest.raises(PeerError, match="the peer does not speak TLS"):
                await sender.run(print)


@pytest.mark.parametrize("who", ["self-signed", "expired", "foreign"])
async def test_a_clients_certificate_that_is_not_valid(shared, tmp_path, monkeypatch, caplog, who):
    shared.use(monkeypatch, client_ca=shared["ca.pem"])
    if who == "expired":
        certificates, name = shared, "late"
        shared.issue(name, ["desk-7"], -DAY)
    else:
        certificates, name = Certificates(tmp_path), "ca" if who == "self-signed" else "client"
    context = shared.context()
    context.load_cert_chain(certificates[f"{name}.pem"], certificates[f"{name}.key"])
    async with bounded(), stack() as route:
        for address in (route.serve_tcp, route.vwap, route.gateway):
            with contextlib.suppress(OSError):
                client = await connect(address, context)
                client.writer.write(frame() + END_FRAME)
                assert await client.reader.read() == b""
        files = ("ca.pem",), (f"{name}.key",), (f"{name}.pem",)
        root, key, chain = (
            (folder.folder / file).read_bytes()
            for folder, (file,) in zip((shared, certificates, certificates), files, strict=True)
        )
        credentials = grpc.ssl_channel_credentials(root, key, chain)
        async with grpc.aio.secure_channel(route.aggregate, credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await rpc.Stub(channel).GetAggregate(marketdata_pb2.AggregateRequest(symbol="A"))
        client = await connect(route.serve_tcp, shared.context("client"))
        client.writer.write(frame() + END_FRAME)
        assert (await client.last_reply()).message.startswith("Accepted 1 tick")
    lines = [each for each in caplog.messages if "certificate of the peer is rejected" in each]
    assert lines


async def test_a_server_whose_certificate_is_its_own(tmp_path, monkeypatch):
    certificates = Certificates(tmp_path)
    certificates.use(monkeypatch, cert=certificates["ca.pem"], key=certificates["ca.key"])
    other = Certificates(tmp_path / "other")
    async with bounded(), serving("127.0.0.1:1") as address:
        monkeypatch.setenv("MDTOOL_TLS_CA", other["ca.pem"])
        with pytest.raises(PeerError, match=r"is rejected: .*(issuer certificate|self-signed)"):
            await sender_to(parse_address(address), runs(1)).run(print)


async def test_clients_that_speak_tls_to_plain_ports_disturb_nobody(shared):
    async with bounded(), stack() as route:
        for address in (route.serve_tcp, route.aggregate, route.gateway, route.vwap):
            host, port = parse_address(address)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(host, port, ssl=shared.context())
        await check(route, 1)


@pytest.mark.parametrize("listener", ["dbn", "vwap"])
async def test_clients_that_speak_tls_to_a_plain_port_are_reported_once(shared, tmp_path, listener):
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(bounded())
        if listener == "dbn":
            record(tmp_path / "day.dbn", 10)
            service = sender_of(tmp_path / "day.dbn")
            address = (await stack.enter_async_context(service)).data
        else:
            address = await stack.enter_async_context(vwap_feed("127.0.0.1:9"))
        log = stack.enter_context(logged("mdtool.services.client"))
        for _ in range(3):
            host, port = parse_address(address)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(host, port, ssl=shared.context())
        (line,) = log.lines
        assert line.endswith("the client speaks TLS, and this port does not; set [tls] cert")
