"""The live gateway over raw sockets: what each session gets, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import databento_dbn as dbn
import pytest

from mdtool.core.errors import StartupError, UsageError
from mdtool.wire.live import Rejected, Start, Subscribe, Unsubscribe
from tests.support.dbn_files import DAY, MAY_1, header, mapping, order, trade, write
from tests.support.live_clients import KEY, client, gateway, session, texts
from tests.support.services import service
from tests.support.waiting import bounded

ACK = "Subscription request {} for {} data succeeded"
BOTH_DAYS = {"AAPL": {1: 1, 2: 1}, "MSFT": {1: 2, 2: 2}}


@pytest.fixture
def trades(tmp_path):
    """Two trades of AAPL, one of MSFT between them."""
    records = [trade(1, MAY_1 + 1, 10, 1), trade(2, MAY_1 + 2, 20, 1), trade(1, MAY_1 + 3, 11, 1)]
    return write(tmp_path / "trades.dbn", header(BOTH_DAYS), *records)


def wants(*symbols: str, schema: str = "trades", stype_in: str = "raw_symbol", **more) -> Subscribe:
    return Subscribe(schema, stype_in, symbols, **more)


def ended(path, instants: int, name: str = "many.dbn"):
    """A file of so many trades, a millisecond apart."""
    records = [trade(1, MAY_1 + at * 10**6, 10, 1) for at in range(instants)]
    return write(path / name, header(BOTH_DAYS), *records)


class TestOrder:
    async def test_acknowledgement_mappings_data_and_the_end(self, trades):
        async with gateway(trades) as address:
            received = await session(address, wants("AAPL", "NOPE", id=7))
        assert texts(received) == [
            "metadata",
            ACK.format(7, "trades"),
            "AAPL = AAPL 1",
            "error 4: Failed to resolve symbol: NOPE",
            "TradeMsg 1 1",
            "TradeMsg 1 3",
        ]

    async def test_several_subscriptions_get_each_record_once(self, trades):
        async with gateway(trades) as address:
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

    async def test_playback_begins_with_a_session_and_again_with_the_next(self, trades):
        async with gateway(trades) as address, client(address) as waiting:
            await waiting.login()
            for _ in range(2):
                assert len(await session(address, wants("AAPL"))) == 5
            waiting.send(wants("AAPL"), Start())
            assert len(await waiting.rest()) == 5

    async def test_datasets_have_streams_of_their_own(self, trades, tmp_path):
        futures = header({"ESM4": {1: 1}}, dataset="GLBX.MDP3")
        other = write(tmp_path / "futures.dbn", futures, trade(1, MAY_1 + 9, 10, 1))
        async with gateway(trades, other) as address:
            for dataset, n_records in {"XNAS.ITCH": 3, "GLBX.MDP3": 1}.items():
                metadata, *rest = await session(address, wants("ALL_SYMBOLS"), dataset=dataset)
                assert metadata.dataset == dataset
                assert sum(isinstance(each, dbn.TradeMsg) for each in rest) == n_records

    async def test_files_are_merged(self, trades, tmp_path):
        orders = write(
            tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), order(2, MAY_1 + 2, "A", "B", 5, 1, 9)
        )
        async with gateway(trades, orders) as address:
            received = await session(
                address, wants("AAPL"), wants("MSFT", schema="mbo"), wants("AAPL", schema="mbp-1")
            )
        assert texts(received)[-3:] == ["TradeMsg 1 1", "MBOMsg 2 2", "TradeMsg 1 3"]


class TestForms:
    @pytest.mark.parametrize("compression", ["none", "zstd"])
    @pytest.mark.parametrize("version", [2, 3])
    @pytest.mark.parametrize("has_ts_out", [False, True])
    async def test_versions_compression_and_ts_out(self, trades, compression, version, has_ts_out):
        fields = {"compression": compression, "has_ts_out": has_ts_out}
        async with gateway(trades, dbn_version=version) as address:
            metadata, *records = await session(address, wants("AAPL"), **fields)
        assert (metadata.version, metadata.ts_out, metadata.schema) == (version, has_ts_out, None)
        assert len(records) == 4
        assert all((each.ts_out > MAY_1) == has_ts_out for each in records if has_ts_out)

    async def test_zstd_is_flushed_when_idle(self, trades):
        async with gateway(trades, at_end="hold") as address, client(address) as held:
            await held.login(compression="zstd")
            held.send(wants("AAPL"), Start())
            await held.until(lambda received: len(received) == 5)
            held.send(wants("MSFT"))
            received = await held.until(lambda received: len(received) == 7)
            assert texts(received)[-1] == "MSFT = MSFT 2"

    async def test_bare_is_the_input_byte_for_byte(self, trades):
        async with gateway(trades, bare=True) as address:
            for _ in range(2):
                async with client(address) as connected:
                    await connected.login(has_ts_out=False)
                    connected.send(wants("MSFT"), Start())
                    await connected.rest()
                    assert connected.data == trades.read_bytes()

    async def test_bare_sends_nothing_more_while_it_is_held(self, trades):
        settings = {"bare": True, "at_end": "hold"}
        async with gateway(trades, **settings) as address, client(address) as held:
            await held.login(heartbeat_interval_s=5)
            held.send(Start())
            await held.until(lambda received: len(received) == 4)
            held.send(Start(), wants("MSFT"), b"what is this\n")
            held.leave()
            await held.rest()
            assert held.data == trades.read_bytes()


class TestSymbols:
    async def test_every_stype_that_the_header_resolves(self, tmp_path):
        rolls = header({"ES.c.0": {1: 1, 2: 2}}, stype_in="continuous")
        records = [
            trade(number, MAY_1 + day * DAY + 1, 10, 1) for day in (0, 1) for number in (1, 2)
        ]
        path = write(tmp_path / "rolls.dbn", rolls, *records)
        async with gateway(path) as address:
            continuous = await session(address, wants("ES.c.0", stype_in="continuous"))
            by_id = await session(address, wants("2", stype_in="instrument_id"))
            wrong = await session(address, wants("ES.c.0", stype_in="parent"))
        # The front contract is another one on the second day, which is told before its records.
        assert texts(continuous)[2:] == [
            "ES.c.0 = ES.c.0 1",
            "TradeMsg 1 1",
            "ES.c.0 = ES.c.0 2",
            "TradeMsg 2 1",
        ]
        assert texts(by_id)[2:] == [
            "error 4: Failed to resolve symbol: 2",
            "2 = ES.c.0 2",
            "TradeMsg 2 1",
        ]
        assert texts(wrong)[2:] == ["error 4: Failed to resolve symbol: ES.c.0"]

    async def test_a_capture_maps_symbols_as_it_goes(self, tmp_path):
        path = write(
            tmp_path / "capture.dbn",
            header({}, None),
            mapping(7, "AAPL", MAY_1),
            trade(7, MAY_1 + 1, 10, 1),
            mapping(7, "MSFT", MAY_1 + 2),
            trade(7, MAY_1 + 3, 10, 1),
            mapping(8, "AAPL", MAY_1 + 4),
            trade(8, MAY_1 + 5, 10, 1),
        )
        async with gateway(path) as address:
            received = await session(address, wants("AAPL"))
        assert texts(received)[2:] == [
            "AAPL = AAPL 7",
            "TradeMsg 7 1",
            "AAPL = AAPL 8",
            "TradeMsg 8 5",
        ]

    async def test_3950_symbols_in_8_chunks(self, tmp_path):
        names = {f"S{number}": {1: number} for number in range(3_950)}
        path = write(tmp_path / "many.dbn", header(names), trade(3_949, MAY_1 + 1, 10, 1))
        async with gateway(path) as address:
            received = await session(address, wants(*names, id=1))
        assert len(received) == 2 + 3_950 + 1


class TestStart:
    async def test_a_replay_continues_at_the_live_point_without_gap_or_duplicate(self, tmp_path):
        path = ended(tmp_path, 200)
        async with gateway(path, speed=1.0) as address, client(address) as early:
            await early.login()
            early.send(wants("AAPL"), Start())
            await early.until(lambda received: len(received) > 20)
            whole = await session(address, wants("AAPL", start_ns=0))
            later = await session(address, wants("AAPL", start_ns=MAY_1 + 10 * 10**6))
            live = await early.rest()
        times = [each.ts_event for each in live if isinstance(each, dbn.TradeMsg)]
        assert times == [MAY_1 + at * 10**6 for at in range(200)]
        assert [each.ts_event for each in whole if isinstance(each, dbn.TradeMsg)] == times
        assert "Finished trades replay" in texts(whole)[4:]
        assert texts(whole)[1:3] == [ACK.format(0, "trades"), "AAPL = AAPL 1"]
        assert isinstance(later[0], dbn.Metadata)

    async def test_a_start_leaves_out_what_is_before_it(self, trades):
        async with gateway(trades) as address:
            received = await session(address, wants("AAPL", start_ns=MAY_1 + 2), wants("MSFT"))
        assert [text for text in texts(received) if text.startswith("Trade")] == [
            "TradeMsg 2 2",
            "TradeMsg 1 3",
        ]

    async def test_a_start_after_the_session_start_is_ignored(self, trades):
        async with gateway(trades, at_end="hold") as address, client(address) as held:
            await held.login()
            held.send(Start())
            await held.until(lambda received: len(received) == 1)
            held.send(wants("AAPL", start_ns=0))
            received = await held.until(lambda received: len(received) >= 3)
            held.send(wants("MSFT"))
            received = await held.until(lambda received: len(received) >= 5)
        assert not any("replay" in text for text in texts(received))


class TestChanges:
    async def test_unsubscribe(self, tmp_path):
        path = ended(tmp_path, 3)
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
        path = ended(tmp_path, 10)
        settings = {"speed": 1e-6, "at_end": "hold"}  # the second record is hours away
        async with gateway(path, **settings) as address, client(address) as held:
            await held.login()
            held.send(Start())
            await held.until(lambda received: len(received) == 1)
            held.send(wants("AAPL", id=3))
            received = await held.until(lambda received: len(received) >= 3)
            assert texts(received)[1:3] == [ACK.format(3, "trades"), "AAPL = AAPL 1"]

    async def test_a_loop_begins_again(self, trades):
        async with gateway(trades, at_end="loop") as address, client(address) as looped:
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

    async def test_many_subscriptions_are_delayed_not_refused(self, trades):
        async with gateway(trades, subscriptions_per_s=100) as address:
            received = await session(address, *[wants("AAPL", id=each) for each in range(120)])
        acks = [text for text in texts(received) if text.startswith("Subscription")]
        assert acks == [ACK.format(each, "trades") for each in range(120)]


async def rejection(address: str, *lines: bytes, **fields) -> str:
    """Why a client is rejected before it is authenticated."""
    async with client(address) as connected:
        if lines:
            connected.send(*lines)
        else:
            with pytest.raises(EOFError):
                await connected.login(**fields)
        answer = await connected.answer(Rejected)
        return answer.reason


class TestRejections:
    async def test_before_the_session(self, trades):
        async with gateway(trades) as address:
            assert "choose from XNAS.ITCH" in await rejection(address, dataset="NONE")
            assert "encoding json is not served" in await rejection(address, encoding="json")
            assert "is not an authentication" in await rejection(address, b"GET / HTTP/1.1\r\n")
            assert "not ASCII" in await rejection(address, b"\xff\xfe\n")
            assert "more than 262,144 bytes" in await rejection(address, b"a" * (1 << 20))
            assert len(await session(address, wants("AAPL"))) == 5

    async def test_silence(self, trades):
        async with gateway(trades, login_s=0.1) as address, client(address) as silent:
            answer = await silent.answer(Rejected)
            assert answer.reason == "no authentication in time"

    async def test_keys(self, trades, tmp_path):
        keys = tmp_path / "keys"
        keys.write_text(f"# who\nalice {KEY}\nbob {'b' * 32} # too\n")
        keys.chmod(0o600)
        async with gateway(trades, keys=str(keys)) as address:
            for key in (KEY, "b" * 32):
                assert len(await session(address, wants("AAPL"), key=key)) == 5
            assert "authentication failed" in await rejection(address, key="c" * 32)
            assert "authentication failed" in await rejection(address, key="c" * 27 + "k" * 5)

    @pytest.mark.parametrize(
        ("text", "mode", "why"),
        [
            ("alice key", 0o640, "others may read"),
            ("alice", 0o600, "line 1 is not a name and a key"),
            (None, 0o600, "No such file"),
        ],
    )
    async def test_keys_that_cannot_be_used(self, trades, tmp_path, text, mode, why):
        keys = tmp_path / "keys"
        if text is not None:
            keys.write_text(text)
            keys.chmod(mode)
        with pytest.raises(StartupError, match=why):
            async with gateway(trades, keys=str(keys)):
                pass

    async def test_as_many_sessions_as_there_may_be(self, trades):
        async with gateway(trades, max_sessions=1) as address, client(address) as first:
            await first.login()
            assert await rejection(address) == "connection limit of 1 reached"
            first.send(wants("AAPL"), Start())
            assert len(await first.rest()) == 5

    async def test_as_many_connections_a_second(self, trades):
        async with gateway(trades, connects_per_s=1) as address:
            assert len(await session(address, wants("AAPL"))) == 5
            assert "rate limit" in await rejection(address)

    @pytest.mark.parametrize(
        ("request_", "why"),
        [
            (wants("AAPL", schema="ticks"), "unknown schema ticks"),
            (wants("AAPL", stype_in="isin"), "stype_in isin is none of"),
            (b"ping=1\n", "is not a request"),
            (b"schema=trades|symbols=" + b"a" * (1 << 19) + b"\n", "more than 262,144 bytes"),
        ],
    )
    @pytest.mark.parametrize("is_started", [False, True])
    async def test_requests_that_are_not_valid(self, trades, request_, why, is_started):
        async with (
            gateway(trades, at_end="hold") as address,
            client(address) as other,
            client(address) as wrong,
        ):
            await other.login()
            await wrong.login()
            other.send(wants("AAPL"), Start())
            wrong.send(*[Start()] * is_started, request_)
            *_, error = await wrong.rest()
            assert int(error.code) == 5
            assert why in error.err
            assert len(await other.until(lambda received: len(received) == 5)) == 5

    async def test_a_start_in_the_future(self, trades):
        async with gateway(trades) as address:
            *_, error = await session(address, wants("AAPL", start_ns=2**62))
        assert error.err == "Invalid subscription: start is in the future"

    async def test_a_second_start(self, trades):
        async with gateway(trades, at_end="hold") as address:
            *_, error = await session(address, wants("AAPL"), Start())
        assert error.err == "the session has started already"


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


class TestSnapshot:
    async def test_the_book_in_priority_order_then_what_follows(self, tmp_path):
        orders = [
            order(1, MAY_1 + 1, "A", "B", 5, 1, 21),
            order(1, MAY_1 + 2, "A", "B", 6, 2, 22),
            order(2, MAY_1 + 3, "A", "B", 7, 3, 23),
            order(1, MAY_1 + 4, "A", "B", 6, 4, 24),
        ]
        path = write(tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), *orders)
        async with (
            gateway(path, at_end="hold") as address,
            client(address) as first,
            client(address) as second,
        ):
            await first.login()
            first.send(wants("AAPL", schema="mbo"), Start())
            await first.until(lambda received: len(received) == 6)
            await second.login()
            second.send(wants("AAPL", schema="mbo", has_snapshot=True), Start())
            received = await second.until(lambda received: len(received) == 8)
            clear, *adds, end = received[3:]
            assert (str(clear.action), clear.flags) == ("R", 40)
            assert [each.order_id for each in adds] == [22, 24, 21]
            assert all((str(each.action), each.flags) == ("A", 32) for each in adds)
            assert end.flags & 128
            assert not end.flags & 32
            second.send(wants("MSFT", schema="mbo", has_snapshot=True))
            received = await second.until(lambda received: len(received) == 13)
            assert [each.order_id for each in received[-2:-1]] == [23]

    async def test_a_gateway_without_snapshots(self, tmp_path):
        path = write(
            tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), order(1, MAY_1, "A", "B", 5, 1)
        )
        async with gateway(path, snapshots=False) as address:
            received = await session(address, wants("AAPL", schema="mbo"))
            *_, error = await session(address, wants("AAPL", schema="mbo", has_snapshot=True))
        assert texts(received)[-1] == "MBOMsg 1 0"
        assert error.err == "Invalid subscription: this gateway has no snapshots"

    @pytest.mark.parametrize(
        ("request_", "why"),
        [
            (wants("AAPL", has_snapshot=True), "for schema mbo alone"),
            (wants("AAPL", schema="mbo", has_snapshot=True, start_ns=0), "excludes start"),
        ],
    )
    async def test_what_has_none(self, trades, request_, why):
        async with gateway(trades) as address:
            *_, error = await session(address, request_)
        assert why in error.err


class TestPace:
    async def test_a_heartbeat_when_nothing_else_is_sent(self, trades):
        async with gateway(trades, at_end="hold") as address, client(address) as held:
            await held.login(heartbeat_interval_s=5)
            held.send(wants("AAPL"), Start())
            received = await held.until(lambda received: len(received) == 6)
        assert texts(received)[-2:] == ["TradeMsg 1 3", "Heartbeat"]

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
        path = ended(tmp_path, 300_000)
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
        assert (n_quotes < 300_000) == skips
        assert missed == [f"Skipped {300_000 - n_quotes} records after slow reading"] * skips

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
            quotes[0] * 100_000,
            quotes[1] * 200_000,
        )
        settings = {"speed": DAY / 2 / 10**9, "backlog_bytes": 1 << 16}  # its end is a second away
        async with gateway(path, **settings) as address, client(address) as replaying:
            await replaying.login()
            early = asyncio.create_task(session(address, wants("AAPL", schema="status")))
            async with client(address) as first:
                await first.login()
                first.send(wants("AAPL", schema="mbp-1"), Start())
                await first.until(lambda received: len(received) > 3)
            replaying.send(wants("AAPL", schema="mbp-1", start_ns=0), Start())
            await replaying.until(lambda received: len(received) > 3)
            await early
            received = await replaying.rest()
        assert not any("slow" in text for text in texts(received) if not text.startswith("MBP"))
        assert sum(isinstance(each, dbn.MBP1Msg) for each in received) == 300_000

    async def test_full_speed_skips_nothing(self, tmp_path):
        path = ended(tmp_path, 300_000)
        async with gateway(path, backlog_bytes=1 << 16) as address, client(address) as slow:
            await slow.login()
            slow.send(wants("AAPL"), Start())
            await slow.until(lambda received: len(received) >= 5)
            await session(address, wants("AAPL", schema="status"))
            received = await slow.rest()
        assert len(received) == 3 + 300_000


class TestCommand:
    def test_it_stops_while_standard_input_is_silent(self, trades):
        async def begin(address: str) -> None:
            async with client(address) as connected:
                await connected.login()
                connected.send(wants("AAPL"), Start())
                await connected.until(lambda received: len(received) >= 4)

        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as source, os.fdopen(write_fd, "wb") as sink:
            sink.write(trades.read_bytes()[:-48])
            sink.flush()
            with service("live-gateway", "-", "--port", 0, stdin=source) as child:
                asyncio.run(begin(child.address))
                status, errors = child.end(signal.SIGTERM)
        assert status == 0
        assert "by force" not in errors

    def test_standard_input_as_it_comes(self, trades):
        async def read(address: str) -> None:
            async with client(address) as connected:
                await connected.login()
                connected.send(wants("AAPL"), Start())
                await connected.until(lambda received: len(received) >= 3)
                sink.write(records[:96])
                sink.flush()
                await connected.until(lambda received: len(received) >= 4)
                sink.write(records[96:])
                sink.close()
                received = await connected.rest()
                assert texts(received)[3:] == ["TradeMsg 1 1", "TradeMsg 1 3"]

        data = trades.read_bytes()
        records = data[-144:]
        read_fd, write_fd = os.pipe()
        with os.fdopen(read_fd, "rb") as source, os.fdopen(write_fd, "wb") as sink:
            sink.write(data[:-144])
            sink.flush()
            with service("live-gateway", "-", "--port", 0, stdin=source) as child:
                asyncio.run(read(child.address))


async def test_a_gateway_that_stops_resets_its_sessions(trades):
    """An orderly end would say that the data has ended."""
    async with contextlib.AsyncExitStack() as service:
        address = await service.enter_async_context(gateway(trades, at_end="hold"))
        async with client(address) as connected:
            await connected.login()
            connected.send(wants("AAPL"), Start())
            await connected.until(lambda received: len(received) == 5)
            await service.aclose()
            with pytest.raises(ConnectionResetError):
                await connected.rest()


class TestOthers:
    async def test_a_client_that_never_reads_keeps_nobody_waiting(self, tmp_path):
        path = ended(tmp_path, 300_000)
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

    async def test_200_connect_at_once(self, trades):
        async with gateway(trades, max_sessions=200) as address, bounded():
            received = await asyncio.gather(
                *[session(address, wants("AAPL", start_ns=0)) for _ in range(200)]
            )
        counts = {sum(isinstance(each, dbn.TradeMsg) for each in session) for session in received}
        assert counts == {2}

    async def test_input_that_breaks_off(self, tmp_path):
        path = tmp_path / "broken.dbn"
        path.write_bytes(ended(tmp_path, 3).read_bytes()[:-10])
        async with gateway(path) as address:
            received = await session(address, wants("AAPL"))
        assert texts(received)[-2] == "TradeMsg 1 1000000"
        assert texts(received)[-1].startswith("error 6: ")
        assert "after 2 whole records" in received[-1].err

    async def test_input_that_is_none(self, tmp_path):
        with pytest.raises(StartupError, match="no such file"):
            async with gateway(tmp_path / "missing.dbn"):
                pass
        with pytest.raises(UsageError, match="standard input is not merged"):
            async with gateway("-", tmp_path / "missing.dbn"):
                pass
