"""WebSocket frames, byte by byte."""

from __future__ import annotations

import pytest

from mdtool.wire.websocket import close_frame, text_frame


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "81 00"),
        (125, "81 7d"),
        (126, "81 7e 00 7e"),
        (65_535, "81 7e ff ff"),
        (65_536, "81 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_a_frame_is_a_header_of_least_length_and_the_payload(length, header):
    payload = b"x" * length
    assert text_frame(payload) == bytes.fromhex(header) + payload


def test_the_example_of_the_standard():
    assert text_frame(b"Hello") == bytes.fromhex("81 05 48 65 6c 6c 6f")


def test_a_close_frame_says_a_code_and_a_reason():
    assert close_frame(1001, "bye") == bytes.fromhex("88 05 03 e9 62 79 65")


def test_a_reason_that_is_too_long_is_cut_between_characters():
    frame = close_frame(4000, "x" + "ü" * 100)
    assert frame[1] == len(frame) - 2 <= 125
    assert frame[4:].decode() == "x" + "ü" * 61
