"""SockJS frames, as its protocol shows them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.wire import sockjs

TEXTS = st.text(st.characters(codec="utf-8"))


@given(TEXTS, TEXTS)
def test_a_message_is_an_array_of_one_string_in_ascii(start, rest):
    text = (start + rest).encode()
    frame = sockjs.message(text)
    assert frame.isascii()
    assert json.loads(frame.removeprefix(b"a")) == [start + rest]
    parts = sockjs.escape(start.encode()) + sockjs.escape(rest.encode())
    assert sockjs.MESSAGE_START + parts + sockjs.MESSAGE_END == frame


def test_a_session_ends_with_a_code_and_a_reason():
    assert sockjs.close(3000, "Go away!") == b'c[3000,"Go away!"]'


@given(st.lists(TEXTS))
def test_what_clients_send_is_read(messages):
    texts = [message.encode() for message in messages]
    assert sockjs.read_messages(json.dumps(messages).encode()) == texts
    assert sockjs.read_messages(json.dumps(messages, ensure_ascii=False).encode()) == texts


def test_one_string_may_stand_for_itself():
    assert sockjs.read_messages(b'"x\\u00fc"') == ["xü".encode()]


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"x", b"[", b'["a', b"{}", b"1", b"null", b"[1]", b'[["a"]]', b'["a",null]'),
        *(b"\xff", b'["\\ud800"]', b"[" * 100_000),
    ],
)
def test_what_is_no_list_of_texts_is_refused(payload):
    with pytest.raises(sockjs.SockJsError):
        sockjs.read_messages(payload)
