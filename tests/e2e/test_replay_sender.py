"""The sender over real sockets: from the start, live, resumed, slow, vanished, and with garbage."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.addresses import parse_address
from mdtool.core.descriptors import shortage
from mdtool.core.dtypes import MBO
from mdtool.core.errors import StartupError
from mdtool.core.records import with_ts_out
from mdtool.services.replay import session
from mdtool.wire.dbn import DbnDecoder, encode_metadata, encode_records
from mdtool.wire.dbn_session import (
    Begin,
    End,
    FromLive,
    FromNext,
    FromStart,
    Refused,
    Resume,
    encode_request,
)
from tests.support.book_services import CRAWLING, Heard, connected, sender_of
from tests.support.recordings import books_of, content, record, write

MANY = 300_000
"""More records than the buffers of a connection hold."""


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "day.dbn"
    return path, record(path, 20_000)


@pytest.fixture(scope="module")
def long_day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "long.dbn"
    return path, record(path, MANY)


async def heard(address, say) -> Heard:
    async with connected(address, say) as receiver:
        return await receiver.hear(Heard())


async def test_a_client_without_a_request_gets_the_file(day):
    path, records = day
    async with sender_of(path, greeting_ms=1) as sender:
        await sender.start("/start-streaming")
        async with connected(sender.data) as receiver:
            data = await receiver.reader.read()
    decoder = DbnDecoder()
    [got] = [np.concatenate(decoder.feed(data))]
    decoder.finish()
    assert got.tobytes() == records.tobytes()
    assert decoder.metadata.mappings


async def test_a_client_that_closes_its_half_is_not_waited_for(day):
    path, records = day
    async with sender_of(path, greeting_ms=3_600_000) as sender:
        await sender.start("/start-streaming")
        async with connected(sender.data) as receiver:
            receiver.writer.write_eof()
            data = await receiver.reader.read()
    assert data.endswith(bytes(encode_records(records)))


async def test_from_the_start_with_answers(day):
    path, records = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromStart())
        status = await sender.until(state="done")
    stream = status["stream"]
    assert got.messages == [Begin(stream, 0), End(stream, len(records))]
    assert got.all_records().tobytes() == records.tobytes()
    assert status["position"] == len(records)


async def test_receivers_that_are_early_wait_for_the_start(day):
    path, records = day
    async with sender_of(path, greeting_ms=1) as sender:
        waiting = [asyncio.create_task(heard(sender.data, FromStart())) for _ in range(3)]
        await sender.until(state="idle", receivers=3)
        await sender.start("/start-streaming")
        for got in await asyncio.gather(*waiting):
            assert len(got.all_records()) == len(records)


async def test_a_run_is_paused_resumed_and_continued_at_another_speed(day):
    path, records = day
    async with sender_of(path, speed=CRAWLING) as sender:
        await sender.start("/start-streaming")
        assert (await sender.ask("/pause-streaming", "POST"))[1]["status"] == "paused"
        paused = await sender.until(state="paused")
        assert paused["progress"] is None  # the file does not say where it ends
        assert (await sender.ask("/set-speed?speed=0", "POST"))[1]["status"] == "paused"
        assert (await sender.ask("/resume-streaming", "POST"))[1]["status"] == "streaming"
        got = await heard(sender.data, FromStart())
        assert got.all_records().tobytes() == records.tobytes()
        done = await sender.until(state="done")
        assert (done["progress"], done["speed"]) == (1.0, 0)


async def test_a_stopped_run_ends_for_its_receivers_and_can_be_started_again(day):
    path, records = day
    async with sender_of(path, speed=CRAWLING) as sender:
        await sender.start("/start-streaming")
        receiver = asyncio.create_task(heard(sender.data, FromStart()))
        await sender.until(receivers=1)
        await sender.ask("/stop-streaming", "POST")
        got = await receiver
        stopped = await sender.until(state="stopped")
        assert isinstance(got.messages[-1], End)
        assert len(got.all_records()) == stopped["position"] < len(records)
        await sender.start("/start-streaming?speed=0")
        assert len((await heard(sender.data, FromStart())).all_records()) == len(records)


@pytest.mark.parametrize("path", ["stop-streaming", "pause-streaming", "set-speed?speed=1"])
async def test_what_does_not_run_is_not_controlled(day, path):
    async with sender_of(day[0]) as sender:
        status, told = await sender.ask(f"/{path}", "POST")
        assert (status, told["error"]) == (409, "not_streaming")


async def test_two_starts_at_once(day):
    async with sender_of(day[0]) as sender:
        answers = await asyncio.gather(
            *(sender.ask("/start-streaming", "POST") for _ in range(5)),
        )
        assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409]
        refused = next(told for status, told in answers if status == 409)
        assert refused["error"] == "already_streaming"
        await heard(sender.data, FromStart())
        await sender.until(state="done")
        await sender.start("/start-streaming")


async def test_a_run_at_no_pace_waits_for_its_first_receiver(long_day):
    path, records = long_day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        assert (await sender.status())["state"] == "streaming"
        got = await heard(sender.data, FromStart())
        assert len(got.all_records()) == len(records)
        await sender.until(state="done", position=len(records), receivers=0)


async def test_joining_live_gets_a_snapshot_and_what_comes(long_day):
    path, records = long_day
    async with (
        sender_of(path) as sender,
        connected(sender.data, FromStart(), receive_bytes=1 << 16) as driving,
    ):
        await sender.start("/start-streaming")
        driven = await driving.hear(Heard(), until=1_000)
        async with connected(sender.data, FromLive()) as live:
            joined = await live.hear(Heard(), until=1)
            driven, joined = await asyncio.gather(driving.hear(driven), live.hear(joined))
    begin = joined.begins[0]
    assert begin.position > 0
    assert content(books_of(joined.all_records())) == content(books_of(records))
    assert joined.last == End(begin.stream, len(records))
    assert len(driven.all_records()) == len(records)


async def test_joining_live_after_the_end_gets_the_last_books(day):
    path, records = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        await heard(sender.data, FromStart())
        await sender.until(state="done")
        got = await heard(sender.data, FromLive())
    assert got.begins[0].snapshot == len(got.all_records())
    assert content(books_of(got.all_records())) == content(books_of(records))


async def test_a_receiver_of_the_next_stream_waits_for_it_and_may_disconnect(day):
    path, records = day
    async with sender_of(path) as sender:
        async with connected(sender.data, FromNext()) as early:
            await sender.start("/start-streaming")
            got = await early.hear(Heard())
            assert got.all_records().tobytes() == records.tobytes()
        await sender.until(state="done", receivers=0)
        async with connected(sender.data, FromNext()):
            await sender.until(receivers=1)
        await sender.until(receivers=0)
        async with connected(sender.data, FromNext()) as waiting:
            await sender.until(receivers=1)
            await sender.start("/start-streaming")
            got = await waiting.hear(Heard())
        assert got.begins[0].position == got.begins[0].snapshot == 0
        assert got.last == End(got.begins[0].stream, len(records))
        assert got.all_records().tobytes() == records.tobytes()


async def test_joining_live_alone_drives_the_run(day):
    path, records = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromLive())
    assert got.begins[0].position == 0
    assert got.all_records().tobytes() == records.tobytes()


@pytest.mark.parametrize("position", [0, 1, 7_777, 18_724, 18_725, 20_000])
async def test_resuming_at_any_record(day, position):
    path, records = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        stream = (await heard(sender.data, FromStart())).begins[0].stream
        got = await heard(sender.data, Resume(stream, position))
    assert got.messages == [Begin(stream, position), End(stream, len(records))]
    assert got.all_records().tobytes() == records[position:].tobytes()


async def test_resuming_behind_the_end(day):
    path, records = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        stream = (await heard(sender.data, FromStart())).begins[0].stream
        at_end = await heard(sender.data, Resume(stream, len(records)))
        behind = await heard(sender.data, Resume(stream, len(records) + 1))
    assert at_end.messages == [Begin(stream, len(records)), End(stream, len(records))]
    assert isinstance(behind.last, Refused)
    assert f"has {len(records)} records only" in behind.last.reason


async def test_a_sender_that_was_restarted_begins_where_a_receiver_is(day):
    path, records = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        stream = (await heard(sender.data, FromStart())).begins[0].stream
    async with sender_of(path) as sender:
        assert (await sender.status())["state"] == "idle"
        got = await heard(sender.data, Resume(stream, 5_000))
        assert (await sender.status())["stream"] == stream
    assert got.all_records().tobytes() == records[5_000:].tobytes()


@pytest.mark.parametrize("is_started", [False, True])
async def test_another_stream_cannot_be_resumed_here(day, is_started):
    async with sender_of(day[0]) as sender:
        if is_started:
            await sender.start("/start-streaming")
        got = await heard(sender.data, Resume("0" * 32, 5))
    assert isinstance(got.last, Refused)
    assert got.last.is_final
    assert "is not here" in got.last.reason


async def test_speed_can_be_chosen_at_each_start(day):
    path, records = day
    async with sender_of(path, speed=CRAWLING) as sender:
        await sender.start("/start-streaming?speed=0")
        assert len((await heard(sender.data, FromStart())).all_records()) == len(records)
        await sender.until(state="done")
        await sender.start("/start-streaming?speed=")
        status = await sender.until(state="streaming", speed=CRAWLING)
        assert status["position"] < len(records)
        for speed in ("-1", "nan", "inf", "fast"):
            assert (await sender.ask(f"/start-streaming?speed={speed}", "POST"))[0] in {400, 409}


async def test_an_invalid_speed_is_rejected_before_the_start(day):
    async with sender_of(day[0]) as sender:
        for speed in ("-1", "nan", "inf", "fast"):
            status, told = await sender.ask(f"/start-streaming?speed={speed}", "POST")
            assert (status, told["error"]) == (400, "bad_parameter")
        assert (await sender.status())["state"] == "idle"


async def test_a_pace_holds_back_all_receivers_alike(day):
    path, records = day
    first_ns = records["ts_recv"][0]
    n_first = int((records["ts_recv"] == first_ns).sum())
    async with sender_of(path, speed=CRAWLING) as sender:
        await sender.start("/start-streaming")
        async with (
            connected(sender.data, FromStart()) as early,
            connected(sender.data, FromLive()) as live,
        ):
            got = await early.hear(Heard(), until=n_first)
            joined = await live.hear(Heard(), until=n_first)
        assert got.all_records().tobytes() == records[:n_first].tobytes()
        assert joined.begins[0].position <= n_first
        assert (await sender.status())["position"] == n_first


async def test_a_slow_live_receiver_gets_a_snapshot_for_what_it_missed(long_day):
    path, records = long_day
    async with (
        sender_of(path, backlog_bytes=7_500_000) as sender,
        connected(sender.data, FromLive(), receive_bytes=1 << 16) as slow,
    ):
        await sender.start("/start-streaming")
        late = await slow.hear(Heard(), until=10)
        driven = await heard(sender.data, FromStart())
        assert len(driven.all_records()) == len(records)
        await sender.until(state="done")
        await slow.hear(late)
    first, again = late.begins[0], late.begins[-1]
    assert first.position == 0
    assert again.skipped > 0
    assert content(books_of(late.all_records())) == content(books_of(records))
    got = len(late.all_records()) - sum(begin.snapshot for begin in late.begins)
    assert got + sum(begin.skipped for begin in late.begins) == len(records)
    assert late.last == End(first.stream, len(records))


async def test_a_receiver_that_never_reads_blocks_no_other(long_day):
    path, records = long_day
    async with sender_of(path) as sender, connected(sender.data, FromStart(), 1 << 16) as stalled:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromStart())
        assert len(got.all_records()) == len(records)
        status = await sender.until(state="done", receivers=1)
        [session] = status["sessions"]
        assert session["from"] == "start"
        assert 0 < session["behind"] < len(records)
        late = await stalled.hear(Heard())
        assert late.all_records().tobytes() == records.tobytes()
        await sender.until(receivers=0)


@pytest.mark.parametrize("request_", [FromStart(), FromLive()])
async def test_receivers_that_vanish_are_forgotten(long_day, request_):
    path, records = long_day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        for _ in range(3):
            async with connected(sender.data, request_, receive_bytes=1 << 16) as receiver:
                await receiver.hear(Heard(), until=100)
                receiver.vanish()
        got = await heard(sender.data, FromStart())
        assert len(got.all_records()) == len(records)
        await sender.until(receivers=0)


@pytest.mark.parametrize(
    ("garbage", "why"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "is not a request"),
        (b"from=yesterday\n", "is not a request"),
        (b"x" * 10_000, "more than 256 bytes"),
        (b"from=start\nfrom=live\n", "more than one request"),
    ],
)
async def test_garbage_is_answered_with_a_reason(day, garbage, why):
    path, records = day
    async with sender_of(path) as sender:
        got = await heard(sender.data, garbage)
        assert isinstance(got.last, Refused)
        assert why in got.last.reason
        await sender.start("/start-streaming")
        assert len((await heard(sender.data, FromStart())).all_records()) == len(records)


async def test_half_a_request_is_rejected_once_its_half_is_closed(day):
    async with sender_of(day[0]) as sender, connected(sender.data, b"from=sta") as receiver:
        receiver.writer.write_eof()
        got = await receiver.hear(Heard())
    assert got.last == Refused("an unfinished request", is_final=True)


async def test_half_a_request_times_out(day, monkeypatch):
    monkeypatch.setattr(session, "_REQUEST_S", 0.05)
    async with sender_of(day[0]) as sender:
        got = await heard(sender.data, b"from=sta")
    assert got.last == Refused("an unfinished request", is_final=True)


async def test_an_empty_line_is_no_request(day):
    path, records = day
    async with sender_of(path) as sender, connected(sender.data, b"\n") as receiver:
        receiver.writer.write_eof()
        await sender.start("/start-streaming")
        assert (await receiver.reader.read()).endswith(bytes(encode_records(records)))


async def test_a_request_that_comes_late_still_counts(day):
    path, records = day
    async with sender_of(path, greeting_ms=1) as sender:
        await sender.start(f"/start-streaming?speed={CRAWLING}")
        stream = (await sender.status())["stream"]
        async with connected(sender.data) as receiver:
            header = await receiver.reader.read(1 << 16)
            assert receiver.decoder.feed(header) == []
            receiver.writer.write(encode_request(Resume(stream, 10)))
            got = await receiver.hear(Heard(), until=1)
    assert got.begins == [Begin(stream, 10)]
    assert got.all_records()[0] == records[10]


async def test_a_second_request_is_rejected(day):
    async with sender_of(day[0], speed=CRAWLING) as sender:
        await sender.start("/start-streaming")
        async with connected(sender.data, FromStart()) as receiver:
            got = await receiver.hear(Heard(), until=1)
            receiver.writer.write(b"from=live\n")
            await receiver.hear(got)
    assert isinstance(got.last, Refused)
    assert "more than one request" in got.last.reason


async def test_receivers_above_the_limit_may_try_again(day):
    async with (
        sender_of(day[0], max_receivers=1, greeting_ms=3_600_000) as sender,
        connected(sender.data),
    ):
        await sender.until(receivers=1)
        got = await heard(sender.data, FromStart())
    assert got.last == Refused("connection limit of 1 reached", is_final=False)


async def test_of_a_truncated_file_all_whole_records_and_the_error_are_sent(tmp_path, day):
    path, records = day
    cut = tmp_path / "cut.dbn"
    cut.write_bytes(path.read_bytes()[:-20])
    async with sender_of(cut) as sender:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromStart())
        status = await sender.until(state="failed")
        async with connected(sender.data) as plain:
            plain.writer.write_eof()
            data = await plain.reader.read()
    assert got.all_records().tobytes() == records[:-1].tobytes()
    assert isinstance(got.last, Refused)
    assert "ends inside a record" in got.last.reason
    assert status["error"] == f"{tmp_path}/{got.last.reason}"
    decoder = DbnDecoder()
    assert sum(map(len, decoder.feed(data))) >= len(records) - 1


async def test_a_changed_file_is_noticed_when_it_is_read_again(tmp_path):
    path = tmp_path / "day.dbn"
    records = record(path, 30_000)
    async with sender_of(path, backlog_bytes=100_000) as sender:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromStart())
        record(path, 30_000, seed=2)
        late = await heard(sender.data, FromStart())
        at_end = await heard(sender.data, Resume(got.begins[0].stream, len(records) - 1))
    assert late.last == Refused("the files have changed since streaming began", is_final=True)
    assert at_end.all_records().tobytes() == records[-1:].tobytes()


@pytest.mark.parametrize("backlog_bytes", [1, 100_000, 2_000_000])
async def test_a_receiver_behind_the_backlog_reads_the_file_again(long_day, backlog_bytes):
    path, records = long_day
    async with (
        sender_of(path, backlog_bytes=backlog_bytes) as sender,
        connected(sender.data, FromStart(), receive_bytes=1 << 16) as slow,
    ):
        await sender.start("/start-streaming")
        late = await slow.hear(Heard(), until=10)
        await heard(sender.data, FromStart())
        stream = late.begins[0].stream
        got = await asyncio.gather(
            slow.hear(late),
            heard(sender.data, FromStart()),
            heard(sender.data, Resume(stream, 123_456)),
        )
    for each, first in zip(got, (0, 0, 123_456), strict=True):
        assert each.all_records().tobytes() == records[first:].tobytes()


async def test_a_file_that_is_gone_cannot_be_started(tmp_path):
    path = tmp_path / "day.dbn"
    record(path, 3_000)
    async with sender_of(path) as sender:
        path.unlink()
        status, told = await sender.ask("/start-streaming", "POST")
        assert (status, told["error"]) == (500, "input")
        assert "no such file" in told["message"]
        record(path, 3_000)
        await sender.start("/start-streaming")


@pytest.mark.parametrize("content_", [None, b"", b"no DBN at all"])
async def test_a_sender_without_a_proper_file_does_not_start(tmp_path, content_):
    path = tmp_path / "day.dbn"
    if content_ is not None:
        path.write_bytes(content_)
    with pytest.raises(StartupError, match=r"day\.dbn"):
        async with sender_of(path):
            pass


@pytest.mark.parametrize(("port", "option"), [("port", "--port"), ("data_port", "--data-port")])
async def test_a_taken_port_is_named(day, port, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {number} .* in use.* {option}"):
            async with sender_of(day[0], **{port: number}):
                pass


async def test_a_live_stream_s_own_messages_stay_behind_and_its_symbols_do_not(tmp_path, day):
    _, records = day
    mapping = dbn.SymbolMappingMsg(
        publisher_id=0,
        instrument_id=1,
        ts_event=int(records["ts_recv"][0]),
        stype_in=dbn.SType("raw_symbol"),
        stype_in_symbol="LIVE",
        stype_out=dbn.SType("instrument_id"),
        stype_out_symbol="1",
        start_ts=0,
        end_ts=0,
    )
    path = tmp_path / "live.dbn"
    write(path, records[:100], {})
    said = bytes(dbn.SystemMsg(ts_event=1, msg="Heartbeat")) + bytes(mapping)
    content_ = path.read_bytes()
    header = content_[: -100 * MBO.itemsize]
    path.write_bytes(header + said + content_[len(header) :])
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromStart())
        await sender.until(state="done", position=101)
        joined = await heard(sender.data, FromLive())
    assert [len(array) for array in got.records] == [1, 100]
    assert joined.records[0]["stype_in_symbol"][0] == b"LIVE"
    assert joined.begins[0].snapshot == sum(map(len, joined.records))


async def test_stopping_cuts_receivers_off_at_once(day, free_port):
    async with contextlib.AsyncExitStack() as stack:
        async with sender_of(day[0], speed=CRAWLING, data_port=free_port) as sender:
            await sender.start("/start-streaming")
            receiver = await stack.enter_async_context(connected(sender.data, FromStart()))
            got = await receiver.hear(Heard(), until=1)
        await receiver.hear(got)
    assert isinstance(got.last, Begin)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*parse_address(sender.data))


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/start-streaming", "GET", 405), ("/status", "POST", 405)],
)
async def test_other_paths_are_answered_in_json(day, path, method, status):
    async with sender_of(day[0]) as sender:
        answered, told = await sender.ask(path, method)
        assert answered == status
        assert told["data"] is None


async def test_health(day):
    async with sender_of(day[0]) as sender:
        assert await sender.ask("/health") == (
            200,
            {"status": "ok", "state": "idle", "accept_pauses": shortage.pauses},
        )


async def test_the_header_is_that_of_the_file(day):
    path, _ = day
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        async with connected(sender.data, FromStart()) as receiver:
            await receiver.hear(Heard())
            metadata = receiver.decoder.metadata
    decoder = DbnDecoder()
    decoder.feed(path.read_bytes())
    assert encode_metadata(metadata) == encode_metadata(decoder.metadata)


async def test_the_ts_out_of_another_gateway_stays_behind(tmp_path, day):
    _, records = day
    path = tmp_path / "live.dbn"
    write(path, records[:100], {})
    content_ = bytearray(path.read_bytes()[: -100 * MBO.itemsize])
    plain = dbn.Metadata.decode(bytes(content_))
    header = dbn.Metadata(
        dataset=plain.dataset,
        start=plain.start,
        stype_in=plain.stype_in,
        stype_out=plain.stype_out,
        schema=plain.schema,
        ts_out=True,
    )
    sent = encode_records(with_ts_out(records[:100], records["ts_recv"][:100]))
    path.write_bytes(encode_metadata(header) + sent)
    async with sender_of(path) as sender:
        await sender.start("/start-streaming")
        got = await heard(sender.data, FromStart())
    assert np.array_equal(np.concatenate(got.records), records[:100])
