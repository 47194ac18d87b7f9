"""Schemas that the live gateway makes of the input."""

from __future__ import annotations

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.batch import Batch
from mdtool.engine.book.state import Books
from mdtool.engine.simulate import Exchange
from mdtool.wire.live import Start
from tests.support.dbn_files import DAY, MAY_1, header, order, trade, write
from tests.support.live_clients import BOTH_DAYS, client, controlled, gateway, session, texts, wants


class TestDerived:
    async def test_trades_of_orders(self, tmp_path):
        path = write(
            tmp_path / "mbo.dbn",
            header(BOTH_DAYS, "mbo"),
            order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
            order(1, MAY_1 + 2, "T", "A", 5, 1, 9),
            order(2, MAY_1 + 3, "T", "A", 6, 1, 9),
        )
        async with gateway(path) as address:
            received = await session(address, wants("AAPL"), has_ts_out=True)
            both = await session(address, wants("AAPL"), wants("MSFT", schema="mbo"))
        assert texts(received)[3:] == ["TradeMsg 1 2"]
        assert (received[-1].price, received[-1].size) == (5 * 10**9, 1)
        assert sorted(texts(both)[5:]) == ["MBOMsg 2 3", "TradeMsg 1 2"]

    async def test_quotes_with_each_trade(self, tmp_path):
        quotes = [
            bytes(
                dbn.MBP1Msg(
                    publisher_id=1,
                    instrument_id=1,
                    ts_event=MAY_1 + at,
                    ts_recv=MAY_1 + at,
                    price=1,
                    size=1,
                    action=action,
                    side=dbn.Side.BID,
                    depth=0,
                )
            )
            for at, action in enumerate([dbn.Action.ADD, dbn.Action.TRADE])
        ]
        path = write(tmp_path / "quotes.dbn", header(BOTH_DAYS, "mbp-1"), *quotes)
        async with gateway(path) as address:
            received = await session(address, wants("AAPL", schema="tbbo"))
            trades = await session(address, wants("AAPL"))
        assert texts(received)[3:] == ["MBP1Msg 1 1"]
        assert texts(trades)[3:] == ["TradeMsg 1 1"]


SECOND = 10**9


def day_of_orders(tmp_path):
    """Orders of AAPL at three times of a minute, trades at two of them."""
    return write(
        tmp_path / "orders.dbn",
        header(BOTH_DAYS, "mbo"),
        order(1, MAY_1 + 1, "A", "B", 5, 1, 9),
        order(1, MAY_1 + 2, "A", "A", 7, 1, 10),
        order(1, MAY_1 + 3, "T", "A", 7, 1, 10),
        order(1, MAY_1 + SECOND, "A", "B", 6, 2, 11),
        order(2, MAY_1 + SECOND + 1, "A", "B", 1, 1, 12),
        order(1, MAY_1 + 2 * SECOND, "T", "A", 6, 2, 11),
    )


class TestIntervals:
    async def test_bars_end_with_their_interval(self, tmp_path):
        path = day_of_orders(tmp_path)
        async with gateway(path) as address:
            received = await session(
                address, wants("AAPL", schema="ohlcv-1s"), wants("MSFT", schema="ohlcv-1d")
            )
        assert texts(received)[5:] == [
            "OHLCVMsg 1 0",
            "End of interval for ohlcv-1s",
            "OHLCVMsg 1 0",
            "End of interval for ohlcv-1s",
            "End of interval for ohlcv-1d",
        ]
        first, first_end, second, second_end, day_end = received[5:]
        assert (first.close, first.volume, second.close, second.volume) == (
            7 * SECOND,
            1,
            6 * SECOND,
            2,
        )
        ends = [each.ts_event - MAY_1 for each in (first_end, second_end, day_end)]
        assert ends == [SECOND, 3 * SECOND, DAY]
        assert int(first_end.code) == 4

    async def test_samples_of_quotes(self, tmp_path):
        path = day_of_orders(tmp_path)
        async with gateway(path) as address:
            received = await session(address, wants("ALL_SYMBOLS", schema="bbo-1s"))
        samples = [each for each in received if isinstance(each, dbn.BBOMsg)]
        assert [
            (
                each.ts_recv - MAY_1,
                each.instrument_id,
                each.levels[0].bid_px // SECOND,
                each.price if each.price == dbn.UNDEF_PRICE else each.price // SECOND,
            )
            for each in samples
        ] == [
            (SECOND, 1, 5, 7),
            (2 * SECOND, 1, 6, 7),
            (2 * SECOND, 2, 1, dbn.UNDEF_PRICE),
            (3 * SECOND, 1, 6, 6),
        ]
        ends = [each.ts_event - MAY_1 for each in received if isinstance(each, dbn.SystemMsg)][1:]
        assert ends == [SECOND, 2 * SECOND, 3 * SECOND]

    @pytest.mark.parametrize("start_ns", [0, MAY_1 + 2])
    async def test_a_sample_of_a_replay_has_what_changed_before_it_joined(self, tmp_path, start_ns):
        """Also where the books are kept for other sessions already."""
        path = day_of_orders(tmp_path)
        minutes = wants("ALL_SYMBOLS", schema="bbo-1m", start_ns=start_ns)
        settings = {"from_ns": MAY_1 + SECOND + 1, "speed": 1e-6}
        async with controlled(path, **settings) as (address, control), client(address) as first:
            await first.login()
            first.send(wants("MSFT", schema="mbp-1"), wants("MSFT", schema="bbo-1s"), Start())
            await first.until(lambda found: any(isinstance(each, dbn.MBP1Msg) for each in found))
            async with client(address) as late:
                await late.login()
                late.send(wants("MSFT"), minutes, Start())
                await late.until(lambda found: "Finished bbo-1m replay" in texts(found))
                await control("POST", "/set-speed", speed=0)
                received = await late.rest()
            seconds = await first.rest()
        samples = [each for each in received if isinstance(each, dbn.BBOMsg)]
        assert [(each.instrument_id, each.levels[0].bid_px // SECOND) for each in samples] == [
            (1, 6),
            (2, 1),
        ]
        assert [each.instrument_id for each in seconds if isinstance(each, dbn.BBOMsg)] == [2]

    async def test_the_last_bars_are_there_for_who_comes_to_a_held_end(self, tmp_path):
        """In a session that begins there, and in one that waits there, each once."""
        path = day_of_orders(tmp_path)
        last = ["OHLCVMsg 1 0", "End of interval for ohlcv-1d"]
        async with gateway(path, at_end="hold") as address, client(address) as early:
            await early.login()
            early.send(wants("AAPL", schema="ohlcv-1s"), Start())
            await early.until(lambda found: texts(found).count("End of interval for ohlcv-1s") == 2)
            async with client(address) as late:
                await late.login()
                late.send(wants("AAPL", schema="ohlcv-1d"), Start())
                assert texts(await late.until(lambda found: last[1] in texts(found)))[-2:] == last
            early.send(wants("AAPL", schema="ohlcv-1d"))
            assert texts(await early.until(lambda found: last[1] in texts(found)))[-2:] == last
            early.send(wants("AAPL", schema="ohlcv-1h"))
            bars = "End of interval for ohlcv-1h"
            found = texts(await early.until(lambda found: bars in texts(found)))
        assert [found.count(f"End of interval for ohlcv-{each}") for each in ("1s", "1d")] == [2, 1]

    async def test_bars_of_trades(self, live_trades):
        async with gateway(live_trades) as address:
            received = await session(address, wants("AAPL", schema="ohlcv-1h"))
        assert texts(received)[3:] == ["OHLCVMsg 1 0", "End of interval for ohlcv-1h"]
        assert received[3].volume == 2

    @pytest.mark.parametrize("next_day", [2, 4, 30])
    @pytest.mark.parametrize("schema", ["ohlcv-1s", "ohlcv-1m", "ohlcv-1d"])
    async def test_the_last_bar_of_a_day_has_the_symbols_of_that_day(
        self, tmp_path, schema, next_day
    ):
        """Instrument 1 is another symbol on the next day, when the bar of the first closes."""
        path = write(
            tmp_path / "days.dbn",
            header({"AAPL": {1: 1, next_day: 2}, "MSFT": {1: 2, next_day: 1}}),
            trade(1, MAY_1 + DAY - 1, 10, 1),
            trade(1, MAY_1 + (next_day - 1) * DAY + 1, 20, 1),
        )
        async with gateway(path) as address:
            received = await session(address, wants("AAPL", schema=schema))
        bars = [each for each in received if isinstance(each, dbn.OHLCVMsg)]
        assert [(each.instrument_id, each.close // SECOND) for each in bars] == [(1, 10)]
        ends = [each for each in received if isinstance(each, dbn.SystemMsg)][1:]
        assert ends[0].ts_event == MAY_1 + DAY
        assert len(ends) == 2  # the other one is of an interval without bars of AAPL


class TestSharing:
    async def test_quotes_of_both_depths_replayed_and_live(self, tmp_path):
        """Whatever a session joins, it gets what `mdtool book` makes of the same file."""
        orders = Exchange(seed=1, rate=1_000.0).generate(30_000)
        path = write(tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), orders.tobytes())
        made = [each.records for each in Books().events(Batch.of(orders), 10)]
        expected = np.concatenate(made)["sequence"].tolist()

        def sequences(received) -> list[int]:
            return [each.sequence for each in received if isinstance(each, dbn.MBP10Msg)]

        deep = wants("ALL_SYMBOLS", schema="mbp-10")
        settings = {"speed": 100.0, "backlog_bytes": 1 << 18}
        async with gateway(path, **settings) as address, client(address) as early:
            await early.login(skips=False)
            early.send(deep, wants("ALL_SYMBOLS", schema="mbp-1"), Start())
            await early.until(lambda received: len(received) > 500)
            late = wants("ALL_SYMBOLS", schema="mbp-10", start_ns=0)
            replayed = await session(address, late, skips=False)
            live = await early.rest()
        assert sequences(replayed) == expected
        assert sequences(live) == expected

    @pytest.mark.parametrize("snapshot", [False, True])
    async def test_the_session_that_begins_playback_misses_nothing(self, tmp_path, snapshot):
        """However fast records are due while its order books are prepared."""
        orders = Exchange(seed=1).generate(2_000)
        path = write(tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), orders.tobytes())
        expected = np.concatenate([each.records for each in Books().events(Batch.of(orders), 10)])
        kinds = [wants("ALL_SYMBOLS", schema="mbp-10")]
        if snapshot:
            kinds.append(wants("ALL_SYMBOLS", schema="mbo", has_snapshot=True))
        async with gateway(path, speed=1e9) as address:
            received = await session(address, *kinds, skips=False)
        quotes = [each.sequence for each in received if isinstance(each, dbn.MBP10Msg)]
        assert quotes == expected["sequence"].tolist()

    async def test_a_gateway_without_books_makes_no_quotes(self, tmp_path):
        path = day_of_orders(tmp_path)
        async with gateway(path, snapshots=False) as address:
            received = await session(
                address, wants("AAPL", schema="mbp-1"), wants("AAPL", schema="ohlcv-1d")
            )
        assert texts(received)[5:] == ["OHLCVMsg 1 0", "End of interval for ohlcv-1d"]
