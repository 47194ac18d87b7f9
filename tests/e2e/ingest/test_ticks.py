"""Ticks over real sockets: what is accepted, what is refused, and what the Ack says."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct

import pytest

from mdtool.core.trades import Reason
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import Ack, encode_frame
from tests.support.ingest_servers import NOW_NS, Client, frame, frames, prices, send


async def test_ticks_are_committed_before_the_ack(address, ledger):
    assert await send(address, frames(3)) == Ack(True, "Accepted 3 ticks, refused 0")
    assert prices(ledger) == [1, 2, 3]


async def test_no_ticks_are_acknowledged_too(address, ledger):
    assert await send(address, b"") == Ack(True, "Accepted 0 ticks, refused 0")
    assert ledger.count() == 0


async def test_symbols_are_trimmed_and_upper_cased(address, ledger):
    await send(address, frame(symbol=" aapl ") + frame(symbol="Brk.b"))
    (symbols,) = ledger.symbols.values()
    assert symbols == {0: "AAPL", 1: "BRK.B"}


async def test_an_ack_waits_for_the_commit(address, ledger):
    ledger.hold()
    client = await Client.connect(address)
    finished = asyncio.create_task(client.finish(frames(2)))
    await ledger.when(lambda: ledger.batches == 1)
    assert not finished.done()
    ledger.release()
    assert await finished == Ack(True, "Accepted 2 ticks, refused 0")


async def test_frames_may_be_cut_anywhere(address, ledger):
    client = await Client.connect(address)
    for byte in frames(3):
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    assert await client.finish() == Ack(True, "Accepted 3 ticks, refused 0")
    assert prices(ledger) == [1, 2, 3]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(symbol=""), Reason.SYMBOL),
        (frame(symbol="  "), Reason.SYMBOL),
        (frame(symbol="A" * 71), Reason.SYMBOL),
        (frame(symbol="ÄPFEL"), Reason.SYMBOL),
        (frame(price=float("nan")), Reason.PRICE),
        (frame(price=float("inf")), Reason.PRICE),
        (frame(price=0.0), Reason.PRICE),
        (frame(price=-1.0), Reason.PRICE),
        (frame(price=1e300), Reason.PRICE),
        (frame(volume=0), Reason.VOLUME),
        (frame(volume=-5), Reason.VOLUME),
        (frame(exchange_timestamp=NOW_NS // 1_000_000), Reason.TIMESTAMP),
        (frame(exchange_timestamp=0), Reason.TIMESTAMP),
        (encode_frame(b"\xff\xff\xff"), Reason.MALFORMED),
    ],
)
async def test_a_refused_tick_is_counted_by_reason_and_the_stream_continues(
    address, ledger, bad, reason
):
    ack = await send(address, frame(price=1) + bad + frame(price=2))
    assert ack == Ack(True, f"Accepted 2 ticks, refused 1 (1 {reason.label})")
    assert prices(ledger) == [1, None, 2]
    (reasons,) = ledger.reasons.values()
    assert reasons == {1: reason}


async def test_an_ack_names_every_reason(address):
    bad = frame(price=0) + frame(price=-1) + frame(volume=0) + frame(symbol="")
    ack = await send(address, bad + frame())
    assert ack.message == "Accepted 1 tick, refused 4 (1 symbol, 2 price, 1 volume)"


async def test_a_coarse_timestamp_is_named_in_the_log(address, caplog):
    await send(address, frame(exchange_timestamp=1_735_201_234_567))
    assert "1735201234567" in caplog.text
    assert "ms" in caplog.text


@pytest.mark.parametrize("length", [0, 1_000_001, 2**31 - 1, 2**32 - 1])
async def test_a_frame_of_a_wrong_length_closes_its_connection_alone(address, ledger, length):
    other = await Client.connect(address)
    client = await Client.connect(address)
    client.writer.write(frames(2) + struct.pack(">I", length) + frames(2))
    ack = await client.last_reply()
    assert not ack.success
    assert "length 0" in ack.message or "control" in ack.message or f"{length:,}" in ack.message
    assert (await other.finish(frames(1, first=3))).success
    assert prices(ledger) == [1, 2, 3]


async def test_the_longest_frame_is_a_tick_like_any_other(address, ledger):
    filler = b"\x7a" + b"\xb8\x84\x3d"  # field 15, of so many bytes
    tick = tick_pb2.Tick(symbol="AAPL", price=1, volume=1, exchange_timestamp=NOW_NS)
    payload = tick.SerializeToString()
    room = 1_000_000 - len(payload) - 4
    filler = b"\x7a" + bytes([room & 0x7F | 0x80, room >> 7 & 0x7F | 0x80, room >> 14])
    long_frame = encode_frame(payload + filler + bytes(room))
    assert len(long_frame) == 1_000_004
    assert (await send(address, long_frame)).message == "Accepted 1 tick, refused 0"
    assert prices(ledger) == [1]


async def test_an_unfinished_frame_at_the_end_is_reported(address, ledger):
    ack = await send(address, frames(2) + frame()[:-5])
    unfinished = len(frame()) - 5
    assert ack == Ack(
        False,
        f"Accepted 2 ticks, refused 0; {unfinished} bytes of an unfinished frame were discarded",
    )
    assert prices(ledger) == [1, 2]


async def test_frames_before_a_lost_connection_count(address, ledger, caplog):
    client = await Client.connect(address)
    client.writer.write(frames(2) + frame()[:-5])
    await ledger.when(lambda: ledger.count() == 2)
    client.vanish()
    assert (await send(address, frames(1, first=3))).success
    assert prices(ledger) == [1, 2, 3]


async def test_random_bytes_hurt_nobody(address, ledger):
    for seed in range(50):
        client = await Client.connect(address)
        client.writer.write(random.Random(seed).randbytes(5_000))
        with contextlib.suppress(ConnectionError):
            client.writer.write_eof()
            await client.last_reply()
    before = ledger.count()
    assert (await send(address, frames(3))).success
    assert ledger.count() == before + 3
