"""Traces of batches and requests, through real services to a real receiver of OTLP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

import aiohttp
import pytest

from tests.support.commands import completed
from tests.support.kafka_topics import url_of, write_ticks
from tests.support.otlp import receiving
from tests.support.services import service
from tests.support.supervised import FREE_PORTS, serve
from tests.support.waiting import bounded

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
AGAIN_S = 2.0

pytestmark = pytest.mark.usefixtures("no_settings")


def traced(endpoint, sample=1):
    """The environment of services whose traces go to an endpoint."""
    return {**os.environ, "MDTOOL_TRACE_ENDPOINT": endpoint, "MDTOOL_TRACE_SAMPLE": str(sample)}


@contextlib.asynccontextmanager
async def following(address):
    """Follow every aggregate of a gateway over a WebSocket."""
    async with (
        aiohttp.ClientSession(f"http://{address}") as client,
        client.ws_connect("/stream") as stream,
    ):
        every = {"op": "subscribe", "id": 1, "channel": "aggregates", "symbols": ["*"]}
        await stream.send_json(every)
        yield client, stream


async def send(folder, address):
    sent = write_ticks(folder / "ticks.jsonl", 100)
    done = await asyncio.to_thread(completed, "send", folder / "ticks.jsonl", address)
    assert done.returncode == 0, done.stderr.decode()
    return sent


async def chain(receiver, folder, address, *names):
    """Send until a batch was traced through these spans: what readers begin with is not."""
    waiting = asyncio.create_task(receiver.chain(*names))
    while not waiting.done():
        await send(folder, address)
        await asyncio.wait({waiting}, timeout=AGAIN_S)
    return waiting.result()


async def shown(stream):
    """Wait until the socket has the state of a symbol."""
    while "open" not in await stream.receive_str():
        pass


def check_times(spans):
    """See that no span ends before it begins, or begins before the one that it follows from."""
    assert spans[0].parent_id == ""
    assert all(span.ended_ns >= span.began_ns for span in spans)
    began = [span.began_ns for span in spans]
    assert began == sorted(began)


async def test_a_batch_is_traced_from_its_frame_to_the_socket_and_a_request_to_its_answer(
    tmp_path,
):
    async with bounded(), receiving() as receiver:
        options = {"environment": traced(receiver.endpoint)}
        with contextlib.ExitStack() as stack:
            store = ("--store", f"sqlite:///{tmp_path}/trades.db")
            market = stack.enter_context(service("aggregate", "--port", 0, *store, **options))
            listening = ("--port", 0, "--aggregator", market.address)
            ingest = stack.enter_context(service("serve-tcp", *listening, **options))
            gateway = stack.enter_context(service("gateway", *listening, **options))
            async with following(gateway.address) as (client, stream):
                sent = await send(tmp_path, ingest.address)
                await shown(stream)
                where = tmp_path, ingest.address
                stored = await chain(receiver, *where, "ingest", "apply", "commit")
                spans = await chain(receiver, *where, "ingest", "apply", "show")
                services = [span.service for span in (*stored, spans[-1])]
                assert services == ["serve-tcp", "aggregate", "aggregate", "gateway"]
                for each in (stored, spans):
                    check_times(each)
                assert spans[1].attributes["mdtool.frames"] > 0
                await check_requests(client, receiver, next(iter(sent)))


async def check_requests(client, receiver, symbol):
    path = f"/api/v1/bars/{symbol}?interval=1m"
    unsampled = f"00-{'1' * 32}-{PARENT_ID}-00"
    async with client.get(path, headers={"traceparent": unsampled}) as answer:
        assert answer.status == 200
    sampled = f"00-{TRACE_ID}-{PARENT_ID}-01"
    async with client.get(path, headers={"traceparent": sampled}) as answer:
        assert answer.status == 200

    def its(spans):
        found = [span for span in spans if span.trace_id == TRACE_ID]
        return found if len(found) == 3 else []

    by_kind = {(span.service, span.kind): span for span in await receiver.until(its)}
    request = by_kind["gateway", "server"]
    call, answer = by_kind["gateway", "client"], by_kind["aggregate", "server"]
    assert request.name == "GET /api/v1/bars/{symbol}"
    assert request.attributes["http.response.status_code"] == 200
    parents = (request.parent_id, call.parent_id, answer.parent_id)
    assert parents == (PARENT_ID, request.span_id, call.span_id)
    assert call.name == answer.name == "GetBars"
    assert not [span for span in receiver.spans if span.trace_id == "1" * 32]


async def test_a_batch_is_traced_over_kafka(kafka, tmp_path):
    bus = url_of(kafka)
    async with bounded(), receiving() as receiver:
        options = {"environment": traced(receiver.endpoint)}
        where = ("--port", 0, "--bus", bus)
        with contextlib.ExitStack() as stack:
            ingest = stack.enter_context(service("serve-tcp", *where, **options))
            stack.enter_context(service("aggregate", *where, **options))
            gateway = stack.enter_context(service("gateway", *where, **options))
            async with following(gateway.address) as (_, stream):
                way = "ingest", "apply", "commit", "show"
                check_times(await chain(receiver, tmp_path, ingest.address, *way))
                await shown(stream)


@pytest.mark.parametrize("form", [(), ("--processes",)], ids=["one process", "Unix sockets"])
async def test_services_that_share_a_machine_have_names_of_their_own(monkeypatch, form):
    async with bounded(), receiving() as receiver:
        for name, value in traced(receiver.endpoint, 0.2).items():
            monkeypatch.setenv(name, value)
        with serve("all", "--simulate", *form, *FREE_PORTS):
            spans = await receiver.chain("ingest", "apply", "show")
            check_times(spans)
            assert [span.service for span in spans] == ["serve-tcp", "aggregate", "gateway"]


async def test_a_receiver_that_never_answers_costs_one_line(tmp_path):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as mute:
        endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
        options = {"environment": traced(endpoint)}
        async with bounded():
            with contextlib.ExitStack() as stack:
                market = stack.enter_context(service("aggregate", "--port", 0, **options))
                where = ("--port", 0, "--aggregator", market.address)
                ingest = stack.enter_context(service("serve-tcp", *where, **options))
                gateway = stack.enter_context(service("gateway", *where, **options))
                async with following(gateway.address) as (_, stream):
                    await send(tmp_path, ingest.address)
                    await shown(stream)
                    line = await asyncio.to_thread(market.process.stderr.readline)
                    while b"not accepted" not in line:
                        line = await asyncio.to_thread(market.process.stderr.readline)
                    await send(tmp_path, ingest.address)
                    status, rest = await asyncio.to_thread(market.end, signal.SIGTERM)
                    assert status == 0
                    assert "traces" not in rest
                    assert "Traceback" not in rest


@pytest.mark.parametrize("command", ["aggregate", "gateway"])
def test_an_endpoint_that_is_not_valid_is_one_line(command):
    done = completed(command, "--port", 0, env=traced("localhost:4317"))
    assert done.returncode == 2
    assert done.stderr.decode().strip().endswith("'localhost:4317' is not a URL of HTTP")
