"""What workers exchange: messages with files, and what clients have used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from types import SimpleNamespace

import pytest

from mdtool.services.client import Admission
from mdtool.services.gateway.workers import connection as module
from mdtool.services.gateway.workers import relay as relay_module
from mdtool.services.gateway.workers.connection import (
    Message,
    MessageDecoder,
    WorkerConnection,
    encode_message,
)
from mdtool.services.gateway.workers.peers import WORKER, Place
from mdtool.services.gateway.workers.relay import Relays
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.usage import Usage
from tests.support.certificates import Certificates
from tests.support.waiting import bounded

MESSAGES = [
    Message("hello", {"worker": 1}),
    Message("post", {"member": 7}, b"\0body" * 1_000),
    Message("news", {"news": {"open": {"192.0.2.1": 3}}}),
]


@pytest.mark.parametrize("piece", [1, 7, 8, 4_096, 1 << 20])
def test_messages_are_cut_out_of_pieces_of_any_size(piece):
    data = b"".join(map(encode_message, MESSAGES))
    decoder = MessageDecoder()
    found = []
    for at in range(0, len(data), piece):
        found += decoder.feed(data[at : at + piece], [])
    assert found == MESSAGES


class Ends:
    """Both ends of a connection, and what arrives at the second."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Message] = asyncio.Queue()
        self.lost = asyncio.Event()
        one, other = socket.socketpair()
        self.first = WorkerConnection(one, lambda _: None, self.lost.set)
        self.second = WorkerConnection(other, self.received.put_nowait, lambda: None)

    def close(self) -> None:
        self.first.close()
        self.second.close()


@pytest.fixture
async def ends():
    ends = Ends()
    yield ends
    ends.close()


async def test_a_file_goes_with_its_message_whatever_surrounds_it(ends):
    files = []
    for number in range(50):
        read, write = os.pipe()
        os.write(write, str(number).encode())
        os.close(write)
        files.append(read)
        ends.first.send(Message("text", {"number": number}, b"x" * 50_000))
        ends.first.send(Message("file", {"number": number}, b"y" * 10, read))
    for number in range(50):
        text, file = await ends.received.get(), await ends.received.get()
        assert (text.op, text.head, text.descriptor) == ("text", {"number": number}, None)
        assert (file.op, file.head) == ("file", {"number": number})
        assert os.read(file.descriptor, 10) == str(number).encode()
        os.close(file.descriptor)
    for file in files:
        os.close(file)


async def test_an_end_that_is_gone_is_noticed(ends):
    ends.second.close()
    await ends.lost.wait()
    ends.first.send(MESSAGES[0])


async def test_a_connection_that_nobody_reads_is_closed_and_not_kept_for_ever(ends, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNSENT_BYTES", 1 << 20)
    while not ends.lost.is_set():
        ends.first.send(Message("text", {}, b"x" * 100_000))
    assert ends.received.empty()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@contextlib.asynccontextmanager
async def relay(certificates, relays):
    """A client with TLS, its reader and writer, and the socket of what it is relayed to."""
    transports: asyncio.Queue[asyncio.Transport] = asyncio.Queue()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport):
            transport.pause_reading()
            transports.put_nowait(transport)

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates["server.pem"], certificates["server.key"])
    server = await asyncio.get_running_loop().create_server(Accepting, "127.0.0.1", 0, ssl=tls)
    async with server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=certificates.context())
        transport = await transports.get()
        end = await relays.begin(SimpleNamespace(release=lambda: transport))
        end.setblocking(False)
        with end:
            yield reader, writer, end
        writer.close()


async def test_a_relay_carries_everything_and_waits_for_whoever_does_not_read(
    certificates, monkeypatch
):
    loop, much = asyncio.get_running_loop(), os.urandom(1 << 25)
    is_full, pause = asyncio.Event(), relay_module._End.pause_writing

    def pause_writing(end):
        is_full.set()
        pause(end)

    monkeypatch.setattr(relay_module._End, "pause_writing", pause_writing)
    async with bounded(), Relays() as relays, relay(certificates, relays) as (reader, writer, end):
        sending = asyncio.create_task(loop.sock_sendall(end, much))
        assert await reader.readexactly(1) == much[:1]
        await is_full.wait()  # of far less than all of it
        assert not sending.done()
        assert await reader.readexactly(len(much) - 1) == much[1:]
        await sending
        writer.write(much)
        received = bytearray()
        while len(received) < len(much):
            received += await loop.sock_recv(end, 1 << 16)
        assert received == much
        await writer.drain()


async def test_either_end_of_a_relay_ends_the_other_once_it_has_everything(certificates):
    loop = asyncio.get_running_loop()
    async with bounded(), Relays() as relays:
        async with relay(certificates, relays) as (reader, writer, end):
            writer.write(b"last")
            writer.close()
            assert await loop.sock_recv(end, 100) == b"last"
            assert await loop.sock_recv(end, 100) == b""
        async with relay(certificates, relays) as (reader, writer, end):
            await loop.sock_sendall(end, b"last")
            end.close()
            assert await reader.read() == b"last"


async def test_a_connection_that_is_lost_is_not_relayed(certificates):
    async with bounded(), Relays() as relays:
        with await relays.begin(SimpleNamespace(release=lambda: None)) as end:
            end.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(end, 1) == b""


async def test_relays_that_nobody_ends_are_cut(certificates, monkeypatch):
    monkeypatch.setattr(relay_module, "STOP_GRACE_S", 0.01)
    async with bounded(), contextlib.AsyncExitStack() as stack:
        relays = Relays()
        async with relays:
            reader, _, end = await stack.enter_async_context(relay(certificates, relays))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert await asyncio.get_running_loop().sock_recv(end, 1) == b""


def test_a_place_is_passed_on_in_the_environment(monkeypatch):
    place = Place(1, 2, "/tmp/a:b/c")
    monkeypatch.setenv(WORKER, str(place))
    assert Place.of_process() == place
    assert Place.of_process() is None


def worker(**limits) -> tuple[Admission, Usage]:
    admission = Admission(Limits(**limits))
    return admission, Usage(admission)


@pytest.mark.usefixtures("no_refill")
def test_requests_elsewhere_count_against_a_clients_rate():
    (one, its_usage), (other, others_usage) = (worker(requests_per_s=5) for _ in range(2))
    for _ in range(5):
        one.client("192.0.2.1").spend_request()
    others_usage.apply("one", its_usage.news(), is_worker=True)
    assert its_usage.news() == {}
    other.client("192.0.2.2").spend_request()
    with pytest.raises(LimitError):
        other.client("192.0.2.1").spend_request()
    assert list(others_usage.news()) == ["default/requests"]


def test_what_was_heard_of_others_is_no_news_of_ones_own():
    (one, its_usage), (_, others_usage) = (
        worker(upstream_per_s=5, upstream_burst=5) for _ in range(2)
    )
    one.client("192.0.2.1").spend_upstream()
    one.client("192.0.2.1").reserve_upstream()
    news = its_usage.news()
    assert news == {"default/upstream": {"192.0.2.1": 2}}
    others_usage.apply("one", news, is_worker=True)
    assert others_usage.news() == {}


def test_connections_elsewhere_count_until_they_close_or_their_worker_ends():
    limits = {"connections": 3, "connections_of_client": 2}
    (one, its_usage), (other, others_usage) = (worker(**limits) for _ in range(2))

    def connected(admission: Admission, address: str):
        return admission.client(address).connected("/ws", lambda *_: None)

    with connected(one, "192.0.2.1"), connected(one, "192.0.2.1"):
        others_usage.apply("one", its_usage.news(), is_worker=True)
        with pytest.raises(LimitError), connected(other, "192.0.2.1"):
            pass
        with connected(other, "192.0.2.2"):
            assert len(other) == 3
            with pytest.raises(CapacityError), connected(other, "192.0.2.3"):
                pass
    others_usage.apply("one", its_usage.news(), is_worker=True)
    assert len(other) == 0
    with connected(one, "192.0.2.1"), connected(one, "192.0.2.1"):
        others_usage.apply("one", its_usage.held(), is_worker=True)
        others_usage.forget("one")
        with connected(other, "192.0.2.1"):
            assert len(other) == 1
