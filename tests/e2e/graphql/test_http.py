"""GraphQL over HTTP: media types, statuses, and invalid requests."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import logging

import pytest

from mdtool.services.http import bodies
from tests.reference.market_source import Bar, MarketSource
from tests.support.gateways import connected, gateway_of

QUERY = '{ marketData(symbol: "AAPL") { symbol open high low close volume timestamp stale } }'
AAPL = {
    "symbol": "AAPL",
    "open": 187.25,
    "high": 188.5,
    "low": 187.25,
    "close": 188.5,
    "volume": "1000",
    "timestamp": "1735201234567",
    "stale": False,
}
JSON = "application/json"
RESPONSE = "application/graphql-response+json"


async def answer_of(client, query: object, accept: str = RESPONSE, **parameters):
    """The status of a POST, and its JSON."""
    body = {"query": query, **parameters}
    async with client.post("/graphql", json=body, headers={"Accept": accept}) as response:
        return response.status, await response.json(content_type=None)


async def posted(client, body: object, content_type: str = JSON, accept: str = RESPONSE):
    """The status of a POST of bytes, and its JSON."""
    headers = {"Content-Type": content_type, "Accept": accept}
    async with client.post("/graphql", data=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def test_a_query_has_the_values_of_rest(source, client):
    assert await answer_of(client, QUERY) == (200, {"data": {"marketData": AAPL}})
    _, rest = await client.answer("/api/v1/marketdata/AAPL")
    assert rest == {name: value for name, value in AAPL.items() if name != "stale"}


async def test_a_query_in_the_url_is_answered_too(client):
    query = "query Q($s: String!) { marketData(symbol: $s) { close } } query Other { symbols }"
    parameters = {"query": query, "operationName": "Q", "variables": '{"s":"AAPL"}'}
    async with client.get("/graphql", params=parameters) as response:
        assert (response.status, await response.json()) == (
            200,
            {"data": {"marketData": {"close": 188.5}}},
        )
    empty = {"query": "{ symbols }", "operationName": "", "variables": "", "extensions": ""}
    async with client.get("/graphql", params=empty) as response:
        assert (response.status, await response.json()) == (200, {"data": {"symbols": ["AAPL"]}})


async def test_bars_are_requested_from_the_aggregator(source, client):
    minute = 60 * 10**9
    source.bars["AAPL", "5m"] = [Bar(n * minute) for n in range(1, 4)]
    query = '{ bars(symbol: "aapl", interval: "5m", limit: 2, before: "180000") { timestamp } }'
    _, answer = await answer_of(client, query)
    assert answer["data"]["bars"] == [{"timestamp": "120000"}, {"timestamp": "60000"}]
    request = source.asked[-1]
    assert (request.interval, request.before) == ("5m", 3 * minute)


async def test_an_optional_argument_may_be_null_or_empty(source, client):
    source.bars["AAPL", "1m"] = [Bar(60 * 10**9)]
    for arguments in (
        "interval: null, limit: null, before: null",
        'interval: "", before: ""',
    ):
        query = f'{{ bars(symbol: "AAPL", {arguments}) {{ timestamp }} }}'
        _, answer = await answer_of(client, query)
        assert answer["data"]["bars"] == [{"timestamp": "60000"}]


async def test_an_interval_without_bars_is_the_clients_error(client):
    status, answer = await answer_of(client, '{ bars(symbol: "AAPL", interval: "7m") { open } }')
    assert (status, answer["data"]) == (200, {"bars": None})
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_an_aggregator_that_does_not_answer_is_a_timeout(source):
    source.is_silent = True
    async with gateway_of(source.address, timeout_ms=50) as client:
        _, answer = await answer_of(client, '{ bars(symbol: "AAPL") { open } }')
    assert answer["errors"][0]["extensions"]["code"] == "TIMEOUT"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (JSON, JSON),
        (RESPONSE, RESPONSE),
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{RESPONSE}, {JSON};q=0.9", RESPONSE),
        (f"{JSON};q=0.5, {RESPONSE}", RESPONSE),
        (f"{RESPONSE};q=0.1, {JSON}", JSON),
        (f"text/html, {RESPONSE.upper()} ; q=0.2", RESPONSE),
        (f"{RESPONSE};q=0, {JSON}", JSON),
    ],
)
async def test_the_response_is_of_the_media_type_that_the_client_prefers(
    client, accept, media_type
):
    for query in (QUERY, "{"):
        headers = {"Accept": accept}
        async with client.post("/graphql", json={"query": query}, headers=headers) as response:
            assert response.headers["Content-Type"] == f"{media_type}; charset=utf-8"


@pytest.mark.parametrize("accept", ["text/html", f"{JSON};q=0", "application/xml;q=1", "x"])
async def test_an_unknown_media_type_is_406(client, accept):
    status, answer = await answer_of(client, QUERY, accept)
    assert status == 406
    assert RESPONSE in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    "query",
    [
        "{",
        "{ nothing }",
        '{ marketData(symbol: "AAPL") { nothing } }',
        "query A { symbols } query B { symbols }",
        "query($s: String!) { marketData(symbol: $s) { open } }",
        'subscription { marketData(symbol: "AAPL") { open } }',
        "{" + "".join(f"a{n}: symbols " for n in range(31)) + "}",
        "{" + "".join(f'a{n}: marketData(symbol: "AAPL") {{ open }} ' for n in range(10_000)) + "}",
        "{ a" * 5_000,
        "",
    ],
)
async def test_an_invalid_document_is_400_or_200_for_older_clients(client, query):
    for accept, status in ((RESPONSE, 400), (JSON, 200)):
        answered, answer = await answer_of(client, query, accept)
        assert answered == status
        assert "data" not in answer
        assert answer["errors"][0]["message"]
        assert answer["errors"][0]["extensions"]["code"]


async def test_a_syntax_error_has_its_location(client):
    _, answer = await answer_of(client, "{\n  symbols\n  !\n}")
    assert answer["errors"][0]["locations"] == [{"line": 3, "column": 3}]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"null", "an object"),
        (b"[]", "1 to 10 requests"),
        (json.dumps([{"query": QUERY}] * 11).encode(), "1 to 10 requests"),
        (b"{}", "query: missing"),
        (b'{"query":7}', "query: expects"),
        (b'{"query":"{symbols}","variables":"{}"}', "variables: expects"),
        (b'{"query":"{symbols}","operationName":7}', "operationName: expects"),
        (b'{"query":"{symbols}","extensions":[]}', "extensions: expects"),
    ],
)
async def test_an_invalid_request_is_400_whatever_the_client_accepts(client, body, complaint):
    for accept in (JSON, RESPONSE):
        status, answer = await posted(client, body, accept=accept)
        assert status == 400
        assert complaint in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    "query",
    ["", "?query=", "?query={", "?query={symbols}&variables={", "?variables={}", "?extensions={}"],
)
async def test_an_invalid_request_in_a_url_is_400(client, query):
    async with client.get(f"/graphql{query}", headers={"Accept": RESPONSE}) as response:
        assert response.status == 400
        assert (await response.json(content_type=None))["errors"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/graphql",
        "application/json; charset=utf-16",
        "application/jsonp",
        "",
    ],
)
async def test_a_wrong_content_type_is_415(client, content_type):
    status, answer = await posted(client, b'{"query":"{symbols}"}', content_type)
    assert status == 415
    assert JSON in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    "content_type", [JSON, *(f"{JSON}; charset={name}" for name in ("UTF-8", "UTF8"))]
)
async def test_json_in_utf8_is_accepted(client, content_type):
    assert (await posted(client, b'{"query":"{symbols}"}', content_type))[0] == 200


async def test_a_batch_is_answered_in_its_order(client):
    batch = [{"query": QUERY}, {"query": "{"}, {}, {"query": "{ symbols }"}]
    status, answers = await posted(client, json.dumps(batch).encode(), accept=JSON)
    assert status == 200
    assert answers[0] == {"data": {"marketData": AAPL}}
    assert [each["errors"][0]["extensions"]["code"] for each in answers[1:3]] == [
        *("GRAPHQL_PARSE_FAILED", "BAD_REQUEST")
    ]
    assert answers[3] == {"data": {"symbols": ["AAPL"]}}


async def test_each_request_of_a_batch_counts(source, no_refill):
    async with gateway_of(source.address, memory_requests_per_s=5) as client:
        batch = json.dumps([{"query": "{ symbols }"}] * 10).encode()
        status, _ = await posted(client, batch)
        assert status == 429


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
async def test_the_digest_of_a_query_alone_makes_clients_send_the_query(client, accept):
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}
    error = {
        "message": "PersistedQueryNotSupported",
        "extensions": {"code": "PERSISTED_QUERY_NOT_SUPPORTED"},
    }
    body = json.dumps({"extensions": extensions}).encode()
    assert await posted(client, body, accept=accept) == (200, {"errors": [error]})
    parameters = {"extensions": json.dumps(extensions)}
    async with client.get("/graphql", params=parameters) as response:
        assert await response.json() == {"errors": [error]}
    both = json.dumps({"query": "{ symbols }", "extensions": extensions}).encode()
    assert await posted(client, both) == (200, {"data": {"symbols": ["AAPL"]}})


async def chunks(count: int):
    for _ in range(count):
        yield b" " * 65_536


async def test_a_body_that_is_too_long_is_413(client):
    five_megabytes = 5 << 20
    for body in (io.BytesIO(b" " * five_megabytes), chunks(five_megabytes >> 16)):
        status, answer = await posted(client, body)
        assert status == 413
        assert "1,048,576 bytes" in answer["errors"][0]["message"]
    assert (await answer_of(client, QUERY))[0] == 200


async def test_a_body_with_a_wrong_encoding_is_400(client, caplog):
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    async with client.post("/graphql", data=b'{"query":"{symbols}"}', headers=headers) as response:
        assert response.status == 400
        message = (await response.json())["errors"][0]["message"]
    assert message == "the body does not match its headers"
    assert (await client.answer("/health"))[0] == 200
    assert [record for record in caplog.records if record.levelno > logging.WARNING] == []


async def test_a_body_that_is_too_long_once_decompressed_is_413(client):
    headers = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    bomb = gzip.compress(bytes(64 << 20), 1)
    async with client.post("/graphql", data=bomb, headers=headers) as response:
        assert response.status == 413


async def test_a_body_that_does_not_arrive_is_a_bounded_wait(client, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST /graphql HTTP/1.1\r\nHost: gateway\r\nContent-Type: {JSON}\r\n"
    writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    assert b"did not arrive within" in await reader.readuntil(b"}]}")
    writer.close()


async def test_a_body_that_arrives_in_pieces_is_one_request(client):
    async def pieces():
        for byte in b'{"query":"{symbols}"}':
            yield bytes([byte])
            await asyncio.sleep(0)

    assert await posted(client, pieces()) == (200, {"data": {"symbols": ["AAPL"]}})


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405(client, method):
    async with client.request(method, "/graphql") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_the_last_known_state_is_marked_stale():
    source = MarketSource()
    source.trade("AAPL", 187.25, 400)
    async with contextlib.AsyncExitStack() as stack:
        async with source.serving():
            client = await stack.enter_async_context(gateway_of(source.address))
            socket = await client.ws_connect("/ws/marketdata?symbol=AAPL")
            await socket.receive_json()
        assert (await socket.receive_json())["stale"] is True
        async with client.post("/graphql", json={"query": QUERY}) as response:
            assert response.headers["Warning"] == '110 mdtool "Response is Stale"'
            row = (await response.json())["data"]["marketData"]
            assert (row["close"], row["stale"]) == (187.25, True)
        _, answer = await answer_of(client, '{ marketData(symbol: "NONE") { open } }')
        assert answer["errors"][0]["extensions"]["code"] == "UNAVAILABLE"


async def test_introspection_and_limits_are_settings(source):
    settings = {
        "graphql_introspection": False,
        "graphql_max_depth": 2,
        "graphql_max_aliases": 1,
        "graphql_max_complexity": 3,
        "graphql_max_body_bytes": 200,
    }
    async with gateway_of(source.address, **settings) as client:
        await connected(client)
        assert (await answer_of(client, '{ a: marketData(symbol: "AAPL") { open low } }'))[0] == 200
        for query in (
            "{ __schema { queryType { name } } }",
            "{ a { b { c } } }",
            "{ a: symbols b: symbols }",
            '{ marketData(symbol: "AAPL") { open low high } }',
        ):
            assert (await answer_of(client, query))[0] == 400
        assert (await answer_of(client, "{ symbols }" + " " * 200))[0] == 413


async def test_requests_are_measured_by_status(client):
    await answer_of(client, QUERY)
    await answer_of(client, "{")
    metrics = await (await client.get("/metrics")).text()
    for status in (200, 400):
        assert f'mdtool_request_seconds_count{{route="/graphql",status="{status}"}} 1.0' in metrics
