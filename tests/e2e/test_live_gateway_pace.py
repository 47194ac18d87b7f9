"""Heartbeats and slow readers of the live gateway."""

from __future__ import annotations

import asyncio
import re

import databento_dbn as dbn
import pytest

from mdtool.adapters.dbn_files import Recording
from mdtool.services.live_gateway.config import LiveGatewayConfig
from mdtool.services.live_gateway.inputs import Input, PipedInput
from mdtool.services.live_gateway.playback import Playback
from mdtool.services.replay.runs import Run
from mdtool.wire.live import Start
from tests.support.dbn_files import DAY, MAY_1, header, order, write
from tests.support.live_clients import (
    BOTH_DAYS,
    client,
    controlled,
    gateway,
    session,
    texts,
    trades_apart,
    wants,
)


class TestPace:
    async def test_a_heartbeat_when_nothing_else_is_sent(self, live_trades):
        async with gateway(live_trades, at_end="hold") as address, client(address) as held:
            await held.login(heartbeat_interval_s=5)
            held.send(wants("AAPL"), Start())
            received = await held.until(lambda received: len(received) >= 6)
        assert texts(received)[4:6] == ["TradeMsg 1 3", "Heartbeat"]

    @pytest.mark.parametrize("place", ["the live point", "a book"])
    async def test_heartbeats_while_files_are_read_for_the_session(
        self, tmp_path, monkeypatch, place
    ):
        has_beaten = asyncio.Event()

        def waiting(work):
            async def waited(*arguments, **options):
                await has_beaten.wait()
                return await work(*arguments, **options)

            return waited

        name = "live" if place == "the live point" else "derive"
        monkeypatch.setattr(Run, name, waiting(getattr(Run, name)))
        orders = [order(1, MAY_1 + at, "A", "B", 10, 1, order_id=1 + at) for at in range(3)]
        path = write(tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), *orders)
        async with gateway(path, at_end="hold") as address, client(address) as waits:
            await waits.login(heartbeat_interval_s=5)
            waits.send(wants("AAPL", schema="mbo"), Start())
            if name == "derive":
                await waits.until(lambda received: len(received) == 6)
                waits.send(wants("AAPL", schema="mbo", has_snapshot=True))
            before = len(await waits.until(lambda received: "Heartbeat" in texts(received)))
            has_beaten.set()
            await waits.until(lambda received: isinstance(received[-1], dbn.MBOMsg))
            assert len(waits.received) > before

    @pytest.mark.parametrize("skips", [False, True])
    async def test_slow_readers_are_warned_and_miss_quotes_alone(self, tmp_path, skips):
        quote = bytes(
            dbn.MBP1Msg(
                publisher_id=1,
                instrument_id=1,
                ts_event=MAY_1,
                ts_recv=MAY_1,
                price=1,
                size=1,
                action=dbn.Action.ADD,
                side=dbn.Side.BID,
                depth=0,
            )
        )
        quotes = write(tmp_path / "quotes.dbn", header(BOTH_DAYS, "mbp-1"), quote * 300_000)
        path = trades_apart(tmp_path, 300_000)
        settings = {"speed": 1e12, "backlog_bytes": 1 << 16}
        async with gateway(quotes, path, **settings) as address, client(address) as slow:
            await slow.login(skips=skips)
            slow.send(wants("AAPL", schema="mbp-1"), wants("AAPL"), Start())
            await slow.until(lambda received: len(received) >= 5)
            await session(address, wants("AAPL", schema="status"))  # up to the end of the input
            received = await slow.rest()
        n_quotes = sum(isinstance(each, dbn.MBP1Msg) for each in received)
        assert sum(isinstance(each, dbn.TradeMsg) for each in received) == 300_000
        assert "Warning: slow reading, not keeping pace with mbp-1 data" in texts(received)
        missed = [each.err for each in received if isinstance(each, dbn.ErrorMsg)]
        assert (n_quotes < 300_000) == bool(missed) == skips
        skipped = [re.fullmatch(r"Skipped (\d+) records after slow reading", err) for err in missed]
        assert sum(int(each[1]) for each in skipped) == 300_000 - n_quotes

    async def test_a_replay_of_quotes_is_not_slow_reading(self, tmp_path):
        """The playback is over, and its backlog gone, before the replay has come so far."""
        quotes = [
            bytes(
                dbn.MBP1Msg(
                    publisher_id=1,
                    instrument_id=1,
                    ts_event=MAY_1 + at * DAY // 2,
                    ts_recv=MAY_1 + at * DAY // 2,
                    price=1,
                    size=1,
                    action=dbn.Action.ADD,
                    side=dbn.Side.BID,
                    depth=0,
                )
            )
            for at in (0, 1)
        ]
        path = write(
            tmp_path / "quotes.dbn",
            header(BOTH_DAYS, "mbp-1"),
            quotes[0] * 300_000,  # more than buffers hold, until its client reads
            quotes[1] * 200_000,
        )
        async with (
            controlled(path, speed=1.0, backlog_bytes=1 << 16) as (address, control),
            client(address, 1 << 16) as replaying,
        ):
            await replaying.login()
            async with client(address) as first:
                await first.login(skips=False)
                first.send(wants("AAPL", schema="mbp-1"), Start())
                await first.until(lambda received: len(received) > 300_000)
            early = asyncio.create_task(session(address, wants("AAPL", schema="status")))
            replaying.send(wants("AAPL", schema="mbp-1", start_ns=0), Start())
            await replaying.until(lambda received: len(received) > 3)
            await control("POST", "/set-speed", speed=1e12)  # to its end
            await early
            received = await replaying.rest()
        assert not any("slow" in text for text in texts(received) if not text.startswith("MBP"))
        assert sum(isinstance(each, dbn.MBP1Msg) for each in received) == 500_000

    async def test_full_speed_skips_nothing(self, tmp_path):
        path = trades_apart(tmp_path, 300_000)
        async with gateway(path, backlog_bytes=1 << 16) as address, client(address) as slow:
            await slow.login()
            slow.send(wants("AAPL"), Start())
            await slow.until(lambda received: len(received) >= 5)
            await session(address, wants("AAPL", schema="status"))
            received = await slow.rest()
        assert len(received) == 3 + 300_000


@pytest.mark.parametrize(
    ("recording", "given", "speed"),
    [
        (Recording(("day.dbn",)), None, 1.0),
        (Recording(("day.dbn",)), 0.0, 0.0),
        (PipedInput(("-",)), None, 0.0),
        (PipedInput(("-",)), 2.0, 2.0),
    ],
)
async def test_the_speed_at_which_playback_begins(recording, given, speed):
    async with asyncio.TaskGroup() as tasks:
        playback = Playback(Input(recording, None), LiveGatewayConfig(speed=given), tasks)
    assert playback.speed == speed
