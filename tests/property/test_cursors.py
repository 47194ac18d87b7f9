"""Cursors: what is encoded comes back, and nothing else is one."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdtool.wire.cursors import (
    MAX_CURSOR_CHARS,
    MIN_CURSOR_CHARS,
    Cursor,
    CursorError,
    decode_cursor,
    encode_cursor,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
SYMBOLS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=70)
CURSORS = st.builds(Cursor, SYMBOLS, INT64, INT64, INT64)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(CURSORS)
@example(Cursor("A", -(2**63), 0, 2**63 - 1))
@example(Cursor("Z" * 70, 1, 2, 3))
def test_a_cursor_comes_back(cursor):
    text = encode_cursor(cursor)
    assert decode_cursor(text) == cursor
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", text)
    assert MIN_CURSOR_CHARS <= len(text) <= MAX_CURSOR_CHARS


@given(st.one_of(st.text(), st.text(ALPHABET, max_size=MAX_CURSOR_CHARS + 8)))
@example("")
@example("A")
@example("1735201234567")
@example("\u0663")
@example("\ud800")
@example("A" * 1_000_000)
def test_garbage_is_one_error(text):
    with pytest.raises(CursorError):
        decode_cursor(text)


@given(st.binary(max_size=120))
def test_bytes_that_happen_to_be_encoded_rightly_are_no_cursor(data):
    with pytest.raises(CursorError):
        decode_cursor(base64.urlsafe_b64encode(data).rstrip(b"=").decode())


@given(CURSORS, st.data())
def test_a_cursor_that_was_changed_anywhere_is_none(cursor, data):
    text = encode_cursor(cursor)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([*ALPHABET, "", "+", "/", "=", " ", "\u00e9"]))
    changed = text[:place] + other + text[place + 1 :]
    if changed != text:
        with pytest.raises(CursorError):
            decode_cursor(changed)


@given(CURSORS, st.text(ALPHABET + "= \n", min_size=1, max_size=5))
def test_a_cursor_with_something_before_or_behind_it_is_none(cursor, extra):
    for text in (encode_cursor(cursor) + extra, extra + encode_cursor(cursor)):
        with pytest.raises(CursorError):
            decode_cursor(text)
