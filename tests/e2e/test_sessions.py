"""Sessions that roll, as clients of the aggregator and the gateway see them, and restarts."""

from __future__ import annotations

import grpc
import pytest

from mdtool.wire._pb import marketdata_pb2
from tests.support.aggregators import aggregator, message, tick
from tests.support.gateways import connected, gateway_of

DAY_S = 86_400


def on_days(*days):
    """A tick of AAPL on each of these days after NOON_NS, at 100, 101 and so on."""
    return [tick(100_00 + 100 * k, at_s=day * DAY_S) for k, day in enumerate(days)]


async def session(running, which=""):
    request = marketdata_pb2.AggregateRequest(symbol="AAPL", session=which)
    found = await running.stub.GetAggregate(request)
    return found.open, found.close, found.volume


async def status_of(running, which):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await session(running, which)
    return caught.value.code()


async def test_a_session_rolls_and_the_one_before_stays_also_after_a_restart(tmp_path):
    settings = {"store": f"sqlite:///{tmp_path / 's.db'}?synchronous=normal"}
    sent = message(0, on_days(0, 1, 0, 1, -1), ["AAPL"])
    for _ in range(2):
        async with aggregator(**settings) as running:
            await running.send(sent)
            today, before = await session(running), await session(running, "previous")
            assert today[:2] == (101, 103)
            assert before[:2] == (100, 102)
            assert await session(running, "2024-12-26") == before
            assert await session(running, "2024-12-27") == today
            assert await status_of(running, "2024-12-25") == grpc.StatusCode.NOT_FOUND
            assert await status_of(running, "yesterday") == grpc.StatusCode.INVALID_ARGUMENT
            totals = running.market.totals()
            assert (totals["ticks"], totals["late_for_sessions"]) == (5, 1)


async def test_sessions_may_begin_in_the_evening_or_never():
    at_five_s = 11 * 3_600  # 17:00 in Chicago
    ticks = [tick(100_00, at_s=at_five_s - 1), tick(101_00, at_s=at_five_s)]
    async with aggregator(session="17:00 America/Chicago") as running:
        await running.send(message(0, ticks, ["AAPL"]))
        assert (await session(running))[0] == 101
        assert (await session(running, "2024-12-26"))[0] == 100
        assert (await session(running, "2024-12-27"))[0] == 101
    async with aggregator(session="never") as running:
        await running.send(message(0, on_days(0, 1, 30), ["AAPL"]))
        assert (await session(running))[:2] == (100, 102)
        assert await status_of(running, "previous") == grpc.StatusCode.NOT_FOUND


async def test_the_gateway_answers_the_session_before():
    async with aggregator() as running, gateway_of(running.address) as client:
        await running.send(message(0, on_days(0, 1), ["AAPL"]))
        await connected(client)
        path = "/api/v2/aggregates/AAPL"
        _, now = await client.answer(path)
        status, before = await client.answer(f"{path}?session=previous")
        assert (status, before["data"]["close"]) == (200, "100")
        assert now["data"]["close"] == "101"
        assert before["data"]["trades"] == "1"
        assert before["data"]["timestamp"] == "2024-12-26T12:00:00.000000000Z"
        assert (await client.answer(f"{path}?session=2024-12-26"))[1] == before
        assert (await client.answer(f"{path}?session=2020-01-01"))[0] == 404
        assert (await client.answer(f"{path}?session=soon"))[0] == 400
        status, of_all = await client.answer("/api/v2/aggregates?session=previous")
        assert (status, of_all["error"]["code"]) == (400, "bad_parameter")
        for session, data in [
            ("previous", {"close": 100, "timestamp": "1735214400000"}),
            ("2024-12-26", {"close": 100, "timestamp": "1735214400000"}),
            ("", {"close": 101, "timestamp": "1735300800000"}),
            ("2020-01-01", None),
        ]:
            asked = f'{{ marketData(symbol: "AAPL", session: "{session}") {{ close timestamp }} }}'
            async with client.post("/graphql", json={"query": asked}) as response:
                assert await response.json() == {"data": {"marketData": data}}
        async with client.ws_connect("/stream") as socket:
            request = {"op": "subscribe", "id": 1, "channel": "aggregates", "symbols": ["AAPL"]}
            await socket.send_json(request | {"session": "previous"})
            assert (await socket.receive_json())["error"]["code"] == "bad_request"
        await running.send(message(2, on_days(-1), ["AAPL"]))
        await running.send(message(3, on_days(1), ["MSFT"]))
        async with client.ws_connect("/ws/marketdata?symbol=MSFT") as socket:
            await socket.receive_json()
        async with client.get("/metrics") as response:
            assert "mdtool_ticks_late_for_sessions_total 1.0" in await response.text()
