"""Keys found in what a terminal sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.cli.live.keys import Key, KeyDecoder


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b" ", Key.PAUSE),
        (b"s", Key.STEP),
        (b"\x1b[C", Key.STEP),
        (b"+", Key.FASTER),
        (b"\x1b[A", Key.FASTER),
        (b"\x1bOA", Key.FASTER),
        (b"-", Key.SLOWER),
        (b"\x1bOB", Key.SLOWER),
        (b"n", Key.NEXT),
        (b"\t", Key.NEXT),
        (b"p", Key.PREVIOUS),
        (b"\x1b[Z", Key.PREVIOUS),
        (b"1", Key.REAL_TIME),
        (b"0", Key.FLAT_OUT),
        (b"h", Key.HELP),
        (b"?", Key.HELP),
        (b"q", Key.QUIT),
    ],
)
def test_every_key(data, key):
    assert KeyDecoder().feed(data) == [key]


@pytest.mark.parametrize(
    "data", [b"x", b"\r", b"\x1b[D", b"\x1b[15~", b"\x1b[1;5A", b"\xc3\xa9", b"\x1b\x1b"]
)
def test_what_is_no_key_of_ours_is_left_out_whole(data):
    assert KeyDecoder().feed(data + b"q") == [Key.QUIT]


def test_an_escape_alone_waits_for_what_follows_and_swallows_none_of_it():
    decoder = KeyDecoder()
    assert decoder.feed(b"\x1b") == []
    assert decoder.feed(b"q") == [Key.QUIT]


@given(
    st.lists(
        st.sampled_from([b" ", b"s", b"\x1b[C", b"\x1bOA", b"\x1b[15~", b"q", b"\x1b[Z", b"z"])
    ),
    st.lists(st.integers(0, 40)),
)
def test_it_makes_no_difference_where_the_bytes_are_cut(sequences, cuts):
    data = b"".join(sequences)
    decoder, keys, before = KeyDecoder(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        keys += decoder.feed(data[before:cut])
        before = max(before, min(cut, len(data)))
    assert keys == KeyDecoder().feed(data)
