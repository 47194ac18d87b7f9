"""Frames cut out of a byte stream."""

from __future__ import annotations

import pytest

from mdtool.core.errors import PeerError
from mdtool.wire.frames import FrameSplitter, encode_frame

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


def test_a_length_over_the_limit_is_the_peers_error():
    splitter = FrameSplitter(max_frame_bytes=10)
    assert splitter.feed(encode_frame(bytes(10))) == [(False, bytes(10))]
    with pytest.raises(PeerError, match="11 bytes is over 10"):
        splitter.feed(encode_frame(bytes(11)))


def test_the_header_is_in_network_order_and_its_top_bit_marks_control():
    assert encode_frame(b"ab") == b"\x00\x00\x00\x02ab"
    assert encode_frame(b"ab", control=True) == b"\x80\x00\x00\x02ab"
