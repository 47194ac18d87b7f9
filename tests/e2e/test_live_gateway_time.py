"""The time of the live gateway: where playback begins, seeks, pauses, and times moved to now."""

from __future__ import annotations

import contextlib
import datetime as dt
import time

import aiohttp
import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.server import LiveGateway
from mdtool.wire.dbn_records import DTYPES, RTYPE_DEFINITION, shifted
from mdtool.wire.live import Start
from tests.support.dbn_files import DAY, MAY_1, header, order, trade, write
from tests.support.live_clients import (
    BOTH_DAYS,
    client,
    controlled,
    session,
    texts,
    trades_apart,
    wants,
)
from tests.support.services import running

MS = 10**6
SECOND = 10**9


def times(received: list) -> list[int]:
    """Of the trades, in milliseconds since the first of May."""
    return [(each.ts_event - MAY_1) // MS for each in received if isinstance(each, dbn.TradeMsg)]


def orders_apart(path, instants: int):
    """A file of so many trades among orders, a millisecond apart."""
    records = [order(1, MAY_1 + at * MS, "T", "A", 5, 1, 9) for at in range(instants)]
    return write(path / "orders.dbn", header(BOTH_DAYS, "mbo"), *records)


def made(received: list) -> list[int]:
    """Of trades and quotes, as `times`."""
    kinds = dbn.TradeMsg | dbn.MBP1Msg
    return [(each.ts_event - MAY_1) // MS for each in received if isinstance(each, kinds)]


@contextlib.asynccontextmanager
async def started(address: str, *requests):
    async with client(address) as connected:
        await connected.login()
        connected.send(*requests, Start())
        yield connected


class TestFrom:
    async def test_live_records_begin_there_and_what_is_before_is_replayed(self, tmp_path):
        path = trades_apart(tmp_path, 10)
        async with controlled(path, from_ns=MAY_1 + 6 * MS) as (address, _):
            live = await session(address, wants("AAPL"))
            whole = await session(address, wants("AAPL", start_ns=0))
        assert times(live) == [6, 7, 8, 9]
        assert times(whole) == list(range(10))

    @pytest.mark.parametrize("from_ms", [-5, 0, 9, 10, 500])
    async def test_before_at_the_edges_and_behind(self, tmp_path, from_ms):
        path = trades_apart(tmp_path, 10)
        async with controlled(path, from_ns=MAY_1 + from_ms * MS) as (address, _):
            assert times(await session(address, wants("AAPL"))) == list(range(max(from_ms, 0), 10))

    async def test_books_and_bars_know_what_was_before(self, tmp_path):
        path = write(
            tmp_path / "mbo.dbn",
            header(BOTH_DAYS, "mbo"),
            order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
            order(1, MAY_1 + 2, "T", "A", 5, 7, 9),
            order(1, MAY_1 + SECOND, "A", "B", 6, 1, 10),
        )
        async with controlled(path, from_ns=MAY_1 + SECOND) as (address, _):
            books = await session(address, wants("AAPL", schema="mbo", has_snapshot=True))
            bars = await session(address, wants("AAPL", schema="ohlcv-1d"))
        assert [each.order_id for each in books if getattr(each, "order_id", 0)] == [9, 10]
        assert [each.volume for each in bars if isinstance(each, dbn.OHLCVMsg)] == [7]


class TestControl:
    async def test_pause_and_resume(self, tmp_path):
        path = trades_apart(tmp_path, 200)
        async with (
            controlled(path, speed=0.01) as (address, control),
            started(address, wants("AAPL")) as playing,
        ):
            await playing.until(times)
            _, status = await control("POST", "/pause")
            assert status["datasets"]["XNAS.ITCH"]["state"] == "paused"
            reached = status["datasets"]["XNAS.ITCH"]["position"]
            await playing.until(lambda received: len(times(received)) == reached)
            _, status = await control("GET", "/status")
            assert status["datasets"]["XNAS.ITCH"]["position"] == reached < 200
            assert [each["dataset"] for each in status["sessions"]] == ["XNAS.ITCH"]
            await control("POST", "/resume", dataset="XNAS.ITCH")
            await control("POST", "/set-speed", speed=0)
            assert times(await playing.rest()) == list(range(200))

    async def test_another_speed(self, tmp_path):
        path = trades_apart(tmp_path, 50)
        async with (
            controlled(path, speed=1e-6) as (address, control),
            started(address, wants("AAPL")) as playing,
        ):
            await playing.until(times)
            await control("POST", "/set-speed", speed=0, dataset="")
            assert times(await playing.rest()) == list(range(50))

    @pytest.mark.parametrize("to_ms", [3, 40])
    @pytest.mark.parametrize("at_end", ["close", "hold"])
    async def test_seek_takes_all_sessions_along(self, tmp_path, to_ms, at_end):
        path = trades_apart(tmp_path, 50)
        settings = {"speed": 1e-6, "at_end": at_end}
        async with (
            controlled(path, **settings) as (address, control),
            started(address, wants("AAPL")) as one,
            started(address, wants("AAPL")) as other,
        ):
            await one.until(times)
            await other.until(texts)
            to = dt.datetime.fromtimestamp(MAY_1 // SECOND, dt.UTC).isoformat()[:19]
            await control("POST", "/seek", to=f"{to}.{to_ms:03}Z")
            await control("POST", "/set-speed", speed=0)
            tail = list(range(to_ms, 50))
            for each in (one, other):
                received = await each.until(lambda received: times(received)[-1:] == [49])
                assert times(received)[-len(tail) :] == tail

    async def test_seek_back_from_the_end(self, tmp_path):
        path = trades_apart(tmp_path, 5)
        async with (
            controlled(path, at_end="hold") as (address, control),
            started(address, wants("AAPL")) as held,
        ):
            await held.until(lambda received: len(times(received)) == 5)
            await control("POST", "/seek", to=MAY_1 + 3 * MS)
            received = await held.until(lambda received: len(times(received)) == 7)
            assert times(received) == [0, 1, 2, 3, 4, 3, 4]

    async def test_what_is_made_begins_again_with_the_first_record(self, tmp_path):
        """After a seek, however fast records are due, for each of several sessions."""
        path = orders_apart(tmp_path, 50)
        async with (
            controlled(path, speed=1e9, at_end="hold") as (address, control),
            started(address, wants("AAPL", start_ns=0)) as one,
            started(address, wants("AAPL", schema="mbp-1", start_ns=0)) as other,
        ):
            for n_passes in (1, 2, 3):
                if n_passes > 1:
                    await control("POST", "/seek", to=MAY_1)
                for each, n_records in ((one, 50), (other, 50)):
                    n_all = n_passes * n_records
                    received = await each.until(lambda found, n=n_all: len(made(found)) >= n)
                    assert made(received) == list(range(n_records)) * n_passes

    async def test_what_is_made_begins_again_in_a_loop(self, tmp_path):
        path = orders_apart(tmp_path, 50)
        async with (
            controlled(path, speed=1e9, at_end="loop") as (address, _),
            started(address, wants("AAPL")) as one,
            started(address, wants("AAPL", schema="mbp-1")) as other,
        ):
            for each in (one, other):
                received = await each.until(lambda found: made(found).count(49) >= 3)
                passes = made(received)
                first = passes.index(0)  # the other session may have begun playback
                n_whole = (len(passes) - first) // 50
                assert passes[first : first + n_whole * 50] == list(range(50)) * n_whole

    async def test_a_seek_before_the_first_session(self, tmp_path):
        path = trades_apart(tmp_path, 5)
        async with controlled(path) as (address, control):
            status, answer = await control("POST", "/seek", to=MAY_1 + 3 * MS)
            assert (status, answer["datasets"]["XNAS.ITCH"]["state"]) == (200, "waiting")
            assert times(await session(address, wants("AAPL"))) == [3, 4]

    async def test_a_playback_that_waits_for_a_session(self, tmp_path):
        async with controlled(trades_apart(tmp_path, 400_000)) as (address, control):

            async def state() -> tuple[str, int]:
                _, status = await control("GET", "/status")
                return status["datasets"]["XNAS.ITCH"]["state"], len(status["sessions"])

            assert await state() == ("waiting", 0)
            async with started(address, wants("AAPL")) as reading:
                await reading.until(times)
                assert await state() == ("playing", 1)
            while (await state())[1]:  # until its end is noticed
                pass
            assert await state() == ("waiting", 0)
            await control("POST", "/pause")
            assert await state() == ("paused", 0)
            await control("POST", "/resume")
            await control("POST", "/set-speed", speed=1)
            assert await state() == ("playing", 0)
            await control("POST", "/set-speed", speed=1e12)
            while (await state())[0] == "playing":
                pass
            assert await state() == ("over", 0)

    async def test_web_pages_of_other_sites_control_nothing(self, live_trades):
        config = LiveGatewayConfig(port=0)
        async with (
            running(LiveGateway(config, [str(live_trades)])) as service,
            aiohttp.ClientSession() as http,
        ):
            url = f"http://{service.addresses['control']}"
            for origin, status in {
                "https://evil.example": 403,
                "null": 403,
                "http://127.0.0.1:1": 403,
                url: 200,
            }.items():
                headers = {"Origin": origin}
                async with http.post(f"{url}/set-speed?speed=2", headers=headers) as answer:
                    assert answer.status == status
                async with http.get(f"{url}/status", headers=headers) as answer:
                    assert answer.status == 200

    async def test_web_pages_whose_name_resolves_to_this_machine(self, live_trades):
        config = LiveGatewayConfig(port=0)
        async with (
            running(LiveGateway(config, [str(live_trades)])) as service,
            aiohttp.ClientSession() as http,
        ):
            port = service.addresses["control"].rpartition(":")[2]
            url = f"http://127.0.0.1:{port}"
            for host, status in {
                "evil.example": 403,
                f"evil.example:{port}": 403,
                "localhost.evil.example": 403,
                "127.0.0.1.evil.example": 403,
                "[::1": 403,
                "": 403,
                f"localhost:{port}": 200,
                "LOCALHOST.": 200,
                f"127.0.0.1:{port}": 200,
                f"[::1]:{port}": 200,
            }.items():
                headers = {"Host": host, "Origin": f"http://{host}"}
                for method, path in (("GET", "/status"), ("POST", "/set-speed?speed=2")):
                    async with http.request(method, url + path, headers=headers) as answer:
                        assert (host, answer.status) == (host, status)

    async def test_what_is_not_valid(self, live_trades):
        async with controlled(live_trades) as (_, control):
            for status, path, query in [
                (409, "/pause", {}),
                (400, "/seek", {}),
                (400, "/seek", {"to": "noon"}),
                (400, "/set-speed", {"speed": -1}),
                (400, "/seek", {"to": 1, "dataset": "NONE"}),
                (400, "/faults", {}),
                (400, "/faults", {"add": "explode"}),
                (404, "/nothing", {}),
            ]:
                answered, answer = await control("POST", path, **query)
                assert answered == status
                assert answer["message"]
            assert (await control("GET", "/health"))[0] == 200


class TestRebase:
    async def test_the_first_record_is_now_and_distances_stay(self, tmp_path):
        path = trades_apart(tmp_path, 3)
        before_ns = time.time_ns()
        async with controlled(path, rebase="now") as (address, _):
            received = await session(address, wants("AAPL"))
        first, *rest = [each for each in received if isinstance(each, dbn.TradeMsg)]
        assert before_ns <= first.ts_event == first.ts_recv <= time.time_ns()
        assert [each.ts_recv - first.ts_recv for each in rest] == [MS, 2 * MS]

    async def test_symbols_are_those_of_the_days_of_the_input(self, tmp_path):
        names = header({"AAPL": {1: 1, 2: 2}, "MSFT": {1: 2, 2: 1}})
        path = write(
            tmp_path / "days.dbn",
            names,
            trade(1, MAY_1 + DAY - 10, 10, 1),
            trade(2, MAY_1 + DAY - 5, 20, 1),
            trade(1, MAY_1 + DAY + 1, 30, 1),
            trade(2, MAY_1 + DAY + 2, 40, 1),
        )
        async with controlled(path, rebase="now") as (address, _):
            received = await session(address, wants("AAPL"))
            replayed = await session(address, wants("AAPL", start_ns=0))
        for each in (received, replayed):
            prices = [trade.price // 10**9 for trade in each if isinstance(trade, dbn.TradeMsg)]
            assert prices == [10, 40]

    async def test_bars_and_samples_are_of_the_moved_times(self, tmp_path):
        path = write(
            tmp_path / "mbo.dbn",
            header(BOTH_DAYS, "mbo"),
            order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
            order(1, MAY_1 + 2, "T", "A", 5, 7, 9),
        )
        async with controlled(path, rebase="now") as (address, _):
            received = await session(
                address, wants("AAPL", schema="ohlcv-1s"), wants("AAPL", schema="bbo-1s")
            )
        (bar,) = [each for each in received if isinstance(each, dbn.OHLCVMsg)]
        (sample,) = [each for each in received if isinstance(each, dbn.BBOMsg)]
        assert bar.ts_event % SECOND == sample.ts_recv % SECOND == 0
        assert abs(time.time_ns() - bar.ts_event) < DAY

    async def test_playback_begins_now_where_it_begins_later(self, tmp_path):
        path = trades_apart(tmp_path, 10)
        before_ns = time.time_ns()
        async with controlled(path, rebase="now", from_ns=MAY_1 + 6 * MS) as (address, _):
            received = await session(address, wants("AAPL"))
        first = next(each for each in received if isinstance(each, dbn.TradeMsg))
        assert before_ns <= first.ts_event <= time.time_ns()


def test_undefined_times_stay_undefined_when_others_move():
    records = np.zeros(1, DTYPES[RTYPE_DEFINITION])
    records["rtype"] = RTYPE_DEFINITION
    records["ts_event"], records["expiration"] = 100, 300
    records["activation"] = dbn.UNDEF_TIMESTAMP
    for offset, expected in ((-50, (50, 0, 250, dbn.UNDEF_TIMESTAMP)), (7, (107, 0, 307, None))):
        moved = shifted(records, offset)[0]
        assert (moved["ts_event"], moved["ts_recv"], moved["expiration"]) == expected[:3]
        assert moved["activation"] == dbn.UNDEF_TIMESTAMP
    assert records["ts_event"] == 100


async def test_a_start_before_the_file_replays_all_of_it(tmp_path):
    path = trades_apart(tmp_path, 10)
    async with controlled(path, from_ns=MAY_1 + 5 * MS) as (address, _):
        received = await session(address, wants("AAPL", start_ns=MAY_1 - DAY))
    assert times(received) == list(range(10))
