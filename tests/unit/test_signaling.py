"""Signals of WebRTC peers: what is one, what is none, and what is left of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.wire.signaling import (
    MAX_CANDIDATE_CHARS,
    MAX_SDP_CHARS,
    Signal,
    SignalError,
    encode_signal,
    parse_room,
    parse_signal,
)

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64).filter(str.isprintable)
TEXTS = st.text(max_size=50)
CANDIDATES = st.none() | TEXTS | st.dictionaries(TEXTS, TEXTS | st.integers() | st.none())
SIGNALS = st.one_of(
    st.builds(
        Signal,
        st.sampled_from(["OFFER", "ANSWER"]),
        IDS,
        st.none() | IDS,
        st.text(min_size=1, max_size=100),
    ),
    st.builds(Signal, st.just("ICE"), IDS, st.none() | IDS, st.none(), CANDIDATES),
    st.builds(Signal, st.sampled_from(["JOIN", "LEAVE"]), IDS, st.none() | IDS),
)


@given(SIGNALS)
def test_what_is_relayed_is_what_was_said(signal):
    body = encode_signal(signal)
    assert parse_signal(body) == signal
    assert body.isascii()  # whatever a text holds, it is UTF-8 that goes out
    fields = ("type", "senderId", "targetId", "sdp", "candidate")
    assert set(json.loads(body)) <= set(fields)


def test_fields_that_are_null_unknown_or_of_no_meaning_are_left_out():
    said = {
        "type": "JOIN",
        "senderId": "a",
        "targetId": None,
        "sdp": None,
        "candidate": "x",
        "z": 1,
    }
    assert encode_signal(parse_signal(json.dumps(said).encode())) == (
        b'{"type":"JOIN","senderId":"a"}'
    )


@pytest.mark.parametrize(
    "candidate",
    [None, "", "candidate:1 1 udp 2 10.0.0.1 5 typ host", {"candidate": "x", "sdpMLineIndex": 0}],
)
def test_candidates_are_text_an_object_or_their_end(candidate):
    said = {"type": "ICE", "senderId": "a", "candidate": candidate}
    assert json.loads(encode_signal(parse_signal(json.dumps(said).encode()))) == said


def _offer(**fields) -> bytes:
    return json.dumps({"type": "OFFER", "senderId": "a", "sdp": "v=0", **fields}).encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "a signal is a JSON object"),
        (b"\xff", "a signal is a JSON object"),
        (b"{", "a signal is a JSON object"),
        (b"[]", "a signal is a JSON object"),
        (b"[" * 60_000, "a signal is a JSON object"),
        (b'{"type":"ICE","senderId":"a","candidate":{"x":NaN}}', "a signal is a JSON object"),
        (_offer(type=None), "type: wants OFFER, ANSWER, ICE, JOIN, LEAVE, not None"),
        (_offer(type="offer"), "type: wants"),
        (_offer(type=["OFFER"]), "type: wants"),
        (_offer(senderId=None), "senderId: wants 1 to 64 printable characters"),
        (_offer(senderId=""), "senderId: wants"),
        (_offer(senderId=7), "senderId: wants"),
        (_offer(senderId="a" * 65), "senderId: wants"),
        (_offer(senderId="a\nb"), "senderId: wants"),
        (_offer(senderId="\ud800"), "senderId: wants"),
        (_offer(targetId=""), "targetId: wants"),
        (_offer(targetId={}), "targetId: wants"),
        (_offer(sdp=None), "sdp: wants a session description"),
        (_offer(sdp=""), "sdp: wants"),
        (_offer(sdp={"sdp": "v=0"}), "sdp: wants"),
        (_offer(sdp="x" * (MAX_SDP_CHARS + 1)), "sdp: 32,769 characters, of which 32,768 may be"),
        (_offer(sdp="x" * 1_000_000), "sdp: 1,000,000 characters"),
        (_offer(type="ICE"), "candidate: missing"),
        (_offer(type="ICE", candidate=1), "candidate: wants text"),
        (_offer(type="ICE", candidate="x" * MAX_CANDIDATE_CHARS), "candidate: more than 4,096"),
        (_offer(type="ICE", candidate={"x": "x" * MAX_CANDIDATE_CHARS}), "candidate: more than"),
    ],
)
def test_what_is_no_signal_is_refused(body, message):
    with pytest.raises(SignalError) as error:
        parse_signal(body)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["a", "desk-1", "A.b_c", "x" * 64])
def test_rooms_have_plain_names(name):
    assert parse_room(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "a b", "é", "a\n", "*"])
def test_other_names_are_refused(name):
    with pytest.raises(SignalError):
        parse_room(name)
