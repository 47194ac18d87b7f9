"""Frames cut out of a byte stream, and the messages besides ticks in them."""

from __future__ import annotations

import pytest

from mdtool.core.errors import PeerError
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import (
    Ack,
    Committed,
    FrameSplitter,
    Hello,
    ReplyDecoder,
    Resume,
    decode_opening,
    encode_ack,
    encode_committed,
    encode_frame,
    encode_hello,
    encode_resume,
)

FRAMES = [(False, b"one"), (True, b"two"), (False, b""), (False, b"x" * 300)]
DATA = b"".join(encode_frame(payload, control=control) for control, payload in FRAMES)


@pytest.mark.parametrize("chunk_bytes", [1, 3, 7, 100, len(DATA)])
def test_frames_come_whole_however_the_chunks_are_cut(chunk_bytes):
    splitter = FrameSplitter()
    frames = []
    for at in range(0, len(DATA), chunk_bytes):
        frames += splitter.feed(DATA[at : at + chunk_bytes])
    assert frames == FRAMES
    assert splitter.pending_bytes == 0


def test_an_unfinished_frame_is_pending():
    splitter = FrameSplitter()
    assert splitter.feed(encode_frame(b"one")[:-1]) == []
    assert splitter.pending_bytes == 6


def test_a_length_over_the_limit_is_rejected():
    splitter = FrameSplitter(max_frame_bytes=10)
    assert splitter.feed(encode_frame(bytes(10))) == [(False, bytes(10))]
    with pytest.raises(PeerError, match="11 bytes is over 10"):
        splitter.feed(encode_frame(bytes(11)))


def test_the_header_is_in_network_order_and_its_top_bit_marks_control():
    assert encode_frame(b"ab") == b"\x00\x00\x00\x02ab"
    assert encode_frame(b"ab", control=True) == b"\x80\x00\x00\x02ab"


REPLIES = [Resume(7), Committed(2**40), Committed(0), Ack(True, "Received 5 ticks"), Ack(False, "")]
REPLY_DATA = (
    encode_resume(7)
    + encode_committed(2**40)
    + encode_committed(0)
    + encode_ack(True, "Received 5 ticks")
    + encode_ack(False, "")
)


@pytest.mark.parametrize("chunk_bytes", [1, 5, len(REPLY_DATA)])
def test_replies_are_read_in_order_however_they_are_cut(chunk_bytes):
    decoder = ReplyDecoder()
    replies = []
    for at in range(0, len(REPLY_DATA), chunk_bytes):
        replies += decoder.feed(REPLY_DATA[at : at + chunk_bytes])
    assert replies == REPLIES
    assert decoder.pending_bytes == 0


def test_an_ack_is_a_plain_frame_that_any_client_reads():
    data = encode_ack(True, "Received 5 ticks")
    length = int.from_bytes(data[:4], "big")
    assert length == len(data) - 4
    assert tick_pb2.Ack.FromString(data[4:]).message == "Received 5 ticks"


def test_a_hello_is_read_back():
    assert decode_opening(encode_hello("desk-7")[4:]) == Hello("desk-7")


@pytest.mark.parametrize(
    "data",
    [
        encode_hello("a"),
        encode_frame(b"", control=True),
        encode_frame(b"\xff", control=True),
        encode_frame(b"\xff"),
    ],
)
def test_wrong_replies_are_rejected(data):
    with pytest.raises(PeerError):
        ReplyDecoder().feed(data)
