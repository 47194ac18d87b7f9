"""A client's certificate as its identity, on every kind of listener."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from aiohttp import ClientSession, TCPConnector
from cryptography import x509

from mdtool.adapters import rpc
from mdtool.adapters.identity import authenticator
from mdtool.core.addresses import parse_address
from mdtool.core.errors import ConfigError
from mdtool.core.permissions import Roles
from mdtool.core.tls import certificate_end
from mdtool.services import security
from mdtool.wire._pb import marketdata_pb2
from mdtool.wire.dbn_session import End, FromStart, encode_request
from tests.support.aggregators import aggregator, message, tick
from tests.support.book_services import Heard, Receiver, sender_of
from tests.support.certificates import DAY, Certificates
from tests.support.dbn_files import MAY_1, header, order, write
from tests.support.services import logged
from tests.support.tokens import ROLES, Keys
from tests.support.vwap_feeds import Client, vwap_feed
from tests.support.waiting import bounded

SECRET = "of-this-run"


@pytest.fixture
def certificates(tmp_path, monkeypatch):
    """Services that require certificates of clients, of which `desk-7` has the role `some`."""
    made = Certificates(tmp_path / "tls")
    made.issue("other", ["other.example"])
    monkeypatch.setitem(ROLES, "some", {**ROLES["some"], "certificates": ["desk-*"]})
    keys = Keys(tmp_path)
    keys.configure(monkeypatch)
    made.keys = keys
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", SECRET)
    made.use(monkeypatch, client_ca=made["ca.pem"])
    return made


def test_names_match_patterns_and_others_have_no_role():
    roles = Roles({"desk": {"read": ["A"], "certificates": ["desk-*", "*.md.example"]}})
    assert roles.of_certificate("desk-7").name == "cert:desk-7"
    assert roles.of_certificate("a.md.example").access.reader("trades").can_read("A")
    assert roles.of_certificate("Desk-7") is None
    with pytest.raises(ConfigError, match=r"\[roles.desk\] certificates: expects a list"):
        Roles({"desk": {"certificates": "x"}})


def test_a_certificate_ends_when_it_says(tmp_path):
    made = Certificates(tmp_path)
    far = dt.timedelta(days=365 * 40)  # which has a time with four digits of the year
    for name, valid in (("soon", DAY), ("past", -DAY), ("late", far)):
        made.issue(name, ["desk-7"], valid)
        pem = made.read(f"{name}.pem")
        expected = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        assert certificate_end(pem.decode()) == expected


async def connect(address, context):
    host, port = parse_address(address)
    return await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")


@pytest.fixture
async def market(certificates, monkeypatch):
    async with aggregator() as running, bounded():
        ticks = [tick(100, 1), tick(200, 3, symbol=1)]
        await send(running, message(0, ticks, ["AAPL", "MSFT"]))
        yield running


async def send(market, batch):
    """Send ticks as a service of ours does."""
    async with rpc.open_channel(market.address) as channel:
        call = rpc.Stub(channel).StreamTickBatches()
        await call.write(batch)
        await call.read()
        call.cancel()


async def test_of_a_call_of_grpc(market, certificates, monkeypatch):
    monkeypatch.delenv("MDTOOL_AUTH_SERVICES_SECRET")
    for name, code in (("client", None), ("other", grpc.StatusCode.UNAUTHENTICATED)):
        files = ("ca.pem", f"{name}.key", f"{name}.pem")
        credentials = grpc.ssl_channel_credentials(*map(certificates.read, files))
        port = parse_address(market.address)[1]
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = rpc.Stub(channel)
            for symbol, hidden in (("AAPL", None), ("MSFT", grpc.StatusCode.NOT_FOUND)):
                expected = code or hidden
                request = marketdata_pb2.AggregateRequest(symbol=symbol)
                if expected is None:
                    await stub.GetAggregate(request)
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.GetAggregate(request)
                assert caught.value.code() is expected


async def test_of_a_client_of_vwaps_and_a_token_goes_before_it(market, certificates):
    with logged("mdtool.services.vwap", logging.DEBUG) as log:
        async with vwap_feed(market.address) as address:
            await log.heard("connected")
            ticks = [tick(300, 3, symbol=1), tick(1, 1)]
            await send(market, message(2, ticks, ["AAPL", "MSFT"]))
            client = Client(*await connect(address, certificates.context("client")))
            assert (await client.next())["symbol"] == "AAPL"
            client.say(f"AUTH {certificates.keys['all']}")
            await client.until(symbol="MSFT")
            client.writer.close()
            other = Client(*await connect(address, certificates.context("other")))
            other.say("SUBSCRIBE *")
            assert (await other.next())["error"].startswith("token: missing")
            other.writer.close()


async def test_a_connection_ends_with_its_certificate(market, certificates, monkeypatch):
    later_s = time.time() + 2 * DAY.total_seconds()
    with logged("mdtool.services.vwap", logging.DEBUG) as log:
        async with vwap_feed(market.address) as address:
            await log.heard("connected")
            client = Client(*await connect(address, certificates.context("client")))
            await send(market, message(2, [tick(300, 3, symbol=1), tick(1, 1)], ["AAPL", "MSFT"]))
            known = Client(*await connect(address, certificates.context("client")))
            known.say(f"AUTH {certificates.keys['all']}")
            await known.until(symbol="MSFT")
            client.say("SUBSCRIBE AAPL")
            await client.until(symbol="AAPL")
            for module in (authenticator, security):  # not the handshake, which asks OpenSSL
                monkeypatch.setattr(module, "time", clock(later_s))
            assert await client.until(error="the token has expired, or is revoked")
            assert await client.reader.read() == b""
            again = Client(*await connect(address, certificates.context("client")))
            again.say("SUBSCRIBE *")
            assert (await again.next())["error"].startswith("token: missing")
            await send(market, message(4, [tick(700, 3, symbol=1)], ["AAPL", "MSFT"]))
            await known.until(symbol="MSFT", price=7)
            for each in (client, known, again):
                each.writer.close()


def clock(now_s):
    """The module `time`, at another moment."""
    return SimpleNamespace(time=lambda: now_s, monotonic=time.monotonic)


async def test_of_a_receiver_of_dbn_and_a_request(certificates, tmp_path, monkeypatch):
    orders = [order(1 + n % 2, MAY_1 + n, "A", "B", 10, 1, n) for n in range(1, 21)]
    named = header({"AAPL": {1: 1}, "MSFT": {1: 2}}, "mbo")
    async with sender_of(write(tmp_path / "day.dbn", named, *orders)) as sender, bounded():
        context = certificates.context("client")
        async with ClientSession(
            f"https://localhost:{parse_address(sender.address)[1]}",
            connector=TCPConnector(ssl=context),
        ) as http:
            async with http.post("/start-streaming") as response:
                assert response.status == 403  # the certificate's role has no right
            headers = {"Authorization": f"Bearer {certificates.keys['all']}"}
            async with http.post("/start-streaming", headers=headers) as response:
                assert response.status == 200
        reader, writer = await connect(sender.data, context)
        writer.write(encode_request(FromStart()))
        heard = await Receiver(reader, writer).hear(Heard())
        assert set(heard.all_records()["instrument_id"].tolist()) == {1}
        assert isinstance(heard.last, End)
        writer.close()
