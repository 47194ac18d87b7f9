"""The live protocol's control lines: cut anywhere, round trips, and garbage."""

from __future__ import annotations

import contextlib
import string

from hypothesis import given
from hypothesis import strategies as st

from mdtool.wire.live import (
    COMPRESSIONS,
    ENCODINGS,
    STYPES,
    Accepted,
    AnswerDecoder,
    Authentication,
    Challenge,
    ControlError,
    Greeting,
    Rejected,
    RequestDecoder,
    Start,
    Subscribe,
    Unsubscribe,
    encode_answer,
    encode_request,
)

words = st.text(string.ascii_letters + string.digits + ".-_", min_size=1, max_size=20)
texts = st.lists(words, max_size=4).map(" ".join)
symbols = st.lists(words, min_size=1, max_size=1_200, unique=True).map(tuple)
authentications = st.builds(
    Authentication,
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    bucket=st.text(string.ascii_letters, min_size=5, max_size=5),
    dataset=words.filter(lambda word: len(word) <= 16),
    encoding=st.sampled_from(ENCODINGS),
    compression=st.sampled_from(COMPRESSIONS),
    has_ts_out=st.booleans(),
    heartbeat_interval_s=st.integers(5, 1_800),
    skips=st.booleans(),
    client=texts,
)
subscriptions = st.builds(
    Subscribe,
    schema=words,
    stype_in=st.sampled_from(STYPES),
    symbols=symbols,
    start_ns=st.none() | st.integers(0, 2**63 - 1),
    has_snapshot=st.booleans(),
    id=st.none() | st.integers(0, 2**32),
)
ends = st.builds(Unsubscribe, schema=words, stype_in=st.sampled_from(STYPES), symbols=symbols)
following = st.lists(subscriptions | ends | st.just(Start()), max_size=4)
answers = st.tuples(
    st.builds(Greeting, version=words),
    st.builds(Challenge, cram=words),
    st.builds(Accepted, session_id=st.integers(0, 10**12)) | st.builds(Rejected, reason=texts),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


cuts = st.lists(st.integers(0, 2**20), max_size=20)


@given(authentications, following, cuts)
def test_requests_arrive_as_they_were_sent(first, others, cuts):
    sent = [first, *others]
    decoder = RequestDecoder()
    data = b"".join(map(encode_request, sent))
    received = [request for piece in pieces(data, cuts) for request in decoder.feed(piece)]
    assert received == sent


@given(answers, st.binary(max_size=64), cuts)
def test_answers_arrive_as_they_were_sent(sent, stream, cuts):
    decoder = AnswerDecoder()
    data = b"".join(map(encode_answer, sent)) + stream
    received = [answer for piece in pieces(data, cuts) for answer in decoder.feed(piece)]
    assert received == list(sent)
    assert decoder.rest == stream


lines = st.text(string.printable, max_size=80) | st.lists(
    st.tuples(
        st.sampled_from(["auth", "dataset", "schema", "symbols", "id", "is_last", "start", "x"]),
        st.text(string.printable, max_size=8),
    ),
    max_size=5,
).map(lambda fields: "|".join(f"{name}={value}" for name, value in fields))


@given(st.lists(st.binary(max_size=40) | lines.map(str.encode), max_size=8), st.booleans(), cuts)
def test_garbage_gives_requests_or_one_error(garbage, is_authenticated, cuts):
    prefix = b"auth=%b-1|dataset=D\n" % (b"0" * 64) if is_authenticated else b""
    data = prefix + b"\n".join(garbage) + b"\n"
    outcomes = []
    for each in ([data], pieces(data, cuts)):
        decoder, received = RequestDecoder(), []
        with contextlib.suppress(ControlError):
            for piece in each:
                received += decoder.feed(piece)
        outcomes.append((received, decoder.error and str(decoder.error)))
    assert outcomes[0] == outcomes[1]
    with contextlib.suppress(ControlError):
        AnswerDecoder().feed(data)
