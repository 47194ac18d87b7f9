"""The gateway in front of the aggregation service itself."""

from __future__ import annotations

import grpc.aio
import pytest

from mdtool.adapters import rpc
from mdtool.services.aggregator.config import AggregatorConfig
from mdtool.services.aggregator.server import Aggregator
from mdtool.wire._pb import tick_pb2
from tests.support.aggregators import aggregator as aggregating
from tests.support.aggregators import message, tick
from tests.support.gateways import Client, gateway_of
from tests.support.services import running
from tests.support.waiting import bounded

NOON_NS = 1_735_214_400 * 10**9
SECOND_NS = 10**9


@pytest.fixture
async def aggregator():
    async with running(Aggregator(AggregatorConfig(port=0))) as (addresses, _):
        yield addresses["grpc"]


async def test_an_aggregator_that_cannot_commit_is_blocked_until_it_can(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    async with (
        aggregating(store=f"sqlite:///{folder}/m.db") as service,
        gateway_of(service.address) as client,
    ):
        await until(client, "ok", None)
        call = service.stub.StreamTickBatches()
        await call.write(message(0, [tick(1)], ["AAPL"]))
        assert (await call.read()).next_sequence == 1
        folder.rename(tmp_path / "away")
        await call.write(message(1, [tick(1)]))
        await until(client, "blocked", "its store is unavailable")
        async with client.get("/metrics") as response:
            assert "mdtool_stream_held_up 1.0" in await response.text()
        (tmp_path / "away").rename(folder)
        await until(client, "ok", None)
        assert (await call.read()).next_sequence == 2
        call.cancel()


async def until(client: Client, status: str, said: str | None) -> None:
    """Wait until `/health` says so, for as long as the test may take."""
    while True:
        code, report = await client.answer("/health")
        if report["status"] == status:
            assert code == 200
            break
    text = report["aggregator"]["message"]
    assert text is None if said is None else said in text


async def trade(aggregator: str, *ticks: tuple[str, float, int, int]) -> None:
    async with grpc.aio.insecure_channel(aggregator) as channel:
        await rpc.Stub(channel).StreamTicks(
            tick_pb2.Tick(symbol=symbol, price=price, volume=volume, exchange_timestamp=timestamp)
            for symbol, price, volume, timestamp in ticks
        )


async def test_trades_reach_sockets_reads_bars_and_metrics(aggregator):
    async with (
        gateway_of(aggregator) as client,
        client.ws_connect("/ws/marketdata?symbol=AAPL") as socket,
    ):
        await trade(
            aggregator,
            ("AAPL", 187.25, 400, NOON_NS),
            ("AAPL", 188.5, 300, NOON_NS + 1),
            ("AAPL", -1.0, 300, NOON_NS + 2),
            ("MSFT", 410.0, 5, NOON_NS + 3),
            ("AAPL", 186.0, 200, NOON_NS + SECOND_NS),
        )
        async with bounded():
            while (update := await socket.receive_json())["volume"] < 900:
                pass
        assert (update["open"], update["high"], update["close"]) == (187.25, 188.5, 186)

        _, answer = await client.answer("/api/v1/marketdata/AAPL")
        assert (answer["volume"], answer["timestamp"]) == ("900", "1735214401000")
        _, entries = await client.answer("/api/v1/marketdata")
        assert [entry["symbol"] for entry in entries] == ["AAPL", "MSFT"]

        _, seconds = await client.answer("/api/v1/bars/AAPL?interval=1s&limit=1")
        assert [bar["volume"] for bar in seconds["data"]] == ["200"]
        cursor = seconds["pagination"]["next_cursor"]
        assert cursor == "1735214401000"
        _, older = await client.answer(f"/api/v1/bars/AAPL?interval=1s&before={cursor}")
        assert [(bar["close"], bar["volume"]) for bar in older["data"]] == [(188.5, "700")]
        _, minutes = await client.answer("/api/v1/bars/AAPL?interval=1m")
        assert [(bar["volume"], bar["count"]) for bar in minutes["data"]] == [("900", 3)]

        metrics = await (await client.get("/metrics")).text()
        assert "mdtool_ticks_total 4.0" in metrics
        assert 'mdtool_ticks_refused_total{reason="price"} 1.0' in metrics


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/bars/NONE?interval=1m", 404),
        ("/api/v1/bars/AAPL?interval=7m", 400),
        ("/api/v1/bars/AAPL?interval=1ns", 400),
    ],
)
async def test_what_the_aggregator_refuses_is_the_clients_error(aggregator, path, status):
    await trade(aggregator, ("AAPL", 187.25, 400, NOON_NS))
    async with gateway_of(aggregator) as client:
        assert (await client.answer(path))[0] == status
