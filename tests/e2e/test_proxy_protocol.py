"""Ticks and VWAPs behind TCP proxies: whose connection it is, said by a PROXY protocol header."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
from pathlib import Path

import pytest

from mdtool.adapters.vwap_feed import VwapFeedClient
from mdtool.core.addresses import parse_address
from mdtool.services import proxied
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed
from mdtool.wire.frames import END_FRAME, Ack, ReplyDecoder
from mdtool.wire.proxy_header import LOCAL_HEADER, SIGNATURE, UNEXPECTED
from tests.property.test_proxy_header import V4, header, summed
from tests.support.aggregators import aggregator, message, tick
from tests.support.certificates import Certificates
from tests.support.ingest_servers import frame, frames, serving
from tests.support.processes import ChildProcess
from tests.support.proxies import free_port, proxy
from tests.support.services import logged, running
from tests.support.tokens import Keys
from tests.support.vwap_feeds import Client, vwap_feed
from tests.support.waiting import bounded

V6 = header(
    1, 0x21, bytes.fromhex("20010db8" + "0" * 23 + "7" + "0" * 31 + "1") + b"\x12\x67\xc3\x82"
)
TLS_HELLO = b"\x16\x03\x01\x00\xa5"
"""What both services reject in a line that names the client."""
SPEAKS_TLS = "the client speaks TLS"
PORTS = {"ticks": serving, "vwap": vwap_feed}


@contextlib.asynccontextmanager
async def listening(name, **settings):
    """A service in front of an aggregator; its address."""
    async with aggregator() as market, PORTS[name](market.address, **settings) as address:
        yield address


async def conversation(address, data):
    """Send, and return all that is answered until the service closes the connection."""
    reader, writer = await asyncio.open_connection(*parse_address(address))
    writer.write(data)
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    writer.close()


NAMED = {
    "IPv4": (V4, "203.0.113.7:4711"),
    "IPv6": (V6, "[2001:db8::7]:4711"),
    "extensions": (summed(V4[:15] + b"\x14" + V4[16:] + b"\x04\0\x05hello"), "203.0.113.7:4711"),
    "version 1": (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 50050\r\n", "203.0.113.7:4711"),
}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("what", NAMED)
async def test_a_client_has_the_address_of_the_header(port, what):
    data, client = NAMED[what]
    async with bounded(), listening(port, proxy_protocol=True) as address:
        with logged("mdtool") as log:
            await conversation(address, data + TLS_HELLO)
        (line,) = (line for line in log.lines if SPEAKS_TLS in line)
        assert client in line


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("data", [LOCAL_HEADER, b"PROXY UNKNOWN\r\n", header(1, 0, b"")])
async def test_a_connection_of_the_proxys_own_has_its_address(port, data):
    async with bounded(), listening(port, proxy_protocol=True) as address:
        with logged("mdtool") as log:
            await conversation(address, data + TLS_HELLO)
        (line,) = (line for line in log.lines if SPEAKS_TLS in line)
        assert "127.0.0.1:" in line


REJECTED = {
    "none": (frame(), "no PROXY protocol header; connect through the proxy"),
    "a line of text": (b"SUBSCRIBE *\n", "no PROXY protocol header; connect through the proxy"),
    "no end": (SIGNATURE + b"\x21\x11\xff\xff" + bytes(99), "65,551 bytes are over 16,384"),
    "a wrong checksum": (summed(V4)[:-1] + b"?", "its checksum is wrong"),
    "a line without end": (b"PROXY TCP4 " + b"1" * 200, "a line over 107 bytes"),
}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("what", REJECTED)
async def test_a_connection_without_a_valid_header_is_rejected_in_a_line(port, what):
    data, why = REJECTED[what]
    async with bounded(), listening(port, proxy_protocol=True) as address:
        with logged("mdtool", least=logging.WARNING) as log:
            await conversation(address, data)
        (line,) = log.lines
        assert line.startswith(f"{address}: rejected 127.0.0.1:")
        assert why in line


@pytest.mark.parametrize("port", PORTS)
async def test_a_header_that_never_ends_is_not_waited_for(port, monkeypatch):
    monkeypatch.setattr(proxied, "HEADER_S", 0.05)
    async with bounded(), listening(port, proxy_protocol=True) as address:
        with logged("mdtool", least=logging.WARNING) as log:
            await conversation(address, V4[:-1])
        (line,) = log.lines
        assert "no PROXY protocol header within 0.05 s" in line


@pytest.mark.parametrize("port", PORTS)
async def test_a_service_stops_while_it_waits_for_a_header(port):
    async with bounded():
        async with listening(port, proxy_protocol=True) as address:
            reader, writer = await asyncio.open_connection(*parse_address(address))
            writer.write(V4[:-1])
            await conversation(address, b"?")  # accepted behind the other
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("data", [V4, NAMED["version 1"][0]])
async def test_a_header_is_rejected_in_a_line_where_none_is_expected(port, data):
    async with bounded(), listening(port) as address:
        with logged("mdtool", least=logging.WARNING) as log:
            await conversation(address, data)
        (line,) = log.lines
        assert line.startswith(("127.0.0.1:", "client 127.0.0.1:"))
        assert line.endswith(f"closed: {UNEXPECTED}")


async def test_a_header_is_named_also_where_a_token_is_required(tmp_path, monkeypatch):
    Keys(tmp_path).configure(monkeypatch)
    monkeypatch.setenv("MDTOOL_AUTH_SERVICES_SECRET", "of-this-run")
    async with bounded(), aggregator() as market, serving(market.address) as address:
        with logged("mdtool", least=logging.WARNING) as log:
            await conversation(address, V4)
        (line,) = log.lines
        assert line.endswith(f"closed: {UNEXPECTED}")


async def test_the_audit_log_has_the_clients_address(tmp_path, monkeypatch):
    audited = tmp_path / "audit.jsonl"
    Keys(tmp_path).configure(monkeypatch)
    monkeypatch.setenv("MDTOOL_AUDIT_FILE", str(audited))
    feed = VwapFeed(VwapConfig(port=0, aggregator="127.0.0.1:1", proxy_protocol=True))
    async with bounded(), running(feed) as (addresses, _):
        await conversation(addresses["tcp"], V4 + b"AUTH nobody\n")
    (line,) = map(json.loads, audited.read_text().splitlines())
    assert line["address"] == "203.0.113.7"


@pytest.mark.parametrize("has_tls", [False, True])
async def test_clients_with_the_settings_of_a_service_send_a_header(has_tls, tmp_path, monkeypatch):
    settings = "[vwap]\nproxy-protocol = true\n"
    if has_tls:
        made = Certificates(tmp_path)
        paths = {"cert": "server.pem", "key": "server.key", "ca": "ca.pem"}
        settings += "[tls.vwap]\n" + "".join(f'{k} = "{made[v]}"\n' for k, v in paths.items())
    (tmp_path / "mdtool.toml").write_text(settings)
    monkeypatch.setenv("MDTOOL_CONFIG", str(tmp_path / "mdtool.toml"))
    async with bounded(), aggregator() as market:
        with logged("mdtool.services.vwap", logging.DEBUG) as log:
            async with vwap_feed(market.address, proxy_protocol=True) as address:
                await log.heard("connected")
                await market.send(message(0, [tick(100)], ["AAPL"]))
                following = VwapFeedClient(address, frozenset({"AAPL"})).lines()
                assert json.loads((await anext(following))[0])["symbol"] == "AAPL"
                await following.aclose()


@pytest.fixture(params=["haproxy.cfg", "nginx-stream.conf"])
async def behind(request, tmp_path):
    """Both services behind a proxy that ends TLS; its ports, and how to connect to them."""
    certificates = Certificates(tmp_path / "tls")
    both = certificates.read("server.pem") + certificates.read("server.key")
    (certificates.folder / "mdtool.pem").write_bytes(both)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(bounded())
        market = await stack.enter_async_context(aggregator())
        log = stack.enter_context(logged("mdtool.services.vwap", logging.DEBUG))
        ticks, vwap = [
            await stack.enter_async_context(serve(market.address, proxy_protocol=True))
            for serve in PORTS.values()
        ]
        await log.heard("connected")
        ports = {name: free_port(stack) for name in PORTS}
        word = "bind :" if request.param == "haproxy.cfg" else "listen "
        where = word.replace(":", "") + "127.0.0.1:"
        replaced = {
            f"{word}50050": f"{where}{ports['ticks']}",
            f"{word}8888": f"{where}{ports['vwap']}",
            "127.0.0.1:50060": ticks,
            "127.0.0.1:8898": vwap,
            "/etc/ssl/mdtool": str(certificates.folder),
        }
        if request.param == "haproxy.cfg":
            replaced["bind :443"] = f"bind 127.0.0.1:{free_port(stack)}"
        command = proxy(request.param, Path(tmp_path), replaced)
        process = stack.enter_context(ChildProcess(command, stderr=subprocess.PIPE))
        stack.callback(process.terminate)

        async def connect(name):
            while True:  # until the proxy listens
                with contextlib.suppress(OSError):
                    return await asyncio.open_connection(
                        "localhost", ports[name], ssl=certificates.context(), limit=1 << 20
                    )
                await asyncio.sleep(0)

        yield connect


async def test_a_client_of_a_proxy_has_its_own_address(behind):
    for port in PORTS:
        with logged("mdtool") as log:
            reader, writer = await behind(port)
            own_port = writer.get_extra_info("sockname")[1]
            writer.write(TLS_HELLO)
            await reader.read()
            writer.close()
        (line,) = (line for line in log.lines if SPEAKS_TLS in line)
        assert f"127.0.0.1:{own_port}" in line


async def test_ticks_and_vwaps_come_through_a_proxy(behind):
    reader, writer = await behind("vwap")
    feed = Client(reader, writer)
    ticks, sender = await behind("ticks")
    sender.write(frames(3) + END_FRAME)
    (ack,) = ReplyDecoder().feed(await ticks.read())
    assert ack == Ack(True, "Accepted 3 ticks, refused 0")
    assert (await feed.until(price=3.0))["symbol"] == "AAPL"
    for each in (sender, writer):
        each.close()
