"""Faults on demand, as clients of the live gateway meet them."""

from __future__ import annotations

import contextlib
import time

import databento_dbn as dbn
import pytest

from mdtool.core.errors import UsageError
from mdtool.wire.live import Rejected, Start
from tests.support.live_clients import (
    client,
    controlled,
    gateway,
    session,
    texts,
    trades_apart,
    wants,
)

N = 10


@pytest.fixture
def ten(tmp_path):
    return trades_apart(tmp_path, N)


def n_trades(received: list) -> int:
    return sum(isinstance(each, dbn.TradeMsg) for each in received)


@contextlib.asynccontextmanager
async def reading(address: str):
    async with client(address) as connected:
        await connected.login()
        connected.send(wants("AAPL"), Start())
        yield connected


async def test_a_reset_after_records_of_one_session(ten):
    async with gateway(ten, faults="reset after=4 session=1") as address:
        async with reading(address) as first:
            with pytest.raises(ConnectionResetError):
                await first.rest()
            assert n_trades(first.received) <= 4
        assert n_trades(await session(address, wants("AAPL", start_ns=0))) == N


async def test_an_end_too_early(ten):
    async with gateway(ten, faults="fin after=4") as address:
        assert n_trades(await session(address, wants("AAPL"))) == 4


@pytest.mark.parametrize("code", [*range(1, 9), 200])
async def test_an_error_and_the_end(ten, code):
    faults = f"error code={code} text=too many after=2"
    async with gateway(ten, faults=faults) as address:
        received = await session(address, wants("AAPL"))
    assert n_trades(received) == 2
    assert (int(received[-1].code), received[-1].err) == (code, "too many")


async def test_records_that_are_skipped_after_a_warning(ten):
    async with gateway(ten, faults="skip after=3 records=4") as address:
        received = await session(address, wants("AAPL"))
    assert n_trades(received) == N - 4
    warning, error = received[6:8]
    assert warning.msg == "Warning: slow reading, not keeping pace with trades data"
    assert error.err == "Skipped 4 records after slow reading"
    assert int(error.code) == 7


async def test_records_sent_twice_and_damaged(ten):
    async with gateway(ten, faults="duplicate after=1 records=2") as address:
        received = await session(address, wants("AAPL"))
    times = [each.ts_event // 10**6 % 100 for each in received if isinstance(each, dbn.TradeMsg)]
    assert times == [0, 1, 1, 2, 2, *range(3, N)]
    async with gateway(ten, faults="damage after=3") as address, reading(address) as connected:
        with pytest.raises(dbn.DBNError):
            await connected.rest()


async def test_a_stall_holds_heartbeats_and_then_all_comes(ten):
    begun = time.monotonic()
    faults = "stall after=4 seconds=0.3"
    async with gateway(ten, faults=faults) as address, reading(address) as connected:
        await connected.until(lambda received: n_trades(received) > 4)
        assert time.monotonic() - begun >= 0.3
        assert n_trades(await connected.rest()) == N


async def test_a_slow_link_delivers_everything(tmp_path):
    path = trades_apart(tmp_path, 100)
    begun = time.monotonic()
    async with gateway(path, faults="slow bytes_per_s=10000") as address:
        assert n_trades(await session(address, wants("AAPL"))) == 100
    assert time.monotonic() - begun > 0.3  # 4,800 bytes


async def test_late_and_wrong_authentication(ten):
    async with gateway(ten, faults="late-auth seconds=0.2 session=1") as address:
        begun = time.monotonic()
        assert n_trades(await session(address, wants("AAPL"))) == N
        assert time.monotonic() - begun > 0.2
    async with (
        gateway(ten, faults="wrong-auth text=no entry") as address,
        client(address) as rejected,
    ):
        with pytest.raises(EOFError):
            await rejected.login()
        assert (await rejected.answer(Rejected)).reason == "no entry"


async def test_faults_that_are_not_valid(ten):
    with pytest.raises(UsageError, match="fault explode"):
        async with gateway(ten, faults="explode"):
            pass


class TestControl:
    async def test_a_session_is_reset_and_another_goes_on(self, ten):
        async with (
            controlled(ten, at_end="hold") as (address, control),
            reading(address) as one,
            reading(address) as other,
        ):
            for each in (one, other):
                await each.until(lambda received: len(received) >= 3)
            _, status = await control("GET", "/status")
            numbers = [each["session"] for each in status["sessions"]]
            await control("POST", "/faults", add=f"reset session={numbers[0]}")
            with pytest.raises(ConnectionResetError):
                await one.rest()
            other.send(wants("MSFT"))
            await other.until(lambda received: "MSFT = MSFT 2" in texts(received))

    @pytest.mark.parametrize(("add", "code"), [("fin", None), ("error code=2", 2)])
    async def test_idle_sessions_end_at_once(self, ten, add, code):
        async with controlled(ten, at_end="hold") as (address, control), reading(address) as one:
            await one.until(lambda received: n_trades(received) == N)
            await control("POST", "/faults", add=add)
            received = await one.rest()
            last = received[-1]
            assert (int(last.code) if isinstance(last, dbn.ErrorMsg) else None) == code

    async def test_faults_of_the_authentication_are_for_who_comes(self, ten):
        async with controlled(ten, at_end="hold") as (address, control), reading(address) as one:
            await one.until(lambda received: n_trades(received) == N)
            status, _ = await control("POST", "/faults", add="wrong-auth text=closed")
            assert status == 200
            for _ in range(2):
                async with client(address) as rejected:
                    with pytest.raises(EOFError):
                        await rejected.login()
                    assert (await rejected.answer(Rejected)).reason == "closed"
            one.send(wants("MSFT"))
            await one.until(lambda received: "MSFT = MSFT 2" in texts(received))

    async def test_what_is_due_at_a_record_does_not_go_with_bare(self, ten):
        for faults in ("reset", "stall after=5"):
            with pytest.raises(UsageError, match="which --bare does not count"):
                async with gateway(ten, bare=True, faults=faults):
                    pass
        settings = {"bare": True, "at_end": "hold", "faults": "late-auth seconds=0.01"}
        async with controlled(ten, **settings) as (address, control), reading(address) as one:
            await one.until(lambda received: n_trades(received) == N)
            for add in ("reset after=5", "damage", "skip"):
                status, answer = await control("POST", "/faults", add=add)
                assert (status, "--bare" in answer["message"]) == (400, True)
            status, _ = await control("POST", "/faults", add="error code=2")
            assert status == 200
            received = await one.rest()
            assert (n_trades(received), int(received[-1].code)) == (N, 2)
        async with (
            controlled(ten, bare=True, speed=1e-6) as (address, control),
            reading(address) as one,
        ):
            await one.until(n_trades)
            await control("POST", "/faults", add="fin")  # while the next record is not due
            assert n_trades(await one.rest()) == 1

    async def test_a_session_that_does_not_exist(self, ten):
        async with controlled(ten, at_end="hold") as (address, control), reading(address) as one:
            await one.until(lambda received: n_trades(received) == N)
            async with reading(address) as gone:
                await gone.until(lambda received: "AAPL = AAPL 1" in texts(received))
            while len((await control("GET", "/status"))[1]["sessions"]) > 1:
                pass
            for add, said in {
                "fin session=2": "session 2: is not open",
                "fin after=1 session=2": "session 2: is not open",
                "fin session=0": "session 0: is not open",
                "fin session=9": "session 9: has not begun; give the fault a time",
                "fin session=1; fin session=9": "session 9: has not begun",
            }.items():
                status, answer = await control("POST", "/faults", add=add)
                assert (status, said in answer["message"]) == (404, True)
            assert (await control("POST", "/faults", add="fin after=2 session=3"))[0] == 200
            assert n_trades(await session(address, wants("AAPL", start_ns=0))) == 2
            one.send(wants("MSFT"))  # of what was refused, nothing has happened
            await one.until(lambda received: "MSFT = MSFT 2" in texts(received))

    async def test_a_fault_that_says_when_is_for_later_sessions_too(self, ten):
        async with controlled(ten) as (address, control):
            await control("POST", "/faults", add="fin after=3")
            for _ in range(2):
                assert n_trades(await session(address, wants("AAPL", start_ns=0))) == 3
