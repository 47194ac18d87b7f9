"""The client that sends again: whatever breaks on the way, each tick counts once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading

import numpy as np
import pytest

from mdtool.core.addresses import format_address, parse_address
from mdtool.core.errors import InputError, PeerError
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import NamedTrades, Trades
from mdtool.services.send import sender as sender_module
from mdtool.services.send.config import SendConfig
from mdtool.services.send.sender import Sender
from mdtool.wire import tick_encoder
from mdtool.wire.frames import Ack, encode_ack, encode_committed, encode_frame, encode_resume
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder
from tests.reference.aggregator import PlainAggregator
from tests.support.ingest_servers import prices, serving
from tests.support.services import logged


def run(first, count):
    """Ticks whose prices count up from `first`."""
    trades = Trades(
        symbol=np.zeros(count, np.uint32),
        price=np.arange(first, first + count) * 10**9,
        size=np.ones(count, np.int64),
        ts_event=np.full(count, 1_735_201_234_567_000_000),
        ts_recv=np.zeros(count, np.int64),
    )
    return NamedTrades(SymbolTable(["AAPL"]), trades)


def runs(total, size=100):
    return [run(first, min(size, total + 1 - first)) for first in range(1, total + 1, size)]


def sender_to(address, source, **settings):
    host, port = address
    settings.setdefault("connect_timeout_s", 60.0)
    return Sender(SendConfig(host=host, port=port, **settings), source)


async def send(address, source, **settings):
    """Return the Ack's message."""
    sender = sender_to(address, source, **settings)
    await sender.run(lambda _: None)
    assert sender.ack.success
    return sender.ack.message


class CuttingProxy:
    """Passes bytes on, and resets each connection after as many of the client's as it is told."""

    def __init__(self, target, cuts) -> None:
        self._target = target
        self._cuts = iter(cuts)
        self.connections = 0

    @contextlib.asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()

    async def _pass_on(self, reader, writer) -> None:
        self.connections += 1
        back, forth = await asyncio.open_connection(*self._target)
        answering = asyncio.create_task(self._answer(back, writer))
        left = next(self._cuts, None)
        while left is None or left > 0:
            data = await reader.read(min(left or 1 << 16, 1 << 16))
            if not data:
                forth.write_eof()
                await answering
                break
            left = left and left - len(data)
            forth.write(data)
        else:
            answering.cancel()
        for one in (writer, forth):
            one.transport.abort()

    async def _answer(self, reader, writer) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)


async def test_every_tick_arrives_and_is_acknowledged(address, ledger):
    message = await send(address, runs(1_000), stream_id="s")
    assert message == ("Accepted 1000 ticks, refused 0; stream 's' is committed up to 1000")
    assert ledger.prices("s") == list(range(1, 1_001))


async def test_nothing_to_send_is_acknowledged_too(address):
    assert "Accepted 0 ticks" in await send(address, [])


async def test_streams_without_a_name_get_one_each(address, ledger):
    await send(address, runs(10))
    await send(address, runs(10))
    assert len(ledger.frames) == 2


@pytest.mark.parametrize("seed", range(5))
async def test_a_connection_may_break_anywhere(address, ledger, seed):
    rng = random.Random(seed)
    cuts = [rng.choice([1, 5, 20, 40, 41, 500, 5_000, 50_000]) for _ in range(20)]
    proxy = CuttingProxy(address, cuts)
    async with proxy.serving() as through:
        await send(through, runs(2_000, size=37), stream_id="s", max_losses=len(cuts))
    assert ledger.prices("s") == list(range(1, 2_001))
    assert proxy.connections > 5


async def test_a_server_may_be_replaced_by_another_on_its_port(aggregator, ledger, free_port):
    """Between any two runs, and with ticks taken that it had not seen committed."""
    may_go_on = threading.Semaphore(0)

    def source():
        for part in runs(500):
            yield part
            may_go_on.acquire()

    sender = sender_to(("127.0.0.1", free_port), source(), stream_id="s")
    sending = asyncio.create_task(sender.run(lambda _: None))
    for k in range(1, 6):
        async with serving(aggregator.address, port=free_port):
            await ledger.when(lambda k=k: ledger.count() == 100 * k)
            if k == 5:
                may_go_on.release()
                await sending
        may_go_on.release()
    assert ledger.prices("s") == list(range(1, 501))
    assert sender.ack.success


@pytest.mark.parametrize("form", [{"stream_id": "s"}, {"plain": True}], ids=["stream", "plain"])
async def test_lots_come_before_their_ticks_on_each_connection(form):
    first, received = run(1, 3), []
    first.symbols.give_lots({"AAPL": 50})

    async def answer(reader, writer):
        index = SymbolIndex()
        decoder = TickDecoder(index)
        ticks = 0
        if "plain" not in form:
            writer.write(encode_resume(0))
        while ticks < 3:
            ticks += len(decoder.feed(await reader.read(1 << 16), 10**18).frames.trades)
        received.append([index.symbols.lot(0), ticks])
        if len(received) == 2 or "plain" in form:
            writer.write(encode_ack(True, "done"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        await send(server.sockets[0].getsockname(), [first], **form)
    assert received == ([[None, 3]] if "plain" in form else [[50, 3], [50, 3]])


async def test_the_outcome_counts_what_went_over_all_connections():
    answers = [encode_resume(3) + encode_committed(6), encode_resume(8) + encode_ack(True, "Done")]
    async with answering(*answers) as address:
        sender = sender_to(address, runs(10), stream_id="s")
        assert sender.outcome is None
        await sender.run(lambda _: None)
    assert sender.outcome == "Sent 7 ticks over 2 connections, all committed; over the last: Done"


async def test_the_outcome_of_one_connection_is_its_acknowledgement(address):
    sender = sender_to(address, runs(10), stream_id="s")
    await sender.run(lambda _: None)
    assert sender.outcome == sender.ack.message


async def test_a_stream_sent_again_resumes_where_it_stopped(address, ledger):
    await send(address, runs(700, size=33), stream_id="s")
    message = await send(address, runs(1_000, size=70), stream_id="s")
    assert message.startswith("Accepted 300 ticks")
    assert await send(address, runs(1_000), stream_id="s") == (
        "Accepted 0 ticks, refused 0; stream 's' is committed up to 1000"
    )
    assert ledger.prices("s") == list(range(1, 1_001))


async def test_a_stream_sent_again_is_not_paced_up_to_where_it_stopped(address, ledger):
    hour_ns = 3_600 * 10**9
    ticks = run(1, 3)
    ticks.trades.ts_recv[:] = np.arange(3) * hour_ns
    await send(address, [ticks[:2]], stream_id="s")
    sender = sender_to(address, [ticks], stream_id="s", speed=1.0)
    await sender.run(lambda _: None)
    assert not sender.is_known
    again = sender_to(address, [ticks], stream_id="s", speed=1.0)
    await again.run(lambda _: None)
    assert (again.is_known, again.outcome) == (True, "All 3 ticks were committed before")
    assert ledger.prices("s") == [1, 2, 3]


async def test_an_aggregator_that_lost_its_state_gets_the_rest_and_the_loss_is_logged(
    aggregator, ledger, caplog, free_port
):
    may_go_on = threading.Event()

    def source():
        yield run(1, 100)
        may_go_on.wait()
        yield run(101, 100)

    sender = sender_to(("127.0.0.1", free_port), source(), stream_id="s")
    sending = asyncio.create_task(sender.run(lambda _: None))
    async with serving(aggregator.address, port=free_port):
        await ledger.when(lambda: ledger.count() == 100)
    ledger.frames.clear()
    async with serving(aggregator.address, port=free_port):
        may_go_on.set()
        await sending
    assert ledger.prices("s") == list(range(101, 201))
    assert "lost 100 ticks" in caplog.text


async def test_ticks_that_the_server_refuses_are_reported(address, ledger):
    part = run(1, 10)
    part.trades.ts_event[3:5] = 1_735_201_234_567
    message = await send(address, [part], stream_id="s")
    assert message.startswith("Accepted 8 ticks, refused 2 (2 timestamp)")


async def test_plain_servers_get_plain_streams(address, ledger):
    assert await send(address, runs(250), plain=True) == "Accepted 250 ticks, refused 0"
    assert prices(ledger) == list(range(1, 251))


async def test_a_plain_stream_ends_with_its_connection(address):
    proxy = CuttingProxy(address, [1_000])
    async with proxy.serving() as through:
        with pytest.raises(PeerError, match=r"127\.0\.0\.1:\d+: .*, with \d+ ticks sent"):
            await send(through, runs(100_000), plain=True)


async def test_a_server_that_is_not_there_is_named(free_port):
    with pytest.raises(PeerError) as raised:
        await send(("127.0.0.1", free_port), runs(10), connect_timeout_s=2.0)
    assert str(raised.value) == (
        f"127.0.0.1:{free_port}: Connection refused; is mdtool serve-tcp running there?"
    )


async def test_a_host_of_several_addresses_is_named_too(monkeypatch, free_port):
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{k}", free_port)) for k in (1, 2)
    ]

    async def resolve(*_args, **_options):
        return addresses

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(PeerError, match=rf"^host:{free_port}: no connection at any address"):
        await send(("host", free_port), runs(10), connect_timeout_s=2.0)


async def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(PeerError, match=r"^nowhere\.invalid: "):
        await send(("nowhere.invalid", 1), runs(10))


@contextlib.asynccontextmanager
async def answering(*answers):
    """A server that takes what comes and answers each connection with the next of some bytes."""
    left = iter(answers)

    async def answer(reader, writer):
        await reader.read(1)
        writer.write(next(left, b""))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


async def test_a_server_that_closes_at_the_hello_leads_to_plain():
    async with answering() as address:
        with pytest.raises(PeerError, match=r"closed the connection at the Hello; .*--plain"):
            await send(address, runs(10), connect_timeout_s=2.0)


async def test_a_refusal_is_passed_on():
    async with answering(encode_ack(False, "not today")) as address:
        with pytest.raises(PeerError, match="not today"):
            await send(address, runs(10))


async def test_wrong_replies_end_the_sender():
    async with answering(encode_frame(b"\xff\xff")) as address:
        with pytest.raises(PeerError, match="not an Ack"):
            await send(address, runs(10))


async def test_a_server_that_stays_unavailable_is_given_up():
    async with answering(encode_resume(0)) as address:
        with pytest.raises(PeerError):
            await send(address, runs(10), reconnect_timeout_s=0.0)


async def test_a_server_that_commits_all_and_never_acknowledges_is_given_up():
    connections = 0

    async def commit(reader, writer):
        nonlocal connections
        connections += 1
        writer.write(encode_resume(0 if connections == 1 else 10) + encode_committed(10))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(commit, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        with pytest.raises(PeerError, match="without an Ack; all ticks are committed"):
            await send(address, runs(10), max_losses=2)
    assert connections == 2


async def test_a_server_that_closes_again_and_again_is_given_up_in_one_line():
    async with answering(*[encode_resume(0)] * 10) as address:
        with pytest.raises(PeerError) as raised:
            await send(address, runs(10), stream_id="s", max_losses=3)
    assert str(raised.value) == (
        f"{format_address(*address)}: closed the connection without an Ack; "
        "lost 3 times with nothing committed in between; 0 ticks are committed"
    )


async def test_a_server_that_commits_something_each_time_is_not_given_up():
    answers = [encode_resume(k) + encode_committed(k + 1) for k in range(9)]
    async with answering(*answers, encode_resume(9) + encode_ack(True, "done")) as address:
        message = await send(address, runs(10), stream_id="s", max_losses=2)
    assert message == "done"


async def test_ticks_before_a_broken_source_are_delivered_before_the_error(address, ledger):
    def source():
        yield from runs(300)
        raise InputError("file: cut at byte 7")

    sender = sender_to(address, source(), stream_id="s")
    with pytest.raises(InputError, match="cut at byte 7"):
        await sender.run(lambda _: None)
    assert sender.ack == Ack(
        True, "Accepted 300 ticks, refused 0; stream 's' is committed up to 300"
    )
    assert ledger.prices("s") == list(range(1, 301))


async def test_an_unforeseen_error_of_a_source_is_not_swallowed(address):
    def source():
        yield from runs(300)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await send(address, source())


async def test_a_source_is_blocked_while_nothing_is_committed(address, ledger):
    taken = 0

    def source():
        nonlocal taken
        for part in runs(20_000):
            taken += len(part)
            yield part

    ledger.hold()
    sending = asyncio.create_task(send(address, source(), stream_id="s", backlog_bytes=1 << 16))
    await ledger.when(lambda: ledger.batches > 0)
    assert taken < 5_000
    ledger.release()
    await sending
    assert ledger.prices("s") == list(range(1, 20_001))


async def test_an_interrupted_sender_logs_its_progress(aggregator, ledger, address, caplog):
    caplog.set_level("INFO")
    waits_for_ever = threading.Event()

    def source():
        yield from runs(100)
        waits_for_ever.wait()

    sending = asyncio.create_task(sender_to(address, source()).run(lambda _: None))
    await ledger.when(lambda: ledger.count() == 100)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert "interrupted after 100 ticks" in caplog.text
    waits_for_ever.set()


async def test_an_unavailable_aggregator_blocks_the_sender_and_loses_nothing(ledger):
    aggregator = PlainAggregator(ledger)
    async with serving(aggregator.address) as text:
        host, _, port = text.rpartition(":")
        sending = asyncio.create_task(send((host, int(port)), runs(1_000), stream_id="s"))
        async with aggregator.serving():
            await sending
    assert ledger.prices("s") == list(range(1, 1_001))


@pytest.fixture
def told():
    with logged(sender_module.__name__) as log:
        yield log


async def test_what_is_waited_for_is_logged_once(ledger, told, monkeypatch):
    """Before there is an aggregator, and when there is one that does not commit."""
    monkeypatch.setattr(sender_module, "_SILENCE_S", 0.02)
    aggregator = PlainAggregator(ledger)
    async with serving(aggregator.address) as address:
        sending = asyncio.create_task(send(parse_address(address), runs(1_000), stream_id="s"))
        await told.has(1)
        ledger.hold()
        async with aggregator.serving():
            await told.has(2)
            # Between two commits a slow server is silent again, which is another silence.
            monkeypatch.setattr(sender_module, "_SILENCE_S", 86_400.0)
            ledger.release()
            await sending
    waiting = f"{address}: waiting for it to"
    assert told.lines[:2] == [
        f"{waiting} accept ticks, as it does once its aggregator is available",
        f"{waiting} commit what was sent, as it does while its aggregator is available",
    ]
    assert len(set(told.lines)) == len(told.lines)


async def test_the_encoder_is_loaded_before_there_is_a_connection(address, monkeypatch):
    """For it holds up the loop, and a connection does not wait for long."""
    done = []
    encode, converse = tick_encoder.encode_ticks, Sender._converse

    def noted_encode(*arguments):
        done.append("encoded")
        return encode(*arguments)

    async def noted_converse(sender):
        done.append("connected")
        return await converse(sender)

    monkeypatch.setattr(tick_encoder, "encode_ticks", noted_encode)
    monkeypatch.setattr(Sender, "_converse", noted_converse)
    await send(address, runs(100))
    assert done[0] == "encoded"
