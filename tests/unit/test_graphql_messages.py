"""GraphQL requests and the messages of graphql-transport-ws: decoded, or rejected."""

from __future__ import annotations

import json

import pytest

from mdtool.wire.graphql import (
    CloseCode,
    Complete,
    MessageError,
    Request,
    RequestError,
    Signal,
    Subscribe,
    complete_message,
    decode_json,
    decode_message,
    decode_request,
    error_message,
    next_head,
)


def test_a_request_has_the_members_of_its_object():
    value = {
        "query": "query A($x: Int) { a }",
        "operationName": "A",
        "variables": {"x": 1},
        "extensions": {"trace": True},
        "unheard": "of",
    }
    assert decode_request(value) == Request("query A($x: Int) { a }", "A", {"x": 1})


@pytest.mark.parametrize("empty", [None, ""])
def test_optional_members_may_be_null_or_empty(empty):
    value = {"query": "{ a }", "operationName": empty, "variables": empty, "extensions": empty}
    assert decode_request(value) == Request("{ a }", empty)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([], "an object"),
        ([{"query": "{ a }"}], "an object"),
        (None, "an object"),
        ({}, "query: missing"),
        ({"query": None}, "query: missing"),
        ({"query": 1}, "query: expects"),
        ({"query": {"a": 1}}, "query: expects"),
        ({"query": "{ a }", "operationName": 0}, "operationName: expects"),
        ({"query": "{ a }", "variables": "{}"}, "variables: expects"),
        ({"query": "{ a }", "variables": []}, "variables: expects"),
        ({"query": "{ a }", "extensions": 0}, "extensions: expects"),
    ],
)
def test_an_invalid_request_is_rejected_by_its_parameter(value, complaint):
    with pytest.raises(RequestError, match=complaint):
        decode_request(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, "{" * 100_000])
def test_invalid_json_is_rejected(data):
    with pytest.raises(RequestError, match="not valid JSON"):
        decode_json(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"connection_init"}', Signal("connection_init")),
        (
            '{"type":"connection_init","payload":{"token":"x"}}',
            Signal("connection_init", {"token": "x"}),
        ),
        ('{"type":"ping","payload":null}', Signal("ping")),
        ('{"type":"ping","payload":""}', Signal("ping")),
        ('{"type":"pong"}', Signal("pong")),
        ('{"id":"1","type":"complete"}', Complete("1")),
        (
            '{"id":"1","type":"subscribe","payload":{"query":"{ a }"}}',
            Subscribe("1", Request("{ a }")),
        ),
    ],
)
def test_each_message_is_read(text, message):
    assert decode_message(text) == message


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"ping"}',
        "",
        "null",
        "[]",
        "{}",
        '{"type":null}',
        '{"type":["ping"]}',
        '{"type":"next","id":"1","payload":{}}',
        '{"type":"connection_ack"}',
        '{"type":"start","id":"1"}',
        '{"type":"connection_init","payload":1}',
        '{"type":"complete"}',
        '{"type":"complete","id":""}',
        '{"type":"complete","id":1}',
        json.dumps({"type": "complete", "id": "x" * 129}),
        '{"type":"subscribe","id":"1"}',
        '{"type":"subscribe","id":"1","payload":{"query":1}}',
        '{"type":"subscribe","payload":{"query":"{ a }"}}',
    ],
)
def test_anything_else_is_a_bad_message(data):
    with pytest.raises(MessageError, match=r"^Invalid message: ") as caught:
        decode_message(data)
    assert caught.value.code is CloseCode.BAD_MESSAGE


def test_a_reason_fits_into_a_close():
    assert len(str(MessageError(CloseCode.ID_IN_USE, "é" * 200)).encode()) <= 123


def test_a_reason_can_be_sent_whatever_a_client_calls_its_operation():
    id_ = decode_message('{"type":"complete","id":"\\ud800"}').id
    assert str(MessageError(CloseCode.ID_IN_USE, f"{id_} is taken")).encode() == b"? is taken"


def test_ids_come_back_as_they_were_whatever_is_in_them():
    for id_ in ("1", 'a"b\\c', "é\u2028\ud83d"):
        head = next_head(id_) + b'{"data":null}}'
        assert json.loads(head) == {"id": id_, "type": "next", "payload": {"data": None}}
        assert json.loads(complete_message(id_)) == {"id": id_, "type": "complete"}
        failed = json.loads(error_message(id_, b'[{"message":"no"}]'))
        assert failed == {"id": id_, "type": "error", "payload": [{"message": "no"}]}
