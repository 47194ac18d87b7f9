"""Signals of WebRTC peers: which are valid, and what is relayed of them."""

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
def test_a_signal_is_relayed_as_it_was_sent(signal):
    body = encode_signal(signal)
    assert parse_signal(body) == signal
    assert body.isascii()  # whatever a text holds, it is UTF-8 that goes out
    fields = ("type", "senderId", "targetId", "sdp", "candidate")
    assert set(json.loads(body)) <= set(fields)


@pytest.mark.parametrize("empty", [{}, {"targetId": None}, {"targetId": ""}])
def test_a_signal_without_a_target_is_for_everybody(empty):
    signal = parse_signal(_offer(**empty))
    assert signal.target_id is None
    assert "targetId" not in json.loads(encode_signal(signal))


@pytest.mark.parametrize("fields", [{}, {"candidate": None}])
def test_an_ice_signal_without_a_candidate_ends_the_candidates(fields):
    body = json.dumps({"type": "ICE", "senderId": "a", "sdp": "", **fields}).encode()
    assert encode_signal(parse_signal(body)) == b'{"type":"ICE","senderId":"a","candidate":null}'


def test_fields_that_are_null_unknown_or_of_another_type_are_left_out():
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
        (b"", "a signal must be a JSON object"),
        (b"\xff", "a signal must be a JSON object"),
        (b"{", "a signal must be a JSON object"),
        (b"[]", "a signal must be a JSON object"),
        (b"[" * 60_000, "a signal must be a JSON object"),
        (b'{"type":"ICE","senderId":"a","candidate":{"x":NaN}}', "a signal must be a JSON object"),
        (_offer(type=None), "type: expects OFFER, ANSWER, ICE, JOIN, LEAVE, not None"),
        (_offer(type="offer"), "type: expects"),
        (_offer(type=["OFFER"]), "type: expects"),
        (_offer(senderId=None), "senderId: expects 1 to 64 printable characters"),
        (_offer(senderId=""), "senderId: expects"),
        (_offer(senderId=7), "senderId: expects"),
        (_offer(senderId="a" * 65), "senderId: expects"),
        (_offer(senderId="a\nb"), "senderId: expects"),
        (_offer(senderId="\ud800"), "senderId: expects"),
        (_offer(targetId={}), "targetId: expects"),
        (_offer(sdp=None), "sdp: expects a session description"),
        (_offer(sdp=""), "sdp: expects"),
        (_offer(sdp={"sdp": "v=0"}), "sdp: expects"),
        (_offer(sdp="x" * (MAX_SDP_CHARS + 1)), "sdp: 32,769 characters; at most 32,768"),
        (_offer(sdp="x" * 1_000_000), "sdp: 1,000,000 characters"),
        (_offer(type="ICE", candidate=1), "candidate: expects text"),
        (_offer(type="ICE", candidate="x" * MAX_CANDIDATE_CHARS), "candidate: more than 4,096"),
        (_offer(type="ICE", candidate={"x": "x" * MAX_CANDIDATE_CHARS}), "candidate: more than"),
    ],
)
def test_an_invalid_signal_is_rejected(body, message):
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
