"""What a client and the ingest server say to each other besides ticks."""

from __future__ import annotations

import pytest

from mdtool.core.errors import PeerError
from mdtool.wire._pb import tick_pb2
from mdtool.wire.control import (
    Ack,
    Committed,
    ReplyDecoder,
    Resume,
    decode_hello,
    encode_ack,
    encode_committed,
    encode_hello,
    encode_resume,
)
from mdtool.wire.frames import encode_frame

REPLIES = [Resume(7), Committed(2**40), Committed(0), Ack(True, "Received 5 ticks"), Ack(False, "")]
DATA = (
    encode_resume(7)
    + encode_committed(2**40)
    + encode_committed(0)
    + encode_ack(True, "Received 5 ticks")
    + encode_ack(False, "")
)


@pytest.mark.parametrize("chunk_bytes", [1, 5, len(DATA)])
def test_replies_are_read_in_order_however_they_are_cut(chunk_bytes):
    decoder = ReplyDecoder()
    replies = []
    for at in range(0, len(DATA), chunk_bytes):
        replies += decoder.feed(DATA[at : at + chunk_bytes])
    assert replies == REPLIES
    assert decoder.pending_bytes == 0


def test_an_ack_is_a_plain_frame_that_any_client_reads():
    data = encode_ack(True, "Received 5 ticks")
    length = int.from_bytes(data[:4], "big")
    assert length == len(data) - 4
    assert tick_pb2.Ack.FromString(data[4:]).message == "Received 5 ticks"


def test_a_hello_is_read_back():
    assert decode_hello(encode_hello("desk-7")[4:]) == "desk-7"


@pytest.mark.parametrize(
    "data",
    [
        encode_hello("a"),
        encode_frame(b"", control=True),
        encode_frame(b"\xff", control=True),
        encode_frame(b"\xff"),
    ],
)
def test_what_is_no_reply_is_the_peers_error(data):
    with pytest.raises(PeerError):
        ReplyDecoder().feed(data)
