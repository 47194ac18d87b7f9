"""Keys found in the bytes of a terminal, and what they do in the live view."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.cli.live.playback import FLAT_OUT, REAL_TIME, Playback
from mdtool.cli.live.view import LiveView
from mdtool.cli.terminal import KeySplitter


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"s", [b"s"]),
        (b"\x1b[C", [b"\x1b[C"]),
        (b"\x1bOA", [b"\x1b[A"]),
        (b"\x1b[15~q", [b"\x1b[15~", b"q"]),
        (b"\x1b[1;5Aq", [b"\x1b[1;5A", b"q"]),
        (b"\x1b\x1bq", [b"\x1b", b"\x1b", b"q"]),
    ],
)
def test_letters_and_sequences_are_keys(data, keys):
    splitter = KeySplitter()
    assert splitter.feed(data) + splitter.flush() == keys


def test_an_escape_alone_waits_for_what_follows_and_swallows_none_of_it():
    splitter = KeySplitter()
    assert splitter.feed(b"\x1b") == []
    assert splitter.feed(b"q") == [b"\x1b", b"q"]


def test_an_escape_alone_is_a_key_after_a_pause():
    splitter = KeySplitter()
    assert splitter.feed(b"\x1b") == []
    assert splitter.flush() == [b"\x1b"]
    assert splitter.flush() == []


@given(
    st.lists(
        st.sampled_from([b" ", b"s", b"\x1b[C", b"\x1bOA", b"\x1b[15~", b"q", b"\x1b[Z", b"z"])
    ),
    st.lists(st.integers(0, 40)),
)
def test_it_makes_no_difference_where_the_bytes_are_cut(sequences, cuts):
    data = b"".join(sequences)
    splitter, keys, before = KeySplitter(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        keys += splitter.feed(data[before:cut])
        before = max(before, min(cut, len(data)))
    assert keys == KeySplitter().feed(data)


class Feed:
    """The feed of a view, as far as keys concern it."""

    def __init__(self) -> None:
        self.playback = Playback(REAL_TIME)
        self.offset = 0

    def held(self):
        return contextlib.nullcontext()

    def show_next(self, offset: int) -> None:
        self.offset += offset


def pressed(*keys: bytes) -> tuple[Feed, LiveView]:
    feed = Feed()
    view = LiveView(feed)
    for key in keys:
        view.press(key)
    return feed, view


@pytest.mark.parametrize("key", [b" ", b"s", b".", b"\x1b[C"])
def test_keys_that_pause(key):
    feed, _ = pressed(key)
    assert feed.playback.is_paused
    assert feed.playback.steps == (key != b" ")


@pytest.mark.parametrize(
    ("key", "speed"),
    [
        *((key, 2.0) for key in (b"+", b"=", b"\x1b[A")),
        *((key, 0.5) for key in (b"-", b"_", b"\x1b[B")),
        (b"0", FLAT_OUT),
        (b"1", REAL_TIME),
    ],
)
def test_keys_that_change_the_speed(key, speed):
    assert pressed(key)[0].playback.speed == speed


@pytest.mark.parametrize(
    ("key", "offset"), [(b"n", 1), (b"\t", 1), (b"p", -1), (b"N", -1), (b"\x1b[Z", -1)]
)
def test_keys_that_show_another_book(key, offset):
    assert pressed(key)[0].offset == offset


@pytest.mark.parametrize("key", [b"q", b"Q"])
def test_keys_that_quit(key):
    assert pressed(key)[1].is_over


@pytest.mark.parametrize("key", [b"x", b"\r", b"\x1b[D", b"\x1b[15~", b"\x1b[1;5A", b"\xc3"])
def test_other_keys_do_nothing(key):
    feed, view = pressed(key)
    assert not view.is_over
    assert (feed.playback.is_paused, feed.playback.speed, feed.offset) == (False, REAL_TIME, 0)
