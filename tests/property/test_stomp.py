"""The STOMP codec against a plain reading of the grammar, however the bytes come in."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdtool.wire.stomp import Frame, StompDecoder, StompError, Version, encode
from tests.reference.stomp import frames_of

MAX_FRAME, MAX_HEADER = 120, 60
VERSIONS = st.sampled_from([None, *Version])

TOKENS = st.sampled_from(
    [
        *(b"SEND", b"CONNECT", b"\n", b"\n\n", b"\r\n", b"\r", b"\0", b":", b"\\", b"\\n", b"\\c"),
        *(b"\\r", b"\\t", b"a", b" ", b"a:b", b"a:c\n", b"content-length:", b"2", b"19"),
        *(
            "ü".encode(),
            b"\xff",
            b"x" * 50,
            b"content-length:3\n",
            b"\n\nxy\0",
            b"SEND\na:b\n\nc\0",
        ),
    ]
)
STREAMS = st.lists(TOKENS, max_size=30).map(b"".join) | st.binary(max_size=200)


@given(STREAMS, VERSIONS, st.data())
@example(b"SEND\n\n\0", Version.V1_2, None)
@example(b"SEND\r\na:b\r\r\n\r\n\0\r\n\n", Version.V1_2, None)
@example(b"SEND\na:b\r\n\n\0", Version.V1_1, None)
@example(b"SEND\n\n" + b"x" * 113 + b"\0", Version.V1_2, None)
@example(b"SEND\n\n" + b"x" * 114 + b"\0", Version.V1_2, None)
@example(b"SEND\na:" + b"x" * 51 + b"\n\n\0", Version.V1_2, None)
@example(b"SEND\na:" + b"x" * 52 + b"\n\n\0", Version.V1_2, None)
@example(b"x" * 61, Version.V1_2, None)
@example(b"SEND\na:b\\\n\n\0", Version.V1_1, None)
@example(b"SEND\na:b\\\n\n\0", Version.V1_2, None)
@example(b"SEND\nb\\:a\n\n\0", Version.V1_2, None)
@example(b"SEND\na:b\\\n\n\0", Version.V1_0, None)
@example(b"CONNECT\na:b\\\n\n\0", Version.V1_2, None)
@example(b"SEND\na:\\\\\\n\\c\n\n\0", Version.V1_1, None)
@example(b"SEND\na:\\r\n\n\0", Version.V1_1, None)
@example(b"SEND\na:\\r\n\n\0", Version.V1_2, None)
@example(b"SEND\na:\\t\n\n\0", Version.V1_2, None)
def test_frames_are_those_of_the_grammar(stream, version, data):
    expected, is_bad = frames_of(stream, version, MAX_FRAME, MAX_HEADER)
    pieces = [stream] if data is None else _pieces(stream, data)
    frames, was_bad = _decode(pieces, version)
    assert [(frame.command, frame.headers, frame.body) for frame in frames] == expected
    assert was_bad == is_bad


HEADER_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
NAMES = HEADER_TEXT.filter(lambda name: name not in {"", "content-length"})


@given(st.dictionaries(NAMES, HEADER_TEXT, max_size=4), st.binary(max_size=60), st.data())
@pytest.mark.parametrize("version", [Version.V1_1, Version.V1_2])
def test_every_header_and_body_comes_back(version, headers, body, data):
    stream = b"\n" + encode("SEND", headers, body, version) + b"\n\n"
    decoder = StompDecoder()
    decoder.version = version
    frames = []
    for piece in _pieces(stream * 2, data):
        decoder.feed(piece)
        while frame := decoder.next_frame():
            frames.append(frame)
    if body:
        headers = {**headers, "content-length": str(len(body))}
    assert frames == [Frame("SEND", headers, body)] * 2


@pytest.mark.parametrize(
    ("version", "line"),
    [(Version.V1_1, b"a\r\\n\\c\\\\:\r"), (Version.V1_2, b"a\\r\\n\\c\\\\:\\r")],
)
def test_each_version_writes_its_own_escapes(version, line):
    assert encode("SEND", {"a\r\n:\\": "\r"}, version=version) == b"SEND\n" + line + b"\n\n\0"


@given(st.dictionaries(HEADER_TEXT, HEADER_TEXT, max_size=3))
@example({"a": "b\n"})
@example({"a:": "b"})
@example({"": "b"})
def test_what_1_0_cannot_carry_is_not_written(headers):
    decoder = StompDecoder()
    decoder.version = Version.V1_0
    try:
        decoder.feed(encode("SEND", headers, version=Version.V1_0))
    except StompError:
        return
    assert decoder.next_frame() == Frame("SEND", headers)


def _pieces(stream: bytes, data) -> list[bytes]:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def _decode(pieces: list[bytes], version: Version | None) -> tuple[list[Frame], bool]:
    """What was decoded, and whether something bad came."""
    decoder = StompDecoder(MAX_FRAME, MAX_HEADER)
    decoder.version = version
    frames = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while frame := decoder.next_frame():
                frames.append(frame)
    except StompError:
        return frames, True
    return frames, False
