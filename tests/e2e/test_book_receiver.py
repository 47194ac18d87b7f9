"""The receiver over real sockets: lines, states, slow readers, and senders that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import aiohttp
import numpy as np
import pytest

from mdtool.core.addresses import parse_address
from mdtool.core.descriptors import shortage
from mdtool.core.dtypes import F_LAST
from mdtool.core.errors import StartupError
from mdtool.core.units import format_price
from mdtool.engine.simulate import Exchange
from mdtool.services.book import connection, reader
from tests.support.book_services import CRAWLING, Http, receiver_of, sender_of
from tests.support.recordings import pictures, record, write

INSTRUMENTS = Exchange().instruments
NOBODY = "127.0.0.1:1"
MANY = 300_000
"""More records than a history keeps."""


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "day.dbn"
    return path, record(path, 20_000)


@pytest.fixture(scope="module")
def long_day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "long.dbn"
    return path, record(path, MANY)


async def run_through(sender: Http, receiver: Http) -> dict:
    """Have the receiver process all of the sender's stream; return its status."""
    await sender.start("/start-streaming")
    await receiver.start("/start-processing")
    return await receiver.until(state="done")


async def final_states(receiver: Http, query: str = "") -> dict:
    """The books of ?last=true by symbol, without what snapshots do not have."""
    states = {state["symbol"]: state for state in await receiver.lines(f"?last=true{query}")}
    for state in states.values():
        assert state.pop("final")
        assert state.pop("records") > 0
        state.pop("last_trade")
    return states


async def test_books_are_those_of_one_pass_over_the_file(day):
    path, records = day
    async with sender_of(path) as sender, receiver_of(sender.data) as receiver:
        status = await run_through(sender, receiver)
        assert await final_states(receiver) == pictures(records, INSTRUMENTS)
    expected = pictures(records, INSTRUMENTS)
    assert status["records"] == status["position"] == len(records)
    assert status["active_orders"] == sum(
        picture["stats"]["total_orders"] for picture in expected.values()
    )
    for book in status["books"]:
        assert book["bbo"] == expected[book["symbol"]]["bbo"]
        assert book["bid_levels"] == expected[book["symbol"]]["stats"]["bid_levels"]
        assert not book["partial"]
    trades = records[records["action"] == b"T"]
    assert (status["trades"], status["volume"]) == (len(trades), int(trades["size"].sum()))
    assert (status["skipped"], status["resumed"], status["error"]) == (0, 0, None)


async def test_a_line_for_each_record(day):
    path, records = day
    async with sender_of(path) as sender, receiver_of(sender.data) as receiver:
        await run_through(sender, receiver)
        lines = await receiver.lines("?depth=3")
        final = await final_states(receiver, "&depth=3")
    assert [line["record"]["sequence"] for line in lines] == records["sequence"].tolist()
    assert [line["record"]["action"] for line in lines] == [
        action.decode() for action in records["action"]
    ]
    last_of = {line["symbol"]: line for line in lines}
    for symbol, state in final.items():
        line = last_of[symbol]
        assert line.pop("record")["flags"] & F_LAST
        state.pop("anomalies")
        assert line == state
        assert all(len(side) <= 3 for side in state["levels"].values())


async def test_readers_get_the_same_bytes(day):
    async with sender_of(day[0]) as sender, receiver_of(sender.data) as receiver:
        await receiver.start("/start-processing")

        async def told() -> bytes:
            async with receiver.get("/order-book?depth=2") as response:
                return await response.read()

        early = asyncio.create_task(told())
        await receiver.until(readers=1)
        await sender.start("/start-streaming")
        await receiver.until(state="done")
        assert await told() == await early


async def test_lines_come_as_records_are_processed(day):
    path, records = day
    n_first = int((records["ts_recv"] == records["ts_recv"][0]).sum())
    async with sender_of(path, speed=CRAWLING) as sender, receiver_of(sender.data) as receiver:
        await receiver.start("/start-processing")
        async with receiver.get("/order-book") as response:
            await sender.start("/start-streaming")
            lines = [json.loads(await response.content.readline()) for _ in range(n_first)]
            assert (await receiver.status())["state"] == "processing"
    assert [line["record"]["sequence"] for line in lines] == records["sequence"][:n_first].tolist()
    assert not response.content.at_eof()


async def test_symbols_can_be_chosen(day):
    path, records = day
    async with sender_of(path) as sender, receiver_of(sender.data) as receiver:
        await run_through(sender, receiver)
        assert set(await final_states(receiver, "&symbols=MSFT,%20TSLA")) == {"MSFT", "TSLA"}
        lines = await receiver.lines("?symbols=MSFT&depth=1")
        assert await receiver.lines("?symbols=&depth=&last=") == await receiver.lines()
        assert await receiver.lines("?symbols=NOTHING") == []
    assert {line["symbol"] for line in lines} == {"MSFT"}
    assert len(lines) == int((records["instrument_id"] == 2).sum())


async def test_the_state_so_far_is_not_final(day):
    path, records = day
    n_first = int((records["ts_recv"] == records["ts_recv"][0]).sum())
    async with sender_of(path, speed=CRAWLING) as sender, receiver_of(sender.data) as receiver:
        await receiver.start("/start-processing?from=")
        assert await receiver.lines("?last=true") == []
        assert (await receiver.status())["state"] in {"connecting", "waiting"}
        await sender.start("/start-streaming")
        await receiver.until(state="processing", records=n_first)
        states = await receiver.lines("?last=true")
        assert [state["final"] for state in states] == [False] * len(INSTRUMENTS)


async def test_before_the_start_there_is_nothing():
    async with receiver_of(NOBODY) as receiver:
        for query in ("", "?last=true", "?last=&depth=&symbols="):
            status, told = await receiver.ask(f"/order-book{query}")
            assert (status, told["error"]) == (409, "not_started")
        assert (await receiver.status())["state"] == "idle"
        assert await receiver.ask("/health") == (
            200,
            {"status": "ok", "state": "idle", "accept_pauses": shortage.pauses},
        )


async def test_two_starts_at_once(day):
    async with sender_of(day[0]) as sender, receiver_of(sender.data) as receiver:
        answers = await asyncio.gather(
            *(receiver.ask("/start-processing", "POST") for _ in range(5))
        )
        assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409]
        await sender.start("/start-streaming")
        await receiver.until(state="done")
        await run_through(sender, receiver)


async def test_waiting_for_a_sender_that_never_comes_can_be_stopped():
    async with receiver_of(NOBODY) as receiver:
        await receiver.start("/start-processing")
        status, told = await receiver.ask("/stop-processing", "POST")
        assert (status, told["status"]) == (200, "stopped")
        assert (await receiver.status())["state"] == "stopped"
        lines = await receiver.lines("")
        assert lines == [{"error": "stopped by POST /stop-processing"}]


async def test_a_stopped_processing_keeps_its_books_and_another_can_begin(day):
    async with sender_of(day[0], speed=CRAWLING) as sender, receiver_of(sender.data) as receiver:
        await receiver.start("/start-processing")
        async with receiver.get("/order-book") as response:
            await sender.start("/start-streaming")
            await response.content.readline()
            assert (await receiver.ask("/stop-processing", "POST"))[0] == 200
            *_, last = (await response.read()).splitlines()
            assert "stopped" in json.loads(last)["error"]
        assert len(await receiver.lines("?last=true")) == len(INSTRUMENTS)
        await receiver.start("/start-processing")
        await receiver.until(state="processing")


async def test_nothing_can_be_stopped_that_does_not_go_on(day):
    async with sender_of(day[0]) as sender, receiver_of(sender.data) as receiver:
        for _ in range(2):
            status, told = await receiver.ask("/stop-processing", "POST")
            assert (status, told["error"]) == (409, "not_processing")
            await run_through(sender, receiver)


@pytest.mark.parametrize(
    "query",
    ["depth=0", "depth=101", "depth=-1", "depth=many", "depth=1e1", "last=perhaps"],
)
async def test_wrong_parameters(query):
    async with receiver_of(NOBODY) as receiver:
        status, told = await receiver.ask(f"/order-book?{query}")
        assert (status, told["error"]) == (400, "bad_parameter")


async def test_a_wrong_opening():
    async with receiver_of(NOBODY) as receiver:
        status, told = await receiver.ask("/start-processing?from=middle", "POST")
        assert (status, told["error"]) == (400, "bad_parameter")
        assert (await receiver.status())["state"] == "idle"


async def test_joining_live(day):
    path, records = day
    async with sender_of(path) as sender, receiver_of(sender.data) as first:
        await run_through(sender, first)
        async with receiver_of(sender.data) as late:
            await late.start("/start-processing?from=live")
            status = await late.until(state="done")
            states = await final_states(late)
    expected = pictures(records, INSTRUMENTS)
    for symbol, state in states.items():
        assert state["levels"] == expected[symbol]["levels"]
        assert state["stats"] == expected[symbol]["stats"]
    assert status["position"] == len(records)
    assert status["records"] < len(records)


async def test_a_partial_book_is_partial_for_receivers_that_join_live(tmp_path):
    path = tmp_path / "partial.dbn"
    records = Exchange().generate(5_000)[1_500:]
    write(path, records, INSTRUMENTS)
    async with sender_of(path) as sender, receiver_of(sender.data) as first:
        status = await run_through(sender, first)
        assert status["partial"]
        assert status["anomalies"]["unknown_cancel"] > 0
        async with receiver_of(sender.data) as late:
            await late.start("/start-processing?from=live")
            assert (await late.until(state="done"))["partial"]
            assert all(state["partial"] for state in (await final_states(late)).values())


async def test_a_receiver_that_is_early_waits_for_its_sender(day, free_port):
    path, records = day
    async with receiver_of(f"127.0.0.1:{free_port}") as receiver:
        await receiver.start("/start-processing")
        await receiver.until(state="connecting")
        async with sender_of(path, data_port=free_port) as sender:
            await receiver.until(state="waiting")
            await sender.start("/start-streaming")
            assert (await receiver.until(state="done"))["records"] == len(records)


async def test_a_sender_that_is_lost_is_resumed_without_a_gap(day, free_port):
    path, records = day
    n_first = int((records["ts_recv"] == records["ts_recv"][0]).sum())
    async with contextlib.AsyncExitStack() as stack:
        async with sender_of(path, speed=CRAWLING, data_port=free_port) as sender:
            receiver = await stack.enter_async_context(receiver_of(sender.data))
            await sender.start("/start-streaming")
            await receiver.start("/start-processing")
            await receiver.until(position=n_first)
        await receiver.until(state="reconnecting")
        async with sender_of(path, data_port=free_port):
            status = await receiver.until(state="done")
        assert (status["resumed"], status["skipped"]) == (1, 0)
        assert await final_states(receiver) == pictures(records, INSTRUMENTS)
        assert len(await receiver.lines("?depth=1")) == len(records)


async def test_a_sender_of_another_stream_cannot_be_resumed_which_is_reported(
    day, tmp_path, free_port
):
    path, records = day
    other = tmp_path / "other.dbn"
    record(other, 3_000, seed=2)
    n_first = int((records["ts_recv"] == records["ts_recv"][0]).sum())
    async with contextlib.AsyncExitStack() as stack:
        async with sender_of(path, speed=CRAWLING, data_port=free_port) as sender:
            receiver = await stack.enter_async_context(receiver_of(sender.data))
            await sender.start("/start-streaming")
            await receiver.start("/start-processing")
            await receiver.until(position=n_first)
        async with sender_of(other, data_port=free_port) as sender:
            status = await receiver.until(state="failed")
            assert "is not here" in status["error"]
            assert status["position"] == n_first
            lines = await receiver.lines("?depth=1")
            assert lines[-1] == {"error": status["error"]}
            assert len(lines) == n_first + 1
            status = await run_through(sender, receiver)
            assert status["error"] is None


async def test_a_file_that_is_cut_leaves_its_whole_records_and_the_reason(day, tmp_path):
    path, records = day
    cut = tmp_path / "cut.dbn"
    cut.write_bytes(path.read_bytes()[:-1])
    async with sender_of(cut) as sender, receiver_of(sender.data) as receiver:
        await sender.start("/start-streaming")
        await receiver.start("/start-processing")
        status = await receiver.until(state="failed")
    assert status["records"] == len(records) - 1
    assert "ends inside a record" in status["error"]


async def test_a_stream_of_trades_makes_no_books(tmp_path):
    from mdtool.wire.dbn import encode_metadata, encode_records
    from mdtool.wire.dbn_metadata import make_metadata

    path = tmp_path / "trades.dbn"
    trades = Exchange().generate(2_000, "trades")
    path.write_bytes(
        encode_metadata(make_metadata("XSIM.TEST", "trades", 0)) + bytes(encode_records(trades))
    )
    async with sender_of(path) as sender, receiver_of(sender.data) as receiver:
        await sender.start("/start-streaming")
        await receiver.start("/start-processing")
        status = await receiver.until(state="failed")
    assert "books are made of mbo" in status["error"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a DBN stream"),
        (np.random.default_rng(1).bytes(5_000), "is not a DBN stream"),
        (None, "does not answer as a sender"),
    ],
)
async def test_a_peer_that_is_not_a_sender_is_reported(day, said, why, monkeypatch):
    if said is None:  # records come at once, and an answer never
        monkeypatch.setattr(connection, "ANSWER_S", 0.0)
    content = day[0].read_bytes() if said is None else said

    async def answer(reader, writer):
        await reader.readline()
        writer.write(content)
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, receiver_of(f"{host}:{port}") as receiver:
        await receiver.start("/start-processing")
        status = await receiver.until(state="failed")
    assert why in status["error"]


async def test_a_sender_that_rejects_receivers_is_tried_again(day):
    path, records = day
    async with sender_of(path, max_receivers=1, greeting_ms=3_600_000) as sender:
        host, port = parse_address(sender.data)
        _, writer = await asyncio.open_connection(host, port)
        await sender.until(receivers=1)
        async with receiver_of(sender.data) as receiver:
            await sender.start("/start-streaming")
            await receiver.start("/start-processing")
            await receiver.until(state="connecting")
            writer.close()
            await writer.wait_closed()
            # The sender looks for the one who has left when it next has something to say.
            await sender.until(receivers=0)
            assert (await receiver.until(state="done"))["records"] == len(records)


async def test_a_reader_that_keeps_reading_misses_nothing(long_day):
    path, records = long_day
    async with (
        sender_of(path) as sender,
        receiver_of(sender.data, history_records=131_072, patience_ms=60_000) as receiver,
    ):
        await receiver.start("/start-processing")
        async with receiver.get("/order-book?depth=1") as response:
            await sender.start("/start-streaming")
            n_lines = 0
            async for chunk in response.content.iter_any():
                assert b"skipped" not in chunk
                n_lines += chunk.count(b"\n")
    assert n_lines == len(records)


async def stalled_reader(address: str) -> socket.socket:
    """A client that asks for lines and reads none."""
    client = socket.socket()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, parse_address(address))
    await loop.sock_sendall(client, b"GET /order-book?depth=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return client


async def test_a_reader_that_stopped_reading_misses_records_and_is_sent_their_number(long_day):
    path, records = long_day
    async with (
        sender_of(path) as sender,
        receiver_of(sender.data, history_records=131_072, patience_ms=50) as receiver,
    ):
        await receiver.start("/start-processing")
        with await stalled_reader(receiver.address) as client:
            await receiver.until(readers=1)
            await sender.start("/start-streaming")
            status = await receiver.until(state="done")
            assert status["records"] == len(records)
            reader, writer = await asyncio.open_connection(sock=client, limit=1 << 20)
            told = bytearray()
            while not told.endswith(b"\r\n0\r\n\r\n"):
                told += await reader.read(1 << 20)
            writer.close()
    lines = [line for line in told.splitlines() if line.startswith(b'{"')]
    skipped = sum(json.loads(line)["skipped"] for line in lines if b'"skipped"' in line)
    assert skipped > 0
    n_told = sum(line.startswith(b'{"symbol"') for line in lines)
    assert n_told + skipped == len(records)


async def test_readers_that_leave_are_forgotten(day):
    async with sender_of(day[0], speed=CRAWLING) as sender, receiver_of(sender.data) as receiver:
        await sender.start("/start-streaming")
        await receiver.start("/start-processing")
        async with receiver.get("/order-book") as response:
            await response.content.readline()
            assert (await receiver.status())["readers"] == 1
            response.close()
        await sender.until(state="streaming")
        await receiver.until(readers=0)


async def test_there_may_be_so_many_readers(day):
    async with (
        sender_of(day[0], speed=CRAWLING) as sender,
        receiver_of(sender.data, max_readers=1) as receiver,
    ):
        await receiver.start("/start-processing")
        async with receiver.get("/order-book"):
            status, told = await receiver.ask("/order-book")
            assert (status, told["error"]) == (503, "busy")
            assert (await receiver.ask("/status"))[0] == 200
        await sender.start("/start-streaming")


async def test_stopping_ends_the_lines_with_a_reason(day):
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with sender_of(day[0], speed=CRAWLING) as sender:
            async with receiver_of(sender.data) as receiver:
                await receiver.start("/start-processing")
                response = await session.get(f"http://{receiver.address}/order-book")
                await sender.start("/start-streaming")
                await receiver.until(state="processing")
            lines = (await response.read()).splitlines()
    assert json.loads(lines[-1]) == {"error": "the receiver stops"}


async def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} .* in use"):
            async with receiver_of(NOBODY, port=port):
                pass


def test_flushes_and_batches_are_as_promised():
    assert (reader.BATCH_RECORDS, reader.FLUSH_RECORDS) == (5_000, 500)


async def test_prices_come_as_they_are(day):
    path, records = day
    async with sender_of(path) as sender, receiver_of(sender.data) as receiver:
        await run_through(sender, receiver)
        lines = await receiver.lines("?depth=1")
    for line, price in zip(lines[-500:], records["price"][-500:].tolist(), strict=True):
        assert line["record"]["price"] == format_price(price)
