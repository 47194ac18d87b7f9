"""The VWAP feed over real sockets, behind a real aggregator."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys

import pytest

from mdtool.core.errors import StartupError
from mdtool.services.vwap.states import STATES_AT_ONCE
from tests.support.aggregators import NOON_NS, aggregator, message, tick
from tests.support.services import logged
from tests.support.vwap_feeds import connected, vwap_feed

BIG = 60
"""Characters of a symbol, so that states are long."""


@pytest.fixture
def said():
    with logged("mdtool.services.vwap", logging.DEBUG) as log:
        yield log


async def test_the_last_states_at_once_and_then_what_changes(said):
    async with aggregator() as running, vwap_feed(running.address, window="2") as address:
        await said.heard("connected")
        async with connected(address) as early:
            await running.send(message(0, [tick(100, 1), tick(200, 3, symbol=1)], ["AAPL", "MSFT"]))
            first = await early.until(symbol="AAPL")
            assert first == {
                "symbol": "AAPL",
                "price": 1,
                "volume": 1,
                "vwap": 1,
                "window": 1,
                "timestamp": NOON_NS,
            }
            await early.until(symbol="MSFT")
            async with connected(address) as late:
                states = [await late.next(), await late.next()]
                assert {state["symbol"] for state in states} == {"AAPL", "MSFT"}
                await running.send(message(2, [tick(300, 3), tick(500, 1)], ["AAPL"]))
                for client in (early, late):
                    assert await client.until(symbol="AAPL", price=5) == {
                        "symbol": "AAPL",
                        "price": 5,
                        "volume": 1,
                        "vwap": 3.5,
                        "window": 2,
                        "timestamp": NOON_NS,
                    }


async def test_a_subscription_narrows_answers_and_widens_again(said):
    async with aggregator() as running, vwap_feed(running.address) as address:
        await said.heard("connected")
        async with connected(address) as client:
            names = ["AAPL", "MSFT", "GOOG"]
            await running.send(message(0, [tick(100, symbol=s) for s in range(3)], names))
            assert {(await client.next())["symbol"] for _ in names} == set(names)
            client.say("SUBSCRIBE msft, TSLA")
            assert (await client.next())["symbol"] == "MSFT"
            await running.send(message(3, [tick(200), tick(300, symbol=1)], ["AAPL", "MSFT"]))
            assert await client.next() == await _state(address, "MSFT", 3)
            await running.send(message(5, [tick(900)], ["TSLA"]))
            assert (await client.next())["symbol"] == "TSLA"
            client.say("SUBSCRIBE *")
            found = {(await client.next())["symbol"] for _ in range(4)}
            assert found == {*names, "TSLA"}


async def test_many_states_come_in_turns_and_each_once(said):
    names = [f"S{number}" for number in range(2 * STATES_AT_ONCE + 5)]
    async with aggregator() as running, vwap_feed(running.address) as address:
        await said.heard("connected")
        ticks = [tick(100, symbol=symbol) for symbol in range(len(names))]
        async with connected(address) as early:
            await running.send(message(0, ticks, names))
            assert {(await early.next())["symbol"] for _ in names} == set(names)
            async with connected(address) as late:
                assert [(await late.next())["symbol"] for _ in names] == names
                late.say("SUBSCRIBE *")
                assert [(await late.next())["symbol"] for _ in names] == names


async def _state(address: str, symbol: str, price: float) -> dict:
    async with connected(address) as client:
        return await client.until(symbol=symbol, price=price)


async def test_each_bad_line_gets_an_error_and_no_other_client_does(said):
    async with aggregator() as running, vwap_feed(running.address) as address:
        await said.heard("connected")
        async with connected(address) as bad, connected(address) as good:
            bad.say("GET / HTTP/1.1", "", "SUBSCRIBE", "x" * 100_000, "SUBSCRIBE AAPL")
            said = [await bad.next() for _ in range(3)]
            assert [list(line) for line in said] == [["error"]] * 3
            assert "send SUBSCRIBE AAPL,MSFT" in said[0]["error"]
            assert "over 65,536 bytes" in said[2]["error"]
            await running.send(message(0, [tick(100)], ["AAPL"]))
            assert (await bad.next())["symbol"] == "AAPL"
            assert (await good.next())["symbol"] == "AAPL"


async def test_lines_may_come_in_pieces_and_end_as_windows_ends_them(said):
    async with aggregator() as running, vwap_feed(running.address) as address:
        await said.heard("connected")
        await running.send(message(0, [tick(100), tick(1, symbol=1)], ["AAPL", "MSFT"]))
        async with connected(address) as client:
            await client.next()
            await client.next()
            for piece in (b"SUBSC", b"RIBE MS", b"FT\r\nSUBSCRIBE AAPL\r", b"\n"):
                client.writer.write(piece)
                await client.writer.drain()
            assert (await client.next())["symbol"] == "MSFT"
            assert (await client.next())["symbol"] == "AAPL"


async def test_a_client_that_closed_its_half_still_gets_updates(said):
    async with aggregator() as running, vwap_feed(running.address) as address:
        await said.heard("connected")
        async with connected(address) as client:
            client.say("SUBSCRIBE AAPL")
            client.writer.write_eof()
            await running.send(message(0, [tick(100)], ["AAPL"]))
            assert (await client.next())["symbol"] == "AAPL"


def pour(first: int, n_symbols: int, cents: int) -> object:
    names = [f"S{number:03d}{'X' * BIG}" for number in range(n_symbols)]
    return message(first, [tick(cents, symbol=s) for s in range(n_symbols)], names)


async def test_a_slow_client_gets_the_last_states_and_not_all_of_them(said):
    async with (
        aggregator() as running,
        vwap_feed(running.address, slow_client_s=3_600) as address,
    ):
        await said.heard("connected")
        async with connected(address, limit=1 << 12) as slow, connected(address) as quick:
            rounds, n_symbols = 150, 400
            for number in range(rounds):
                await running.send(pour(number * n_symbols, n_symbols, 100 + number))
                await quick.until(symbol=f"S399{'X' * BIG}", price=(100 + number) / 100)
            last = (99 + rounds) / 100
            told, seen = set(), 0
            while len(told) < n_symbols:
                line = await slow.next()
                seen += 1
                if line["price"] == last:
                    told.add(line["symbol"])
            assert seen < rounds * n_symbols / 2


async def test_a_client_that_never_reads_is_closed_and_the_others_go_on(said):
    async with (
        aggregator() as running,
        vwap_feed(running.address, slow_client_s=0.05) as address,
    ):
        await said.heard("connected")
        host, _, port = address.rpartition(":")
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            deaf.connect((host, int(port)))
            async with connected(address) as quick:
                number = 0
                closed = asyncio.create_task(said.heard("stopped reading for 0.05 s"))
                while not closed.done():
                    await running.send(pour(number * 400, 400, 100 + number))
                    await quick.until(symbol=f"S399{'X' * BIG}", price=(100 + number) / 100)
                    number += 1
                await running.send(pour(number * 400, 400, 100 + number))
                await quick.until(symbol=f"S399{'X' * BIG}", price=(100 + number) / 100)


async def test_hundreds_of_clients_get_the_last_state(said):
    async with aggregator() as running, vwap_feed(running.address) as address:
        await said.heard("connected")
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(address)) for _ in range(300)]
            for number, client in enumerate(clients):
                client.say("SUBSCRIBE AAPL" if number % 2 else "SUBSCRIBE *")
            for number in range(50):
                frames = [tick(100 + number), tick(500 + number, symbol=1)]
                await running.send(message(2 * number, frames, ["AAPL", "MSFT"]))
            for client in clients:
                await client.until(symbol="AAPL", price=1.49)


async def test_clients_above_the_limit_are_rejected(said):
    async with aggregator() as running, vwap_feed(running.address, max_clients=1) as address:
        async with connected(address) as first:
            first.say("SUBSCRIBE")
            assert "error" in await first.next()
            async with connected(address) as second:
                assert "too many clients" in (await second.next())["error"]
                assert await second.reader.read() == b""
        while True:  # until the first one's end has been noticed
            async with connected(address) as third:
                third.say("SUBSCRIBE")
                if "names no symbol" in (await third.next())["error"]:
                    break


async def test_an_aggregator_that_reconnects_is_followed_again(said, free_port):
    async with vwap_feed(f"127.0.0.1:{free_port}") as address:
        async with aggregator(port=free_port) as running:
            await said.heard("connected")
            await running.send(message(0, [tick(100)], ["AAPL"]))
            await _state(address, "AAPL", 1)
        assert (await _state(address, "AAPL", 1))["window"] == 1
        async with aggregator(port=free_port) as running:
            await said.heard("windows may lack trades")
            await running.send(message(0, [tick(300)], ["AAPL"]))
            assert (await _state(address, "AAPL", 3))["vwap"] == 2


async def test_windows_are_restored_from_the_store_whatever_was_unavailable(
    said, free_port, tmp_path
):
    store = f"sqlite:///{tmp_path}/market.db?synchronous=normal"
    async with aggregator(port=free_port, store=store) as running:
        await running.send(message(0, [tick(100 + n, at_s=n) for n in range(5)], ["AAPL"]))
        async with vwap_feed(running.address, store=store, window="4") as address:
            assert (await _state(address, "AAPL", 1.04))["vwap"] == 1.025
            await running.send(message(5, [tick(105, at_s=5)], ["AAPL"]))
            state = await _state(address, "AAPL", 1.05)
            assert (state["window"], state["vwap"]) == (4, 1.035)
        await running.send(message(6, [tick(106, at_s=6)], ["AAPL"]))
        async with vwap_feed(running.address, store=store, window="4") as address:
            assert (await _state(address, "AAPL", 1.06))["vwap"] == 1.045
    assert not any("windows may lack trades" in line for line in said.lines)


async def test_without_a_readable_store_windows_start_empty(said, tmp_path):
    (tmp_path / "market.db").write_bytes(b"no database" * 1000)
    store = f"sqlite:///{tmp_path}/market.db"
    async with aggregator() as running, vwap_feed(running.address, store=store) as address:
        await said.heard("windows start empty")
        await running.send(message(0, [tick(100)], ["AAPL"]))
        assert (await _state(address, "AAPL", 1))["window"] == 1


async def test_a_taken_port_is_no_reason_to_try_again():
    async with vwap_feed("127.0.0.1:1") as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use"):
            async with vwap_feed("127.0.0.1:1", port=port):
                pass


def test_the_command_ends_with_3_where_the_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "mdtool", "vwap", "--port", str(port)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr == (
        f"mdtool: port {port} on 127.0.0.1 is in use; stop what listens there, or choose another "
        "with --port\n"
    )
