"""Alerts of a gateway: by REST as they began and ended, to a webhook, and in its metrics."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from mdtool.services.http.listening import listening
from tests.support.feed_sources import SOURCES, World, world_of
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


async def _alerts(world: World) -> list[dict[str, object]]:
    status, answer = await world.client.answer("/api/v2/alerts/AAPL")
    assert status == 200
    return answer["data"]
