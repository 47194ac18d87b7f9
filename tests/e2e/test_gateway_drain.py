"""A gateway that stops: not ready first, then its sockets are closed one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import aiohttp
import pytest

from mdtool.core.config import variable
from mdtool.core.errors import EXIT_OK
from mdtool.core.lifecycle import stop
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.wire.websocket import CloseCode
from tests.support.aggregators import aggregator, message, tick
from tests.support.gateways import Client, connected
from tests.support.services import running
from tests.support.supervised import FREE_PORTS, PATIENCE_S, serve
from tests.support.waiting import bounded

SOCKETS = 200
DRAIN = variable("stop", "drain_s")


@contextlib.asynccontextmanager
async def drained(clients):
    """A gateway with many sockets, and its task."""
    async with aggregator() as market:
        await market.send(message(0, [tick(100)], ["AAPL"]))
        async with running(Gateway(GatewayConfig(aggregator=market.address, port=0))) as (
            addresses,
            task,
        ):
            host, _, port = addresses["http"].rpartition(":")
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                f"http://{addresses['http']}", connector=connector
            ) as session:
                client = Client(session, host, int(port))
                await connected(client)
                sockets = [
                    await session.ws_connect("/ws/marketdata?symbol=AAPL") for _ in range(clients)
                ]
                yield client, sockets, task


async def closed(socket):
    """Wait until a socket is closed; return the code."""
    async for _ in socket:
        pass
    return socket.close_code


async def test_a_gateway_that_drains_is_not_ready_and_serves_on(monkeypatch):
    monkeypatch.setenv(DRAIN, "600")
    async with bounded(), drained(SOCKETS) as (client, sockets, task):
        assert (await client.answer("/readyz"))[0] == 200
        stop(task)
        ends = [asyncio.create_task(closed(socket)) for socket in sockets]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert await client.answer("/readyz") == (503, {"status": "stopping"})
        assert (await client.answer("/livez"))[0] == 200
        assert (await client.answer("/api/v1/marketdata/AAPL"))[0] == 200
        over = [end.result() for end in ends if end.done()]
        assert 0 < len(over) < SOCKETS
        assert set(over) == {CloseCode.GOING_AWAY}
        task.cancel()  # nobody waits for it any more
        assert set(await asyncio.gather(*ends)) == {CloseCode.GOING_AWAY}


async def test_all_sockets_are_closed_by_the_end_of_a_drain(monkeypatch):
    monkeypatch.setenv(DRAIN, "0.5")
    async with bounded(), drained(20) as (_, sockets, task):
        stop(task)
        codes = await asyncio.gather(*map(closed, sockets))
        await asyncio.wait({task})
        assert set(codes) == {CloseCode.GOING_AWAY}


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("form", [(), ("--processes",)], ids=["one", "each"])
def test_a_stack_waits_for_its_gateway(form, monkeypatch):
    """Also longer than its time to stop, which begins afterwards."""
    monkeypatch.setenv(DRAIN, "2")
    monkeypatch.setenv(variable("stop", "within_s"), "30")
    with serve("all", "-J", *form, *FREE_PORTS) as services:
        services.addresses(4)
        os.kill(services.process.pid, signal.SIGTERM)
        services.heard("gateway: draining for 2 s")
        assert services.process.wait(PATIENCE_S) == EXIT_OK
