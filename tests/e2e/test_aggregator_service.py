"""The aggregation service as a whole: its start, its neighbours on the port, and its end."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from mdtool.adapters import rpc
from mdtool.core.config import variable
from mdtool.core.errors import EXIT_OK, EXIT_STARTUP, EXIT_USAGE, StartupError
from mdtool.core.lifecycle import stop
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.grpc_server import GrpcServer
from mdtool.services.aggregator.server import Aggregator
from mdtool.wire._pb import marketdata_pb2
from tests.support import services
from tests.support.aggregators import aggregator, message, tick
from tests.support.processes import ChildProcess
from tests.support.waiting import bounded

SERVICE = "marketdata.MarketDataService"


async def health_of(channel, service):
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_it_is_healthy(service):
    async with aggregator() as running:
        status = await health_of(running.channel, service)

        assert status == health_pb2.HealthCheckResponse.SERVING


async def test_nobody_else_is():
    async with aggregator() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_of(running.channel, "marketdata.Another")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_names_its_services_and_describes_their_calls(version):
    async with aggregator() as running:
        reflection = f"grpc.reflection.{version}.ServerReflection"
        # Both versions have the same messages.
        call = running.channel.stream_stream(
            f"/{reflection}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=reflection),
        ]
        listed, *described = [reply async for reply in call(iter(requests))]

        names = {service.name for service in listed.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health", reflection} <= names
        for reply, part in zip(described, (b"StreamTickBatches", version.encode()), strict=True):
            files = reply.file_descriptor_response.file_descriptor_proto
            assert any(part in file for file in files)


async def test_calls_beyond_the_limit_are_rejected():
    async with aggregator(max_calls=1) as running:
        call = running.stub.StreamUpdates(marketdata_pb2.UpdatesRequest())
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.stub.GetStreamPosition(marketdata_pb2.StreamPositionRequest())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()


async def test_a_port_in_use_is_no_reason_to_try_again():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartupError, match=rf"port {port} on 127\.0\.0\.1 is in use"):
            await Aggregator(AggregatorConfig(port=port)).run(pytest.fail)


async def test_two_aggregators_do_not_share_a_port():
    async with aggregator() as running:
        port = int(running.address.split(":")[1])
        with pytest.raises(StartupError, match="is in use"):
            await Aggregator(AggregatorConfig(port=port)).run(pytest.fail)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 80])
async def test_a_host_of_another_machine_is_reported(host):
    with pytest.raises(StartupError, match=f"cannot listen on port 0 of {host}"):
        await Aggregator(AggregatorConfig(host=host, auth="none", port=0)).run(pytest.fail)


async def test_a_stop_ends_readers_in_order_and_frees_the_port(free_port):
    started = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(Aggregator(AggregatorConfig(port=free_port)).run(started.set_result))
    address = (await started)["grpc"]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = rpc.Stub(channel)
        reader = stub.StreamUpdates(marketdata_pb2.UpdatesRequest())
        await reader.read()
        writer = stub.StreamTickBatches()
        await writer.write(message(0, [tick(1)], ["AAPL"]))
        await writer.read()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async with bounded():
            while await reader.read() is not grpc.aio.EOF:
                pass
        assert await reader.code() is grpc.StatusCode.OK
        assert await writer.code() is not grpc.StatusCode.OK
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", free_port))
        free.listen()


async def test_health_is_the_first_to_know_of_a_stop_and_calls_go_through(monkeypatch):
    monkeypatch.setenv(variable("stop", "drain_s"), "600")
    async with bounded(), aggregator(metrics_port=0) as running:
        ready = f"http://{running.metrics_address}/readyz"
        watched = health_pb2_grpc.HealthStub(running.channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE)
        )
        assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
        writer = running.stub.StreamTickBatches()
        await writer.write(message(0, [tick(1)], ["AAPL"]))
        assert (await writer.read()).next_sequence == 1
        async with aiohttp.ClientSession() as session:
            assert (await session.get(ready)).status == 200
            stop(running.task)
            assert (await watched.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await session.get(ready)).status == 503
        await writer.write(message(1, [tick(2)]))
        assert (await writer.read()).next_sequence == 2
        request = marketdata_pb2.AggregateRequest(symbol="AAPL")
        assert (await running.stub.GetAggregate(request)).close == 0.02
        running.task.cancel()  # nobody waits for it any more
        assert await writer.code() is not grpc.StatusCode.OK
        assert running.market.position("s") == 2


async def test_a_stop_leaves_no_task_of_a_call():
    """The loop's end would cancel it, and gRPC print that."""
    server = GrpcServer()
    n_calls, n_waiting, are_there = 50, 0, asyncio.Event()

    class Silent:
        """Answers no call, and ends one in several steps."""

        async def answer(self, *_: object) -> None:
            nonlocal n_waiting
            n_waiting += 1
            if n_waiting == n_calls:
                are_there.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                for _step in range(100):
                    await asyncio.sleep(0)

        def __getattr__(self, _name: str) -> Callable[..., Awaitable[None]]:
            return self.answer

    server.add(Silent())
    address = server.bind("127.0.0.1", 0)
    async with server, bounded():
        channel = grpc.aio.insecure_channel(address)
        request = marketdata_pb2.StreamPositionRequest()
        calls = [rpc.Stub(channel).GetStreamPosition(request) for _ in range(n_calls)]
        sent = [asyncio.ensure_future(each.code()) for each in calls]
        await are_there.wait()
    left = {getattr(task.get_coro(), "__name__", "") for task in asyncio.all_tasks()}
    assert "_schedule_rpc_coro" not in left
    await asyncio.gather(*sent)
    await channel.close()


def command(*arguments, **options):
    return ChildProcess(
        [sys.executable, "-m", "mdtool", "aggregate", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def service():
    """The command, ready, and its address."""
    with services.service("aggregate", "--port", "0", text=True) as running:
        yield running.process, running.address


async def test_the_command_serves_until_it_is_stopped(service):
    process, address = service
    async with grpc.aio.insecure_channel(address, rpc.OPTIONS) as channel:
        stub = rpc.Stub(channel)
        call = stub.StreamTickBatches()
        await call.write(message(0, [tick(100), tick(250, 3)], ["AAPL"]))
        ack = await call.read()
        aggregate = await stub.GetAggregate(marketdata_pb2.AggregateRequest(symbol="AAPL"))
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.to_thread(process.communicate)

    assert ack.next_sequence == 2
    assert (aggregate.open, aggregate.close, aggregate.volume) == (1.0, 2.5, 4)
    assert process.returncode == EXIT_OK
    assert f"ready on grpc {address}" in said
    assert "Traceback" not in said


def test_the_command_leaves_a_taken_port_with_its_own_status():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with command("--port", port) as process:
            _, said = process.communicate()

    assert process.returncode == EXIT_STARTUP
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--port", "70000"], "port"), (["--max-symbols", "0"], "max-symbols")],
)
def test_a_setting_out_of_its_range_is_wrong_usage(arguments, complaint):
    with command(*arguments) as process:
        _, said = process.communicate()

    assert process.returncode == EXIT_USAGE
    assert complaint in said
