"""Alerts of a gateway: by REST as they began and ended, to a webhook, and in its metrics."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

import numpy as np
from aiohttp import web

from mdtool.engine.simulate import Exchange
from mdtool.services.http.listening import listening
from tests.support.book_services import sender_of
from tests.support.feed_sources import NOBODY, SOURCES, World, world_of
from tests.support.gateways import gateway_of
from tests.support.recordings import write
from tests.support.waiting import bounded


async def test_an_alert_is_served_sent_to_a_webhook_and_counted():
    received: asyncio.Queue[dict[str, object]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        received.put_nowait(json.loads(await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    async with listening(app, "127.0.0.1", 0) as address:
        webhook = {"webhook": f"http://{address}/", "webhook_secret": "s", "webhook_inside": True}
        async with world_of(SOURCES["alerts"], **webhook) as world, bounded():
            await World.alert(world, {"AAPL": 101})
            first = await received.get()
            assert (first["symbol"], first["kind"], first["end"]) == ("AAPL", "band", None)
            assert await _alerts(world) == [first]
            await World.alert(world, {"AAPL": 102})
            ended, second = await received.get(), await received.get()
            assert ended == first | {"end": first["begin"], "findings": "1"}
            assert await _alerts(world) == [second, ended]
            status, page = await world.client.answer("/api/v2/alerts/AAPL?limit=1")
            assert (status, page["data"]) == (200, [second])
            _, page = await world.client.answer(f"/api/v2/alerts/AAPL?cursor={page['next']}")
            assert (page["data"], page["next"]) == ([ended], None)
            assert (await world.client.answer("/api/v2/alerts/NONE"))[0] == 404
            metrics = ""
            while 'mdtool_webhook_alerts_total{outcome="delivered"} 3.0' not in metrics:
                metrics = await (await world.client.get("/metrics")).text()
    assert f'mdtool_alerts_total{{kind="band",severity="{first["severity"]}"}} 2.0' in metrics
    assert "mdtool_alerts_open 1.0" in metrics


async def test_a_hole_in_the_numbers_of_a_stream_of_quotes_is_an_alert(tmp_path):
    exchange = Exchange(("AAPL",), seed=3)
    records = exchange.generate(4_000)
    records["sequence"] = np.arange(len(records))
    records["sequence"][3_000:] += 7
    path = tmp_path / "orders.dbn"
    write(path, records, exchange.instruments)
    async with (
        bounded(),
        sender_of(path) as sender,
        gateway_of(NOBODY, quotes_from=sender.data) as client,
    ):
        gaps = []
        while not gaps:
            await sender.ask("/start-streaming", "POST")
            _, answer = await client.answer("/api/v2/alerts/AAPL")
            gaps = [each for each in answer.get("data") or () if each["kind"] == "gap"]
    assert int(gaps[0]["value"]) - int(gaps[0]["baseline"]) == 8


async def test_watch_follows_a_gateway_and_prints_its_prices_and_alerts():
    source = dataclasses.replace(SOURCES["alerts"], needs_vwap=True)
    async with world_of(source) as world, bounded():
        await World.alert(world, {"AAPL": 101, "MSFT": 102})
        lines = set(await _watched(world, 2, "--symbols", "AAPL"))
    [alert] = [line for line in lines if " alert " in line]
    [price] = lines - {alert}
    assert "AAPL alert band" in alert
    assert "AAPL 1.01 size 1 vwap" in price


async def test_watch_prints_the_book_of_a_gateway():
    async with world_of(SOURCES["books"]) as world, bounded():
        await world.quote({"AAPL": 20_125})
        [line] = await _watched(world, 1, "--book", "aapl")
    assert line.endswith("AAPL bid 5 x 201.25 ask -\n")


async def _watched(world: World, count: int, *options: str) -> list[str]:
    """The first lines of `watch --plain`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mdtool", "watch", "--plain", *options),
        f"http://{world.client.host}:{world.client.port}",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        return [(await process.stdout.readline()).decode() for _ in range(count)]
    finally:
        process.kill()
        await process.wait()


async def _alerts(world: World) -> list[dict[str, object]]:
    status, answer = await world.client.answer("/api/v2/alerts/AAPL")
    assert status == 200
    return answer["data"]
