"""The live gateway over raw sockets: what each session gets, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import databento_dbn as dbn
import pytest
import zstandard

from mdtool.core.errors import StartupError, UsageError
from mdtool.wire.live import Start, Unsubscribe
from tests.support.dbn_files import HOUR, MAY_1, header, order, trade, write
from tests.support.live_clients import (
    ACK,
    BOTH_DAYS,
    client,
    controlled,
    gateway,
    session,
    texts,
    trades_apart,
    wants,
)
from tests.support.services import service
from tests.support.waiting import bounded


class TestOrder:
    async def test_acknowledgement_mappings_data_and_the_end(self, live_trades):
        async with gateway(live_trades) as address:
            received = await session(address, wants("AAPL", "NOPE", id=7))
        assert texts(received) == [
            "metadata",
            ACK.format(7, "trades"),
            "AAPL = AAPL 1",
            "error 4: Failed to resolve symbol: NOPE",
            "TradeMsg 1 1",
            "TradeMsg 1 3",
        ]

    async def test_of_errors_that_come_together_the_last_one_says_so(self, live_trades):
        async with gateway(live_trades) as address:
            received = await session(address, wants("NOPE", "AAPL", "NO"), wants("NONE"))
        errors = [each for each in received if isinstance(each, dbn.ErrorMsg)]
        told = [(int(each.code), each.err.split()[-1], each.is_last) for each in errors]
        assert told == [(4, "NOPE", 0), (4, "NO", 1), (4, "NONE", 1)]

    async def test_several_subscriptions_get_each_record_once(self, live_trades):
        async with gateway(live_trades) as address:
            received = await session(
                address, wants("AAPL"), wants("ALL_SYMBOLS"), wants("MSFT", schema="mbo")
            )
        assert texts(received)[1:] == [
            ACK.format(0, "trades"),
            "AAPL = AAPL 1",
            ACK.format(1, "trades"),
            "AAPL = AAPL 1",
            "MSFT = MSFT 2",
            ACK.format(2, "mbo"),
            "MSFT = MSFT 2",
            "TradeMsg 1 1",
            "TradeMsg 2 2",
            "TradeMsg 1 3",
        ]

    async def test_playback_begins_with_a_session_and_again_with_the_next(self, live_trades):
        async with gateway(live_trades) as address, client(address) as waiting:
            await waiting.login()
            for _ in range(2):
                assert len(await session(address, wants("AAPL"))) == 5
            waiting.send(wants("AAPL"), Start())
            assert len(await waiting.rest()) == 5

    async def test_datasets_have_streams_of_their_own(self, live_trades, tmp_path):
        futures = header({"ESM4": {1: 1}}, dataset="GLBX.MDP3")
        other = write(tmp_path / "futures.dbn", futures, trade(1, MAY_1 + 9, 10, 1))
        async with gateway(live_trades, other) as address:
            for dataset, n_records in {"XNAS.ITCH": 3, "GLBX.MDP3": 1}.items():
                metadata, *rest = await session(address, wants("ALL_SYMBOLS"), dataset=dataset)
                assert metadata.dataset == dataset
                assert sum(isinstance(each, dbn.TradeMsg) for each in rest) == n_records

    async def test_files_are_merged(self, live_trades, tmp_path):
        orders = write(
            tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), order(2, MAY_1 + 2, "A", "B", 5, 1, 9)
        )
        async with gateway(live_trades, orders) as address:
            received = await session(
                address, wants("AAPL"), wants("MSFT", schema="mbo"), wants("AAPL", schema="mbp-1")
            )
        assert texts(received)[-3:] == ["TradeMsg 1 1", "MBOMsg 2 2", "TradeMsg 1 3"]


class TestForms:
    @pytest.mark.parametrize("compression", ["none", "zstd"])
    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("has_ts_out", [False, True])
    async def test_versions_compression_and_ts_out(
        self, live_trades, compression, version, has_ts_out
    ):
        fields = {"compression": compression, "has_ts_out": has_ts_out}
        async with gateway(live_trades, dbn_version=version) as address:
            metadata, *records = await session(address, wants("AAPL"), **fields)
        assert (metadata.version, metadata.ts_out, metadata.schema) == (version, has_ts_out, None)
        assert len(records) == 4
        assert all((each.ts_out > MAY_1) == has_ts_out for each in records if has_ts_out)

    async def test_zstd_is_flushed_when_idle(self, live_trades):
        async with gateway(live_trades, at_end="hold") as address, client(address) as held:
            await held.login(compression="zstd")
            held.send(wants("AAPL"), Start())
            await held.until(lambda received: len(received) == 5)
            held.send(wants("MSFT"))
            received = await held.until(lambda received: len(received) == 7)
            assert texts(received)[-1] == "MSFT = MSFT 2"


class TestBare:
    async def test_it_is_the_input_byte_for_byte(self, live_trades):
        async with gateway(live_trades, bare=True) as address:
            for _ in range(2):
                async with client(address) as connected:
                    await connected.login(has_ts_out=False)
                    connected.send(wants("MSFT"), Start())
                    await connected.rest()
                    assert connected.data == live_trades.read_bytes()

    async def test_it_sends_nothing_more_while_it_is_held(self, live_trades):
        settings = {"bare": True, "at_end": "hold"}
        async with gateway(live_trades, **settings) as address, client(address) as held:
            await held.login(heartbeat_interval_s=5)
            held.send(Start())
            await held.until(lambda received: len(received) == 4)
            held.send(Start(), wants("MSFT"), b"what is this\n")
            held.leave()
            await held.rest()
            assert held.data == live_trades.read_bytes()

    @pytest.mark.parametrize(("version", "has_ts_out"), [(1, False), (2, False), (3, True)])
    @pytest.mark.parametrize("is_zstd", [False, True])
    async def test_a_file_of_any_version(self, tmp_path, version, has_ts_out, is_zstd):
        whole = recorded(version, has_ts_out)
        path = tmp_path / "day.dbn"
        path.write_bytes(zstandard.compress(whole) if is_zstd else whole)
        async with gateway(path, bare=True) as address, client(address) as connected:
            await connected.login(compression="none")
            connected.send(Start())
            assert await connected.raw() == whole

    @pytest.mark.parametrize("version", [1, 3])
    async def test_a_file_that_breaks_off(self, tmp_path, version):
        whole = recorded(version)
        path = tmp_path / "day.dbn"
        path.write_bytes(whole[:-10])
        async with gateway(path, bare=True) as address, client(address) as connected:
            await connected.login()
            connected.send(Start())
            received = await connected.raw()
        n_known = len(whole) - 24 - 48
        assert received[:n_known] == whole[:n_known]
        error = received[n_known:]
        assert len(error) == {1: 80, 3: 320}[version]
        assert b"day.dbn: ends inside a record" in error

    async def test_a_loop_and_a_seek_have_no_second_header(self, tmp_path):
        path = trades_apart(tmp_path, 20)
        whole = path.read_bytes()
        begin = len(whole) - 20 * 48
        async with (
            controlled(path, bare=True, at_end="loop", speed=1e12) as (address, _),
            client(address) as looped,
        ):
            await looped.login()
            looped.send(Start())
            await looped.until(lambda received: len(received) > 50)
            times = [each.ts_event for each in looped.received[1:51]]
        assert times == [MAY_1 + at % 20 * 10**6 for at in range(50)]
        async with (
            controlled(path, bare=True, speed=1e-6) as (address, control),
            client(address) as sought,
        ):
            await sought.login()
            sought.send(Start())
            await sought.until(lambda received: len(received) > 1)
            await control("POST", "/seek", to=MAY_1 + 18 * 10**6)
            await control("POST", "/set-speed", speed=1e12)
            assert await sought.raw() == whole[: begin + 48] + whole[-96:]

    async def test_several_files_are_one_stream_in_version_3(self, tmp_path):
        first = trades_apart(tmp_path, 3, "first.dbn")
        second = trades_apart(tmp_path, 3, "second.dbn")
        async with gateway(first, second, bare=True) as address:
            metadata, *received = await session(address)
        assert (metadata.version, metadata.symbols) == (3, ["AAPL", "MSFT"])
        assert [(each.ts_event - MAY_1) // 10**6 for each in received] == [0, 0, 1, 1, 2, 2]


def recorded(version: int, has_ts_out: bool = False) -> bytes:
    """A file of a version whose records have other layouts in others, with unknown ones."""
    metadata = dbn.Metadata(
        dataset="XNAS.ITCH",
        start=MAY_1,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=None,
        symbols=["AAPL"],
        ts_out=has_ts_out,
        version=version,
    )
    statistic = {
        "publisher_id": 1,
        "instrument_id": 1,
        "ts_event": MAY_1,
        "ts_recv": MAY_1,
        "ts_ref": MAY_1,
        "price": 5,
        "quantity": 6,
        "stat_type": dbn.StatType.OPENING_PRICE,
    }
    is_first = version == 1
    records = [
        bytes(each)
        for each in (
            (dbn.StatMsg if version == 3 else dbn.StatMsgV1)(**statistic),
            (dbn.SystemMsgV1 if is_first else dbn.SystemMsg)(ts_event=MAY_1, msg="Heartbeat"),
            (dbn.ErrorMsgV1 if is_first else dbn.ErrorMsg)(ts_event=MAY_1, err="no"),
        )
    ]
    unknown = bytes([6, 0xF0]) + bytes(22)
    first, last = trade(1, MAY_1 + 1, 10, 1), trade(1, MAY_1 + 2, 11, 1)
    records = [unknown, first, *records, unknown, last]
    if has_ts_out:
        records = [bytes([each[0] + 2]) + each[1:] + b"12345678" for each in records]
    return metadata.encode() + b"".join(records)


class TestStart:
    async def test_a_replay_continues_at_the_live_point_without_gap_or_duplicate(self, tmp_path):
        times = [MAY_1 + at * 10**6 + (at >= 30) * HOUR for at in range(200)]
        records = [trade(1, at_ns, 10, 1) for at_ns in times]
        path = write(tmp_path / "many.dbn", header(BOTH_DAYS), *records)
        async with (
            controlled(path, speed=1.0) as (address, control),
            client(address) as early,
            client(address) as whole,
            client(address) as later,
        ):
            for each in (early, whole, later):
                await each.login()
            early.send(wants("AAPL"), Start())
            await early.until(lambda received: len(received) == 33)  # the next is an hour away
            whole.send(wants("AAPL", start_ns=0), Start())
            await whole.until(lambda received: "Finished trades replay" in texts(received))
            later.send(wants("AAPL", start_ns=times[10]), Start())
            await later.until(lambda received: received)
            await control("POST", "/set-speed", speed=0)
            for each in (early, whole, later):
                await each.rest()
        for each, begin in ((early, 0), (whole, 0), (later, 10)):
            trades = [each for each in each.received if isinstance(each, dbn.TradeMsg)]
            assert [trade.ts_event for trade in trades] == times[begin:]
        assert texts(whole.received)[1:3] == [ACK.format(0, "trades"), "AAPL = AAPL 1"]
        assert texts(whole.received)[33] == "Finished trades replay"
        assert "Finished trades replay" in texts(later.received)[4:]

    async def test_a_start_leaves_out_what_is_before_it(self, live_trades):
        async with gateway(live_trades) as address:
            received = await session(address, wants("AAPL", start_ns=MAY_1 + 2), wants("MSFT"))
        assert [text for text in texts(received) if text.startswith("Trade")] == [
            "TradeMsg 2 2",
            "TradeMsg 1 3",
        ]

    async def test_a_start_after_the_session_start_is_ignored(self, live_trades):
        async with gateway(live_trades, at_end="hold") as address, client(address) as held:
            await held.login()
            held.send(Start())
            await held.until(lambda received: len(received) == 1)
            held.send(wants("AAPL", start_ns=0))
            received = await held.until(lambda received: len(received) >= 3)
            held.send(wants("MSFT"))
            received = await held.until(lambda received: len(received) >= 5)
        assert not any("replay" in text for text in texts(received))


class TestChanges:
    async def test_unsubscribe_before_the_start(self, live_trades):
        async with gateway(live_trades) as address:
            ended = Unsubscribe("trades", "raw_symbol", ("AAPL", "NOPE"))
            received = await session(address, wants("AAPL"), wants("MSFT"), ended)
        said = [each.msg for each in received if isinstance(each, dbn.SystemMsg)]
        assert said == [
            ACK.format(0, "trades"),
            ACK.format(1, "trades"),
            "Unsubscribed from trades data",
        ]
        (missing,) = (each for each in received if isinstance(each, dbn.ErrorMsg))
        assert "NOPE" in missing.err
        trades = [each for each in received if isinstance(each, dbn.TradeMsg)]
        assert {each.instrument_id for each in trades} == {2}

    async def test_unsubscribe(self, tmp_path):
        path = trades_apart(tmp_path, 3)
        async with gateway(path, at_end="hold") as address, client(address) as held:
            await held.login()
            held.send(wants("AAPL", "MSFT"), Start())
            await held.until(lambda received: len(received) == 7)
            held.send(Unsubscribe("trades", "raw_symbol", ("MSFT", "NOPE")))
            received = await held.until(lambda received: len(received) == 9)
            assert texts(received)[-2:] == [
                "error 5: Not subscribed to NOPE for trades data",
                "Unsubscribed from trades data",
            ]

    async def test_subscriptions_after_the_start(self, tmp_path):
        path = trades_apart(tmp_path, 10)
        settings = {"speed": 1e-6, "at_end": "hold"}  # the second record is hours away
        async with gateway(path, **settings) as address, client(address) as held:
            await held.login()
            held.send(Start())
            await held.until(lambda received: len(received) == 1)
            held.send(wants("AAPL", id=3))
            received = await held.until(lambda received: len(received) >= 3)
            assert texts(received)[1:3] == [ACK.format(3, "trades"), "AAPL = AAPL 1"]

    async def test_a_loop_begins_again(self, live_trades):
        async with gateway(live_trades, at_end="loop") as address, client(address) as looped:
            await looped.login()
            looped.send(wants("AAPL"), Start())
            received = await looped.until(lambda received: len(received) >= 12)
            assert texts(received)[3:9] == ["TradeMsg 1 1", "TradeMsg 1 3"] * 3

    async def test_a_loop_sends_all_records_after_a_snapshot_too(self, tmp_path):
        orders = [order(1, MAY_1 + at, "A", "B", 5, 1, at) for at in (1, 2)]
        path = write(tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), *orders)
        async with gateway(path, at_end="loop") as address, client(address) as looped:
            await looped.login()
            looped.send(wants("AAPL", schema="mbo"), Start())
            await looped.until(lambda received: len(received) >= 5)
            looped.send(wants("AAPL", schema="mbo", has_snapshot=True))
            begins = ACK.format(1, "mbo")
            received = await looped.until(lambda received: begins in texts(received[-2_000:]))
            n_before = len(received)
            received = await looped.until(lambda received: len(received) >= n_before + 20)
        times = [text for text in texts(received[n_before:]) if text.startswith("MBOMsg")][-6:]
        assert sorted(times) == ["MBOMsg 1 1"] * 3 + ["MBOMsg 1 2"] * 3

    async def test_input_without_records_is_not_looped(self, tmp_path):
        path = write(tmp_path / "empty.dbn", header(BOTH_DAYS))
        async with gateway(path, at_end="loop") as address:
            received = await session(address, wants("AAPL"))
        assert texts(received)[1:] == [ACK.format(0, "trades"), "AAPL = AAPL 1"]

    async def test_many_subscriptions_are_delayed_not_refused(self, live_trades):
        async with gateway(live_trades, subscriptions_per_s=100) as address:
            received = await session(address, *[wants("AAPL", id=each) for each in range(120)])
        acks = [text for text in texts(received) if text.startswith("Subscription")]
        assert acks == [ACK.format(each, "trades") for each in range(120)]


class TestCommand:
    def test_it_stops_while_standard_input_is_silent(self, live_trades):
        async def begin(address: str) -> None:
            async with client(address) as connected:
                await connected.login()
                connected.send(wants("AAPL"), Start())
                await connected.until(lambda received: len(received) >= 4)

        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as source, os.fdopen(write_fd, "wb") as sink:
            sink.write(live_trades.read_bytes()[:-48])
            sink.flush()
            with service("live-gateway", "-", "--port", 0, stdin=source) as child:
                asyncio.run(begin(child.address))
                status, errors = child.end(signal.SIGTERM)
        assert status == 0
        assert "by force" not in errors

    def test_standard_input_is_not_paced(self, tmp_path):
        apart = [trade(1, MAY_1, 10, 1), trade(1, MAY_1 + HOUR, 11, 1)]
        path = write(tmp_path / "apart.dbn", header(BOTH_DAYS), *apart)
        with (
            path.open("rb") as source,
            service("live-gateway", "-", "--port", 0, stdin=source) as child,
        ):
            received = asyncio.run(session(child.address, wants("AAPL")))
        assert [each.ts_event for each in received[-2:]] == [MAY_1, MAY_1 + HOUR]

    def test_standard_input_as_it_comes(self, live_trades):
        async def read(address: str) -> None:
            async with client(address) as connected:
                await connected.login()
                connected.send(wants("AAPL"), Start())
                await connected.until(lambda received: len(received) >= 3)
                sink.write(records[:96])
                sink.flush()
                await connected.until(lambda received: len(received) >= 4)
                async with client(address) as late, client(address) as later:
                    await late.login()
                    late.send(wants("AAPL", start_ns=0), Start())
                    await late.until(lambda received: "Finished trades replay" in texts(received))
                    await later.login()
                    later.send(wants("AAPL", schema="ohlcv-1s", start_ns=0), Start())
                    *_, error = await later.rest()
                    assert int(error.code) == 8
                    sink.write(records[96:])
                    sink.close()
                    replayed = texts(await late.rest())
                received = await connected.rest()
                assert texts(received)[3:] == ["TradeMsg 1 1", "TradeMsg 1 3"]
                end = ["TradeMsg 1 1", "Finished trades replay", "TradeMsg 1 3"]
                assert replayed[3:] == end

        data = live_trades.read_bytes()
        records = data[-144:]
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as source, os.fdopen(write_fd, "wb") as sink:
            sink.write(data[:-144])
            sink.flush()
            with service("live-gateway", "-", "--port", 0, stdin=source) as child:
                asyncio.run(read(child.address))


async def test_a_gateway_that_stops_resets_its_sessions(live_trades):
    """An orderly end would say that the data has ended."""
    async with contextlib.AsyncExitStack() as service:
        address = await service.enter_async_context(gateway(live_trades, at_end="hold"))
        async with client(address) as connected:
            await connected.login()
            connected.send(wants("AAPL"), Start())
            await connected.until(lambda received: len(received) == 5)
            await service.aclose()
            with pytest.raises(ConnectionResetError):
                await connected.rest()


class TestOthers:
    async def test_a_client_that_never_reads_keeps_nobody_waiting(self, tmp_path):
        path = trades_apart(tmp_path, 300_000)
        async with gateway(path) as address, client(address) as stuck:
            await stuck.login()
            stuck.send(wants("AAPL"), Start())
            await stuck.until(lambda received: len(received) > 10)
            received = await session(address, wants("AAPL", start_ns=0))
            trades = [each for each in received if isinstance(each, dbn.TradeMsg)]
            assert len(trades) == 300_000
            # And it lost nothing by that.
            received = await stuck.rest()
            assert sum(isinstance(each, dbn.TradeMsg) for each in received) == 300_000

    async def test_200_connect_at_once(self, live_trades):
        async with gateway(live_trades, max_sessions=200) as address, bounded():
            received = await asyncio.gather(
                *[session(address, wants("AAPL", start_ns=0)) for _ in range(200)]
            )
        counts = {sum(isinstance(each, dbn.TradeMsg) for each in session) for session in received}
        assert counts == {2}

    async def test_input_that_breaks_off(self, tmp_path):
        path = tmp_path / "broken.dbn"
        path.write_bytes(trades_apart(tmp_path, 3).read_bytes()[:-10])
        async with gateway(path) as address:
            received = await session(address, wants("AAPL"))
        assert texts(received)[-2] == "TradeMsg 1 1000000"
        assert texts(received)[-1].startswith("error 6: broken.dbn: ")
        assert "after 2 whole records" in received[-1].err

    async def test_input_that_is_none(self, tmp_path):
        with pytest.raises(StartupError, match="no such file"):
            async with gateway(tmp_path / "missing.dbn"):
                pass
        with pytest.raises(UsageError, match="standard input is not merged"):
            async with gateway("-", tmp_path / "missing.dbn"):
                pass
