"""What senders and receivers say to each other, byte by byte."""

from __future__ import annotations

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.core.dtypes import MBO, RTYPE_MBO, record_length
from mdtool.core.errors import InputError, PeerError
from mdtool.core.stream_warnings import warnings_in
from mdtool.wire.dbn import DbnDecoder, encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_session import (
    MAX_REQUEST_BYTES,
    MAX_STRAY_BYTES,
    Begin,
    Data,
    End,
    FromLive,
    FromNext,
    FromStart,
    Refused,
    RequestReader,
    Resume,
    SessionDecoder,
    empty_header,
    encode_begin,
    encode_end,
    encode_refused,
    encode_request,
    passed_on,
)

STREAM = "0123456789abcdef" * 2
HEADER = encode_metadata(make_metadata("XNAS.ITCH", "mbo", 0))
BEGIN = Begin(STREAM, 0)


def records(n: int, first: int = 0) -> np.ndarray:
    made = np.zeros(n, MBO)
    made["length"], made["rtype"] = record_length(MBO), RTYPE_MBO
    made["order_id"] = np.arange(first, first + n)
    return made


def told(*messages) -> bytes:
    """The bytes of a session."""
    encoded = {Begin: encode_begin, End: encode_end, Refused: encode_refused}
    return HEADER + b"".join(
        bytes(encode_records(message))
        if isinstance(message, np.ndarray)
        else encoded[type(message)](message, 1)
        for message in messages
    )


def heard(data: bytes, chunk: int | None = None) -> list:
    """What a receiver makes of bytes that come in chunks: records as lists of their order ids."""
    decoder = SessionDecoder("sender")
    messages = []
    for begin in range(0, len(data), chunk or len(data)):
        messages += decoder.feed(data[begin : begin + (chunk or len(data))])
    assert decoder.metadata is not None
    return [
        (message.records["order_id"].tolist(), message.position)
        if isinstance(message, Data)
        else message
        for message in messages
    ]


@pytest.mark.parametrize("request_", [FromStart(), FromLive(), FromNext(), Resume(STREAM, 10**15)])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_request_comes_through_in_pieces_of_any_size(request_, chunk):
    reader = RequestReader()
    line = encode_request(request_)
    for begin in range(0, len(line), chunk):
        assert reader.request is None
        reader.feed(line[begin : begin + chunk])
    assert reader.request == request_


def test_line_ends_of_any_kind_and_empty_lines_before_do_not_matter():
    reader = RequestReader()
    reader.feed(b"\r\n\n")
    assert not reader.is_begun
    reader.feed(b"from=start\r\n")
    assert reader.request == FromStart()


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\n",
        b"from=end\n",
        b"from=start|from=live\n|\n",
        b"from=start|speed=2\n",
        b"from\n",
        b"=start\n",
        b"stream=a\n",
        b"stream=a|position=-1\n",
        b"stream=a|position=1.5\n",
        b"stream=a|position=" + b"9" * 20 + b"\n",
        b"position=1\n",
        b"\xff\xfe\n",
        b"\0" * 64 + b"\n",
        b"x" * (MAX_REQUEST_BYTES + 1),
        b"from=start\nfrom=live\n",
    ],
)
def test_what_is_no_request_is_refused(line):
    with pytest.raises(PeerError):
        RequestReader().feed(line)


def test_a_connection_takes_one_request():
    reader = RequestReader()
    reader.feed(b"from=start\n")
    with pytest.raises(PeerError, match="more than one"):
        reader.feed(b"from=start\n")


@pytest.mark.parametrize("chunk", [1, 8, 55, 4096, None])
def test_a_session_from_the_start(chunk):
    data = told(BEGIN, records(3), End(STREAM, 3))
    messages = heard(data, chunk)
    assert messages[0] == BEGIN
    assert [order for orders, _ in messages[1:-1] for order in orders] == [0, 1, 2]
    assert messages[-2][1] == 3
    assert messages[-1] == End(STREAM, 3)


@pytest.mark.parametrize("chunk", [1, 100, None])
def test_a_snapshot_is_told_apart_from_what_follows(chunk):
    begin = Begin(STREAM, 50, snapshot=2)
    messages = heard(told(begin, records(5), End(STREAM, 53)), chunk)
    placed = [(order, position) for orders, position in messages[1:-1] for order in orders]
    assert [order for order, _ in placed] == [0, 1, 2, 3, 4]
    assert [position for orders, position in messages[1:-1] for _ in orders][:2] == [50, 50]
    assert messages[-2][1] == 53


def test_a_receiver_that_was_too_slow_begins_again():
    again = Begin(STREAM, 90, snapshot=1, skipped=40)
    messages = heard(told(BEGIN, records(2), again, records(3)))
    assert messages == [BEGIN, ([0, 1], 2), again, ([0], 90), ([1, 2], 92)]


@pytest.mark.parametrize("is_final", [True, False])
def test_a_refusal_says_why_and_whether_to_come_back(is_final):
    refused = Refused("no more room", is_final)
    assert heard(told(refused)) == [refused]
    assert heard(empty_header() + encode_refused(refused, 1)) == [refused]


def test_a_long_reason_is_cut_and_made_ascii():
    [refused] = heard(told(Refused("é" * 1000, is_final=True)))
    assert refused.reason == "?" * 300


def test_the_sender_s_half_is_dbn_that_others_read():
    data = told(Begin(STREAM, 7, 1), records(1), End(STREAM, 7), Refused("why", is_final=True))
    decoder = dbn.DBNDecoder()
    decoder.write(data)
    _, begin, order, end, error = decoder.decode()
    assert (begin.code, begin.msg) == (
        dbn.SystemCode.SUBSCRIPTION_ACK,
        f"stream={STREAM}|position=7|snapshot=1",
    )
    assert order.order_id == 0
    assert end.code == dbn.SystemCode.REPLAY_COMPLETED
    assert (error.err, error.code) == ("why", dbn.ErrorCode.INTERNAL_ERROR)


@pytest.mark.parametrize(
    "message",
    [
        dbn.SystemMsg(ts_event=0, msg="Heartbeat"),
        dbn.SystemMsg(ts_event=0, msg="stream=a|position=1"),
        dbn.SystemMsg(ts_event=0, msg="é" * 9),
    ],
)
def test_other_answers_are_no_sender_s(message):
    with pytest.raises(PeerError, match="sender: does not answer"):
        SessionDecoder("sender").feed(HEADER + bytes(message))


def test_records_before_the_answer_were_not_asked_for():
    data = told(records(7), records(3), BEGIN, records(2))
    assert heard(data, 100)[0] == BEGIN
    assert [order for orders, _ in heard(data, 100)[1:] for order in orders] == [0, 1]


def test_records_without_any_answer_are_no_sender_s():
    decoder = SessionDecoder("sender")
    decoder.feed(told(records(7)))
    with pytest.raises(PeerError, match="does not answer"):
        decoder.finish()
    decoder = SessionDecoder("sender")
    n_most = MAX_STRAY_BYTES // MBO.itemsize
    decoder.feed(HEADER + bytes(encode_records(records(n_most))))
    with pytest.raises(PeerError, match="does not answer"):
        decoder.feed(bytes(encode_records(records(1))))


def test_a_connection_may_end_anywhere_else():
    for data in (b"", HEADER, told(BEGIN), told(BEGIN, records(2))[:-5], told(records(3), BEGIN)):
        decoder = SessionDecoder("sender")
        decoder.feed(data)
        decoder.finish()


def test_what_is_no_dbn_is_no_sender_s_either():
    with pytest.raises(InputError, match="is not a DBN stream"):
        SessionDecoder("sender").feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_warnings_of_the_stream_are_records_of_it():
    lost = b"".join(
        [
            bytes(dbn.SystemMsg(ts_event=1, msg="Heartbeat", code=dbn.SystemCode.HEARTBEAT)),
            bytes(dbn.SystemMsg(ts_event=2, msg="slow", code=dbn.SystemCode.SLOW_READER_WARNING)),
        ]
    )
    failed = bytes(dbn.ErrorMsg(ts_event=3, err="no \u00c4 here", is_last=True))
    parts = [records(1), *DbnDecoder().feed(HEADER + lost + failed), records(2, 1)]
    passed = b"".join(bytes(encode_records(passed_on(part))) for part in parts)
    decoder = SessionDecoder("sender")
    begin, *data, end = decoder.feed(told(BEGIN) + passed + told(End(STREAM, 5))[len(HEADER) :])
    assert (begin, end) == (BEGIN, End(STREAM, 5))
    assert [message.position for message in data] == [1, 2, 3, 5]
    warnings = [warning for message in data for warning in warnings_in(message.records)]
    assert [(each.kind, each.text, each.ts_ns) for each in warnings] == [
        ("slow_reader", "slow (code 2)", 2),
        ("error_record", "no ? here", 3),
    ]
