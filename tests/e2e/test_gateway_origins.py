"""Which web pages may use the gateway, by its headers and in a browser."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import WSServerHandshakeError

from mdtool.core.errors import ConfigError
from mdtool.services.gateway.config import GatewayConfig
from mdtool.services.gateway.server import Gateway
from mdtool.services.http.origins import ForeignOriginError, Origins
from tests.support.browser import chromium
from tests.support.gateways import connected, gateway_of

ELSEWHERE = "https://elsewhere.example"
SOCKET = "/ws/marketdata?symbol=AAPL"
PATHS = ("/api/v1/marketdata/AAPL", "/api/v1/bars/AAPL", "/health", "/metrics", "/graphql", "/none")
PREFLIGHT = {"Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "http://127.0.0.1", "file://", ""])
@pytest.mark.parametrize("path", PATHS)
async def test_pages_of_other_origins_are_refused_by_default(client, path, origin):
    async with client.get(path, headers={"Origin": origin}) as response:
        assert response.status == 403
        assert (await response.json())["error"] == "foreign_origin"
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("path", [SOCKET, "/graphql"])
async def test_their_sockets_are_refused_too(client, path):
    with pytest.raises(WSServerHandshakeError) as refused:
        await client.ws_connect(path, origin=ELSEWHERE, protocols=["graphql-transport-ws"])
    assert refused.value.status == 403


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_its_own_pages_are_served(client, scheme):
    origin = f"{scheme}://{client.host}:{client.port}"
    async with client.get(PATHS[0], headers={"Origin": origin}) as response:
        assert response.status == 200
    async with client.ws_connect(SOCKET, origin=origin) as socket:
        assert (await socket.receive_json())["symbol"] == "AAPL"


async def test_a_preflight_is_refused_by_default(client):
    for path in PATHS:
        request = client.options(path, headers={"Origin": ELSEWHERE, **PREFLIGHT})
        async with request as response:
            assert response.status == 403
            assert "Access-Control-Allow-Methods" not in response.headers


@pytest.mark.parametrize("allowed", [f"https://x.example, {ELSEWHERE}", "*"])
async def test_allowed_origins_may_read(source, allowed):
    async with gateway_of(source.address, allowed_origins=allowed) as client:
        await connected(client)
        async with client.get(PATHS[0], headers={"Origin": ELSEWHERE}) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == ELSEWHERE
            assert response.headers["Vary"] == "Origin"
            assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
        async with client.get("/none", headers={"Origin": ELSEWHERE}) as response:
            assert response.status == 404
            assert response.headers["Access-Control-Allow-Origin"] == ELSEWHERE
        async with client.get(PATHS[0]) as response:
            assert response.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Origin" not in response.headers
        request = client.options("/graphql", headers={"Origin": ELSEWHERE, **PREFLIGHT})
        async with request as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == ELSEWHERE
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        async with client.ws_connect(SOCKET, origin=ELSEWHERE) as socket:
            assert (await socket.receive_json())["symbol"] == "AAPL"


async def test_others_are_refused_where_some_are_allowed(source):
    async with gateway_of(source.address, allowed_origins=ELSEWHERE) as client:
        for origin in ("https://elsewhere.example.org", "http://elsewhere.example", "null"):
            async with client.get(PATHS[0], headers={"Origin": origin}) as response:
                assert response.status == 403
                assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("text", ["elsewhere.example", "ftp://a", "https://a/", "https://a,b"])
def test_what_is_no_origin_is_a_wrong_setting(text):
    with pytest.raises(ConfigError, match="allowed_origins"):
        Gateway(GatewayConfig(allowed_origins=text))


async def test_a_browser_keeps_to_it(source, client):
    page = f"http://{client.host}:{client.port}"
    allowing = gateway_of(source.address, allowed_origins=page)
    async with allowing as other, gateway_of(source.address) as closed, chromium() as tab:
        await asyncio.gather(connected(other), connected(closed))
        await tab.open(page + PATHS[0])  # which has no rules of its own about others

        async def read(gateway):
            return await tab.run(
                f"fetch('http://{gateway.host}:{gateway.port}{PATHS[0]}')"
                ".then((response) => response.json())"
                ".then((aggregate) => aggregate.volume, () => 'refused')"
            )

        assert [await read(gateway) for gateway in (client, other, closed)] == [
            *("400", "400", "refused")
        ]


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://a.example", "a.example:80", True),
        ("http://a.example:80", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("https://A.example:443", "a.example", True),
        ("https://a.example:8443", "a.example:8443", True),
        ("http://[::1]", "[::1]:80", True),
        ("http://a.example", "a.example:443", False),
        ("https://a.example", "a.example:8443", False),
        ("http://[::1]:8080", "[::1]", False),
        ("null", "null", False),
    ],
)
def test_a_port_that_the_scheme_implies_need_not_be_written(origin, host, is_own):
    origins = Origins("")
    with contextlib.nullcontext() if is_own else pytest.raises(ForeignOriginError):
        origins.check(origin, host)


async def test_pages_of_named_origins_may_send_credentials_and_their_headers(source):
    headers = {**PREFLIGHT, "Access-Control-Request-Headers": "authorization, x-request-id"}
    for allowed, credentials in ((f"{ELSEWHERE}:443", "true"), ("*", None)):
        async with gateway_of(source.address, allowed_origins=allowed) as client:
            request = client.options("/graphql", headers={"Origin": ELSEWHERE, **headers})
            async with request as response:
                assert response.headers.get("Access-Control-Allow-Credentials") == credentials
                allowed_headers = response.headers["Access-Control-Allow-Headers"]
                assert allowed_headers == "authorization, x-request-id"
