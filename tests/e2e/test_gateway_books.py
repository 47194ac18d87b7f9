"""The gateway's order book paths, with the sender and the receiver there, away, slow and odd."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json

import pytest

from mdtool.services.http.listening import serving
from tests.support.book_services import CRAWLING, receiver_of, sender_of
from tests.support.gateways import gateway_of
from tests.support.recordings import record

NOBODY = "127.0.0.1:1"
HEADERS = ("Content-Security-Policy", "X-Content-Type-Options", "Cache-Control")


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "day.dbn"
    return path, record(path, 5_000)


@contextlib.asynccontextmanager
async def stack_of(path, speed: float = 0.0, **settings):
    """A sender, a receiver, and a client of the gateway in front of both."""
    async with (
        sender_of(path, speed=speed) as sender,
        receiver_of(sender.data) as receiver,
        gateway_of(
            NOBODY, **({"sender": sender.address, "receiver": receiver.address} | settings)
        ) as gateway,
    ):
        yield sender, receiver, gateway


async def posted(gateway, path: str) -> tuple[int, dict]:
    async with gateway.post(path) as response:
        return response.status, await response.json()


async def test_one_start_for_both(day):
    path, records = day
    async with stack_of(path) as (_, receiver, gateway):
        status, told = await posted(gateway, "/api/start-streaming")
        assert (status, told["status"]) == (200, "started")
        await receiver.until(state="done")
        status, told = await gateway.answer("/api/microservices/status")
        assert status == 200
        assert told["sender"]["state"] == told["receiver"]["state"] == "done"
        assert told["receiver"]["records"] == len(records)
        async with gateway.get("/api/order-book?depth=1") as response:
            assert response.content_type == "application/x-ndjson"
            assert len((await response.read()).splitlines()) == len(records)
        async with gateway.get("/api/order-book?last=true&symbols=AAPL") as response:
            state = json.loads(await response.read())
        assert (state["symbol"], state["final"]) == ("AAPL", True)


async def test_two_starts_at_once(day):
    async with stack_of(day[0], speed=CRAWLING) as (_, receiver, gateway):
        answers = await asyncio.gather(*(posted(gateway, "/api/start-streaming") for _ in range(3)))
        assert min(status for status, _ in answers) == 200
        assert (await posted(gateway, "/api/start-streaming"))[0] == 409
        assert (await receiver.status())["state"] in {"connecting", "waiting", "processing"}


async def test_a_receiver_alone_is_started_beside_a_sender_at_work(day):
    path, records = day
    async with stack_of(path) as (sender, receiver, gateway):
        await sender.start("/start-streaming")
        assert (await posted(gateway, "/api/start-streaming"))[0] == 200
        assert (await receiver.until(state="done"))["records"] == len(records)


async def test_a_speed_is_passed_on(day):
    async with stack_of(day[0]) as (sender, _, gateway):
        assert (await posted(gateway, "/api/start-streaming?speed=fast"))[0] == 400
        assert (await sender.status())["state"] == "idle"
        assert (await posted(gateway, f"/api/start-streaming?speed={CRAWLING}"))[0] == 200
        assert (await sender.status())["speed"] == CRAWLING


async def test_what_the_receiver_refuses_is_passed_on(day):
    async with stack_of(day[0]) as (_, _, gateway):
        assert (await gateway.answer("/api/order-book"))[0] == 409
        assert (await gateway.answer("/api/order-book?depth=0"))[0] == 400


async def test_without_its_services_it_answers_503():
    async with gateway_of(NOBODY, sender=NOBODY, receiver=NOBODY) as gateway:
        assert (await posted(gateway, "/api/start-streaming"))[0] == 503
        status, told = await gateway.answer("/api/order-book")
        assert (status, told["error"]) == (503, "unavailable")
        assert "receiver 127.0.0.1:1 is unavailable" in told["message"]
        status, told = await gateway.answer("/api/microservices/status")
        assert status == 503
        assert told["sender"]["reachable"] is told["receiver"]["reachable"] is False


async def test_one_of_two_is_away(day):
    async with stack_of(day[0], receiver=NOBODY) as (_, _, gateway):
        status, told = await gateway.answer("/api/microservices/status")
        assert status == 503
        assert told["sender"]["reachable"]
        assert not told["receiver"]["reachable"]
        assert (await posted(gateway, "/api/start-streaming"))[0] == 503


@contextlib.asynccontextmanager
async def answering(answer: bytes | None):
    """The address of a server that answers everything with the same bytes, or with none."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        writer.write(answer or b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (None, 504, "timeout"),
        (b"", 503, "unavailable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 502, "bad_gateway"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", 502, "bad_gateway"),
        (b"SSH-2.0-OpenSSH_9\r\n", 502, "bad_gateway"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", 503, "unavailable"),
    ],
)
async def test_services_that_answer_nothing_or_nonsense(said, status, code):
    settings = {"timeout_ms": 300} if said is None else {}
    async with (
        answering(said) as address,
        gateway_of(NOBODY, sender=address, receiver=address, **settings) as gateway,
    ):
        answered, told = await posted(gateway, "/api/start-streaming")
        assert (answered, told["error"]) == (status, code)
        answered, told = await gateway.answer("/api/microservices/status")
        assert answered == 503
        assert not told["sender"]["reachable"]


async def test_a_receiver_that_stops_in_the_middle_is_said_to(day):
    async with contextlib.AsyncExitStack() as stack:
        sender = await stack.enter_async_context(sender_of(day[0], speed=CRAWLING))
        async with receiver_of(sender.data) as receiver:
            settings = {"sender": sender.address, "receiver": receiver.address}
            gateway = await stack.enter_async_context(gateway_of(NOBODY, **settings))
            await posted(gateway, "/api/start-streaming")
            response = await stack.enter_async_context(gateway.get("/api/order-book"))
            await response.content.readline()
        lines = (await response.read()).splitlines()
    assert json.loads(lines[-1]) == {"error": "the receiver stops"}


async def test_a_receiver_that_is_cut_off_in_the_middle_is_said_to_be_gone():
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n5\r\n{}"
    async with (
        answering(cut) as address,
        gateway_of(NOBODY, sender=address, receiver=address) as gateway,
        gateway.get("/api/order-book") as response,
    ):
        lines = (await response.read()).splitlines()
    assert json.loads(lines[-1]) == {"error": "the receiver became unavailable"}


async def test_clients_that_leave_are_noticed_although_nothing_comes(day):
    async with stack_of(day[0], speed=CRAWLING) as (_, receiver, gateway):
        await posted(gateway, "/api/start-streaming")
        async with gateway.get("/api/order-book") as response:
            await response.content.readline()
            await receiver.until(readers=1)
            response.close()
        await receiver.until(readers=0)


async def test_stopping_does_not_wait_for_those_who_read(day, monkeypatch):
    patient = functools.partial(serving, grace_s=3_600)
    monkeypatch.setattr("mdtool.services.gateway.server.serving", patient)
    async with contextlib.AsyncExitStack() as services:
        sender = await services.enter_async_context(sender_of(day[0], speed=CRAWLING))
        receiver = await services.enter_async_context(receiver_of(sender.data))
        settings = {"sender": sender.address, "receiver": receiver.address}
        async with gateway_of(NOBODY, **settings) as gateway:
            await posted(gateway, "/api/start-streaming")
            response = await services.enter_async_context(gateway.get("/api/order-book"))
            await response.content.readline()


async def test_the_page_and_its_files():
    async with gateway_of(NOBODY) as gateway:
        async with gateway.get("/book") as response:
            page = await response.text()
            assert response.status == 200
            assert response.content_type == "text/html"
            assert all(header in response.headers for header in HEADERS)
        for name, content_type in [
            ("book.js", "text/javascript"),
            ("book.css", "text/css"),
            ("icon.svg", "image/svg+xml"),
        ]:
            assert f'="static/{name}' in page
            async with gateway.get(f"/static/{name}") as response:
                assert (response.status, response.content_type) == (200, content_type)
        for name in ("nothing.js", "..%2Fpage.py", "..%2f..%2fserver.py"):
            assert (await gateway.answer(f"/static/{name}"))[0] == 404
        assert "//" not in page.replace("<!doctype", "").replace("</", "")
