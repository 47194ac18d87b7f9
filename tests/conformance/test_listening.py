"""How every service listens: at which addresses, and without descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from pathlib import Path

import pytest

from mdtool.adapters.dbn_files import Recording
from mdtool.core.addresses import parse_address
from mdtool.core.descriptors import shortage
from mdtool.core.errors import StartupError
from mdtool.core.tcp import bind, listen
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.book.server import BookReceiver
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.services.gateway.workers.coordinator import Coordinator
from mdtool.services.ingest.config import IngestConfig
from mdtool.services.ingest.server import IngestServer
from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.server import LiveGateway
from mdtool.services.replay.config import SenderConfig
from mdtool.services.replay.runs import Pace
from mdtool.services.replay.server import ReplaySender
from mdtool.services.vwap.config import VwapConfig
from mdtool.services.vwap.server import VwapFeed
from tests.support.descriptors import no_descriptor_left, paused_again
from tests.support.services import logged, running

SAMPLE = Path(__file__).parents[2] / "sample_data" / "trades.dbn.zst"
SERVICES = {
    "aggregate": lambda host: Aggregator(AggregatorConfig(host=host, auth="none", port=0)),
    "book": lambda host: BookReceiver(ReceiverConfig(host=host, auth="none", port=0)),
    "gateway": lambda host: Gateway(GatewayConfig(host=host, auth="none", port=0)),
    "replay-dbn": lambda host: ReplaySender(
        SenderConfig(host=host, auth="none", port=0, data_port=0),
        Recording((str(SAMPLE),)),
        Pace(0),
    ),
    "serve-tcp": lambda host: IngestServer(IngestConfig(host=host, auth="none", port=0)),
    "vwap": lambda host: VwapFeed(VwapConfig(host=host, auth="none", port=0)),
}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def run(service):
    """Run a service; raise what a group of tasks has raised as what it is."""
    try:
        await service.run(lambda _: None)
    except* StartupError as group:
        raise group.exceptions[0] from None


@pytest.mark.parametrize("name", SERVICES)
async def test_a_host_that_is_not_a_valid_name_is_rejected(name):
    said = r"^cannot listen on port 0 of mdtool\.\.example: not a valid host name$"
    with pytest.raises(StartupError, match=said):
        await run(SERVICES[name]("mdtool..example"))


async def reachable(address: str) -> set[str]:
    """Return at which loopback addresses somebody listens on the port of an address."""
    _, port = parse_address(address)
    found = set()
    for host in ("127.0.0.1", "::1"):
        with contextlib.suppress(ConnectionRefusedError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            found.add(host)
    return found


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("localhost", {"127.0.0.1", "::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::", {"127.0.0.1", "::1"}),
    ],
)
@pytest.mark.parametrize("name", SERVICES)
async def test_a_host_means_the_same_addresses_for_every_service(name, host, expected):
    found = []
    for _ in range(3):  # another process may have the same port of the other address
        async with running(SERVICES[name](host)) as service:
            found = [await reachable(address) for address in service.addresses.values()]
        if found == [expected] * len(found):
            break
    assert found == [expected] * len(found)


@pytest.mark.parametrize("name", SERVICES)
async def test_connections_wait_while_no_descriptor_is_left(name):
    async with running(SERVICES[name]("127.0.0.1")) as service:
        for address in service.addresses.values():
            pauses = shortage.pauses
            shortage._reported_s = float("-inf")
            with (
                logged("mdtool.core.descriptors") as log,
                socket.socket() as client,
                no_descriptor_left(),
            ):
                client.connect(parse_address(address))
                await log.has(1)
                await paused_again(pauses)  # it tries once more, and says nothing
                assert log.lines[0].startswith(f"{address}: connections wait: Too many open files")
                assert len(log.lines) == 1


LIVE = {
    "live-gateway": lambda host: LiveGateway(
        LiveGatewayConfig(host=host, auth="none", port=0), [str(SAMPLE)]
    )
}


@pytest.mark.parametrize("name", {**SERVICES, **LIVE})
async def test_connections_that_are_reset_before_they_are_accepted_disturb_nobody(name, caplog):
    async with running({**SERVICES, **LIVE}[name]("127.0.0.1")) as service:
        for address in service.addresses.values():
            for _ in range(20):
                with socket.create_connection(parse_address(address)) as client:
                    reset = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            for _ in range(100):  # turns of the loop, in which they are accepted
                await asyncio.sleep(0)
            assert await reachable(address)
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def test_clients_are_served_without_descriptors_and_accepted_once_there_are_some():
    listener = await listen(Echo, "127.0.0.1", 0)
    host, port = parse_address(listener.address)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"before")
    assert await reader.readexactly(6) == b"before"
    pauses = shortage.pauses
    waiting = socket.socket()
    with no_descriptor_left():
        waiting.connect((host, port))
        await paused_again(pauses)
        writer.write(b"during")
        assert await reader.readexactly(6) == b"during"
    late_reader, late_writer = await asyncio.open_connection(sock=waiting)
    late_writer.write(b"after")
    assert await late_reader.readexactly(5) == b"after"
    late_writer.close()
    writer.close()
    listener.close()


def test_a_port_that_another_listens_on_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "::"):
            with pytest.raises(OSError, match="in use"):
                bind(host, port)


async def test_workers_of_a_gateway_wait_while_no_descriptor_is_left(tmp_path):
    path = str(tmp_path / "workers")
    with Coordinator(1).listening(path):
        pauses, shortage._reported_s = shortage.pauses, float("-inf")
        with (
            logged("mdtool.core.descriptors") as log,
            socket.socket(socket.AF_UNIX) as worker,
            no_descriptor_left(),
        ):
            worker.connect(path)
            await paused_again(pauses)
        assert [line.partition(":")[0] for line in log.lines] == ["gateway"]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
