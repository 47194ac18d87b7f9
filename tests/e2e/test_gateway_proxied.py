"""The gateway behind proxies: below a path, with upgrades and probes that they send."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from tests.support.browser import chromium
from tests.support.gateways import connected, gateway_of

PROBES = ("/livez", "/readyz", "/health")
PAGES = ("/", "/book", "/demo/stomp", "/demo/call", "/graphiql", "/docs")

OPENMETRICS, TEXT = "application/openmetrics-text", "text/plain"


@pytest.mark.parametrize("path", PROBES)
async def test_probes_answer_every_method_that_proxies_use(client, path):
    await connected(client)
    for method, status in (("GET", 200), ("HEAD", 200), ("OPTIONS", 204), ("POST", 405)):
        async with client.request(method, path) as response:
            assert response.status == status, method
    async with client.options(path) as response:
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS"


async def test_a_gateway_without_data_is_alive_but_not_ready():
    async with gateway_of("127.0.0.1:9") as client:
        assert await client.answer("/livez") == (200, {"status": "ok"})
        assert await client.answer("/readyz") == (503, {"status": "unavailable"})


@pytest.mark.parametrize("path", ["/health", "/api/v1/marketdata/AAPL", "/v1/quotes", "/ws"])
async def test_an_offer_of_http_2_is_ignored(client, path):
    await connected(client)
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {client.host}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(request.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/openmetrics-text; version=1.0.0, text/plain;q=0.5", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("text/plain", TEXT),
        ("*/*", TEXT),
    ],
)
async def test_metrics_come_in_the_form_that_is_asked_for(client, accept, kind):
    async with client.get("/metrics", headers={"Accept": accept}) as response:
        assert response.content_type == kind
        assert (await response.text()).endswith("# EOF\n") == (kind == OPENMETRICS)


@pytest.mark.parametrize("symbol", ["BTC/USD", "/ES", "A//B"])
async def test_symbols_with_slashes_are_found_also_where_a_proxy_decodes_them(client, symbol):
    encoded, decoded = quote(symbol, safe=""), symbol
    for path in ("/api/v1/marketdata/", "/api/v2/aggregates/", "/api/v2/quotes/"):
        answers = []
        for each in (encoded, decoded):
            status, answer = await client.answer(path + each)
            assert status == 404
            answers.append(answer)
        assert answers[0] == answers[1]
        assert symbol in str(answers[0])


async def test_everything_is_served_below_the_base_path_too(source):
    async with gateway_of(source.address, base_path="/market/data") as client:
        await connected(client)
        for base in ("", "/market/data"):
            for path in (*PROBES, "/api/v1/marketdata/AAPL", "/api/v2/quotes/AAPL", *PAGES):
                async with client.get(base + path) as response:
                    assert response.status == 200, base + path
            async with client.ws_connect(f"{base}/ws/marketdata?symbol=AAPL") as socket:
                assert (await socket.receive_json())["symbol"] == "AAPL"
        status, document = await client.answer("/market/data/openapi.json")
        assert document["servers"] == [{"url": "/market/data"}]
        assert (await client.answer("/market/data/none"))[0] == 404
        assert (await client.answer("/market/none"))[0] == 404
        status, error = await client.answer("/market/data/api/v2/none")
        assert (status, error["error"]["code"]) == (404, "not_found")


async def test_pages_name_the_prefix_that_a_proxy_removed(source):
    async with gateway_of(source.address, proxies=1) as client:
        for path in PAGES:
            async with client.get(path, headers={"X-Forwarded-Prefix": "/md"}) as response:
                assert '<base href="/md/">' in await response.text()
        async with client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/md"}) as response:
            assert (await response.json())["servers"] == [{"url": "/md"}]


async def test_pages_work_below_the_base_path_in_a_browser(source):
    async with gateway_of(source.address, base_path="/md") as client, chromium() as tab:
        await connected(client)
        await tab.open(f"http://{client.host}:{client.port}/md/demo/stomp")
        for element, state in (("state", "connected"), ("age", "ok")):
            await tab.until(f"document.getElementById('{element}').dataset.state === '{state}'")
        await tab.open(f"http://{client.host}:{client.port}/md")
        await tab.until("document.querySelector('.row .symbol')?.innerText === 'AAPL'")
        await tab.until("document.getElementById('service-aggregator')?.dataset.state === 'ready'")
        await tab.open(f"http://{client.host}:{client.port}/md/book")
        await tab.until("document.getElementById('sender').dataset.state === 'unavailable'")
