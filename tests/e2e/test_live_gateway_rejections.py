"""What the live gateway rejects, and how it says so."""

from __future__ import annotations

import databento_dbn as dbn
import pytest

from mdtool.core.errors import StartupError
from mdtool.wire.live import Rejected, Start
from tests.support.live_clients import KEY, client, gateway, session, wants


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
    async def test_before_the_session(self, live_trades):
        async with gateway(live_trades) as address:
            assert "choose from XNAS.ITCH" in await rejection(address, dataset="NONE")
            assert "expected dbn, csv, json" in await rejection(address, encoding="xml")
            proof = await rejection(address, b"auth=00-abcde|dataset=XNAS.ITCH\n")
            assert "expected 64 hexadecimal digits" in proof
            assert "is not an authentication" in await rejection(address, b"GET / HTTP/1.1\r\n")
            assert "not ASCII" in await rejection(address, b"\xff\xfe\n")
            assert "more than 262,144 bytes" in await rejection(address, b"a" * (1 << 20))
            assert len(await session(address, wants("AAPL"))) == 5

    async def test_bare_is_dbn_alone(self, live_trades):
        async with gateway(live_trades, bare=True) as address:
            assert "not served with --bare" in await rejection(address, encoding="json")

    async def test_silence(self, live_trades):
        async with gateway(live_trades, login_s=0.1) as address, client(address) as silent:
            answer = await silent.answer(Rejected)
            assert answer.reason == "no authentication in time"

    async def test_keys(self, live_trades, tmp_path):
        keys = tmp_path / "keys"
        keys.write_text(f"# who\nalice {KEY}\nbob {'b' * 32} # too\n")
        keys.chmod(0o600)
        async with gateway(live_trades, keys=str(keys)) as address:
            for key in (KEY, "b" * 32):
                assert len(await session(address, wants("AAPL"), key=key)) == 5
            assert "authentication failed" in await rejection(address, key="c" * 32)
            assert "authentication failed" in await rejection(address, key="c" * 27 + "k" * 5)

    @pytest.mark.parametrize(
        ("text", "mode", "why"),
        [
            ("alice key", 0o640, "others may read"),
            ("alice", 0o600, "line 1 is not a name, a key and roles"),
            ("alice key nobody", 0o600, "line 1: role .nobody. does not exist; add"),
            (None, 0o600, "No such file"),
        ],
    )
    async def test_keys_that_cannot_be_used(self, live_trades, tmp_path, text, mode, why):
        keys = tmp_path / "keys"
        if text is not None:
            keys.write_text(text)
            keys.chmod(mode)
        with pytest.raises(StartupError, match=why):
            async with gateway(live_trades, keys=str(keys)):
                pass

    async def test_as_many_sessions_as_there_may_be(self, live_trades):
        async with gateway(live_trades, max_sessions=1) as address, client(address) as first:
            await first.login()
            assert await rejection(address) == "connection limit of 1 reached"
            first.send(wants("AAPL"), Start())
            assert len(await first.rest()) == 5

    @pytest.mark.usefixtures("no_refill")
    async def test_as_many_connections_a_second(self, live_trades):
        async with gateway(live_trades, connects_per_s=1) as address:
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
    async def test_requests_that_are_not_valid(self, live_trades, request_, why, is_started):
        async with (
            gateway(live_trades, at_end="hold") as address,
            client(address) as other,
            client(address) as wrong,
        ):
            await other.login()
            await wrong.login()
            other.send(wants("AAPL"), Start())
            wrong.send(*[Start()] * is_started, request_)
            *_, error = await wrong.rest()
            assert int(error.code) == 5
            assert error.err.startswith("Invalid subscription: ")
            assert why in error.err
            assert len(await other.until(lambda received: len(received) == 5)) == 5

    @pytest.mark.parametrize("is_started", [False, True])
    async def test_more_symbols_than_a_session_may_have(self, live_trades, is_started):
        many = [f"{number:05}" for number in range(70_000)]
        requests = [wants(*many, schema=schema, id=1) for schema in ("trades", "mbo")]
        async with (
            gateway(live_trades, at_end="hold") as address,
            client(address) as other,
            client(address) as wrong,
        ):
            await other.login()
            await wrong.login()
            other.send(wants("AAPL"), Start())
            wrong.send(*[Start()] * is_started, *requests)
            *_, error = await wrong.rest()
            why = "more than 131,072 symbols in all subscriptions"
            assert error.err == f"Invalid subscription: {why}"
            assert len(await other.until(lambda received: len(received) == 5)) == 5

    async def test_more_subscriptions_than_may_wait_for_the_start(self, live_trades):
        async with gateway(live_trades, subscriptions_per_s=0) as address:
            *_, error = await session(address, *[wants("AAPL")] * 1_001)
            assert error.err == "Invalid subscription: too many subscriptions before the start"
            received = await session(address, *[wants("AAPL")] * 1_000)
        assert sum(isinstance(each, dbn.TradeMsg) for each in received) == 2

    async def test_a_start_in_the_future(self, live_trades):
        async with gateway(live_trades) as address:
            *_, error = await session(address, wants("AAPL", start_ns=2**62))
        assert error.err == "Invalid subscription: start is in the future"

    async def test_a_second_start(self, live_trades):
        async with gateway(live_trades, at_end="hold") as address:
            *_, error = await session(address, wants("AAPL"), Start())
        assert error.err == "Invalid subscription: the session has started already"
