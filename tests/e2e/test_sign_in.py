"""Users of pages sign in at an issuer, in a real browser, and stay signed in."""

from __future__ import annotations

import contextlib

import pytest

from tests.reference.market_source import MarketSource
from tests.support.browser import chromium
from tests.support.gateways import gateway_of
from tests.support.issuers import CLIENT, provider
from tests.support.sign_in import StrictIssuer, security_of
from tests.support.tokens import Keys, required_by_gateways

NOWHERE = "http://127.0.0.1:1/"
BASE = "/desk/md"
ROW = "document.querySelector('[data-symbol=AAPL]')"
SIGNED_IN = f"{ROW} && !document.querySelector('#sign-in').open"
BUTTON = "document.querySelector('#at-issuer button')"
VALID_S = 12
HASTEN = """
    globalThis.renewals = [];
    const later = setTimeout;
    globalThis.setTimeout = (act, delay, ...more) => {
        const isRenewal = String(act).includes('#renew');
        if (isRenewal) { renewals.push(delay); }
        return later(act, isRenewal ? 1_000 : delay, ...more);
    };
"""
"""Tokens are renewed a second after they came, so that a slow machine is in time."""
OFFERED = f"{BUTTON} && !document.querySelector('#at-issuer').hidden"


@pytest.fixture
async def market():
    source = MarketSource()
    source.trade("AAPL", 187.25, 400)
    async with source.serving():
        yield source


@contextlib.asynccontextmanager
async def page_of(market, monkeypatch, issuer, path="/", **auth):
    """A tab with a page of a gateway that requires tokens of an issuer, and its client."""
    required_by_gateways(monkeypatch, lambda: security_of(issuer, **auth))
    settings = {"assets": NOWHERE, "base_path": BASE}
    async with gateway_of(market.address, **settings) as client, chromium() as tab:
        await tab.open(f"http://{client.host}:{client.port}{BASE}{path}")
        yield tab, client


async def test_a_user_signs_in_at_a_provider_below_a_base_path(market, monkeypatch):
    with provider() as found, found.running():
        found.token("ann", mdtool={"roles": ["some"]})  # the provider knows her from then on
        async with page_of(
            market, monkeypatch, found.issuer, "/?symbol=AAPL", client_secret="any"
        ) as (tab, client):
            await tab.until(OFFERED)
            async with tab.leaving():
                await tab.run(f"{BUTTON}.click()")
            async with tab.leaving():
                await tab.run(
                    "document.querySelector('input[name=sub]').value = 'ann';"
                    "document.querySelector('button[type=submit]').click()"
                )
            await tab.until(SIGNED_IN)
            assert await tab.run("location.pathname") == f"{BASE}/"
            assert "code" not in await tab.run("location.search")
            # In memory only.
            stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
            text = await tab.run(stored)
            assert "eyJ" not in text
            assert "verifier" not in text
            await tab.open(f"http://{client.host}:{client.port}{BASE}/")
            await tab.until(OFFERED)


async def test_the_secret_stays_with_the_page_and_the_token_is_renewed(market, monkeypatch):
    async with StrictIssuer().serving() as found:
        found.valid_s = VALID_S
        async with page_of(market, monkeypatch, found.issuer) as (tab, _):
            await tab.until(OFFERED)
            await tab.send("Page.addScriptToEvaluateOnNewDocument", source=HASTEN)
            async with tab.leaving():
                await tab.run(f"{BUTTON}.click()")
            await tab.until(SIGNED_IN)
            (query,) = found.authorized
            assert query["client_id"] == CLIENT
            assert query["redirect_uri"].endswith(f"{BASE}/")
            while len(found.renewed) <= VALID_S:  # a second each: the first token has expired
                await tab.run("new Promise((resolve) => setTimeout(resolve, 50))")
            assert len({*found.renewed}) == len(found.renewed)  # each is of the one before it
            delays = await tab.run("renewals")
            assert all(delay <= VALID_S * 1_000 * 2 / 3 for delay in delays)
            # The connection has remained, and shows what comes.
            market.trade("AAPL", 199.5, 1)
            await tab.until(f"{ROW}.textContent.includes('199.50')")
            assert await tab.run("document.querySelector('#sign-in').open") is False
            assert not any("Security" in complaint for complaint in tab.complaints)


async def test_the_book_signs_in_too(market, monkeypatch):
    async with (
        StrictIssuer().serving() as found,
        page_of(market, monkeypatch, found.issuer, "/book") as (tab, _),
    ):
        await tab.until(OFFERED)
        async with tab.leaving():
            await tab.run(f"{BUTTON}.click()")
        await tab.until("document.querySelector('#notice').textContent.includes('right')")
        assert found.authorized[0]["redirect_uri"].endswith(f"{BASE}/book")


CONNECTED = "document.querySelector('#state').dataset.state === 'connected'"


@pytest.mark.parametrize("name", ["stomp", "call"])
async def test_a_test_page_signs_in_and_stays_connected(market, monkeypatch, name):
    async with (
        StrictIssuer().serving() as found,
        page_of(market, monkeypatch, found.issuer, f"/demo/{name}") as (tab, _),
    ):
        found.valid_s = VALID_S
        await tab.until(OFFERED)
        await tab.send("Page.addScriptToEvaluateOnNewDocument", source=HASTEN)
        async with tab.leaving():
            await tab.run(f"{BUTTON}.click()")
        await tab.until(f"{CONNECTED} && !document.querySelector('#sign-in').open")
        assert found.authorized[0]["redirect_uri"].endswith(f"{BASE}/demo/{name}")
        while len(found.renewed) < 2:
            await tab.run("new Promise((resolve) => setTimeout(resolve, 50))")
        if name == "stomp":
            await tab.run("document.querySelector('#follow').requestSubmit()")
        # A trade from before the subscription has arrived is not sent to it.
        while not await tab.run("document.body.innerText.includes('199.5')"):
            market.trade("AAPL", 199.5, 1)
            await tab.run("new Promise((resolve) => setTimeout(resolve, 50))")
        assert await tab.run(CONNECTED)
        assert not any("Security" in complaint for complaint in tab.complaints)


async def test_the_call_page_takes_a_pasted_key(market, monkeypatch, tmp_path):
    keys = Keys(tmp_path)
    required_by_gateways(monkeypatch, keys.security)
    async with gateway_of(market.address) as client, chromium() as tab:
        await tab.open(f"http://{client.host}:{client.port}/demo/call?room=desk")
        await tab.until("document.querySelector('#sign-in').open")
        for key, is_right in (("wrong", False), (keys["all"], True)):
            await tab.run(
                f"document.querySelector('#token').value = '{key}';"
                "document.querySelector('#sign-in form').requestSubmit()"
            )
            if not is_right:
                await tab.until("!document.querySelector('#token-problem').hidden")
        await tab.until(f"{CONNECTED} && document.querySelector('#price').value === '187.25'")
        # The servers of calls are read with the token, too.
        await tab.run("document.querySelector('#call').requestSubmit()")
        await tab.until("document.querySelector('#state dd').innerText === 'in desk'")


async def test_the_page_of_graphql_signs_in(market, monkeypatch, tmp_path):
    keys = Keys(tmp_path)
    required_by_gateways(monkeypatch, keys.security)
    async with gateway_of(market.address, assets=NOWHERE) as client, chromium() as tab:
        await tab.open(f"http://{client.host}:{client.port}/graphiql")
        await tab.until("document.querySelector('#graphiql form')")
        await tab.click("#graphiql form button")
        await tab.until("document.querySelector('#sign-in').open")
        await tab.run(
            f"document.querySelector('#token').value = '{keys['all']}';"
            "document.querySelector('#sign-in form').requestSubmit()"
        )
        await tab.until("!document.querySelector('#sign-in').open")
        await tab.click("#graphiql form button")
        await tab.until("document.querySelector('pre').innerText.includes('\"symbol\": \"AAPL\"')")


async def test_who_comes_back_with_another_state_is_not_signed_in(market, monkeypatch):
    async with (
        StrictIssuer().serving() as found,
        page_of(market, monkeypatch, found.issuer, "/?code=x&state=y") as (tab, _),
    ):
        await tab.until(OFFERED)
        assert found.authorized == []


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"code": "x", "verifier": "y", "redirect": "http://127.0.0.1/"}, 401),
        ({"refresh": "x"}, 401),
        ({"refresh": 1}, 400),
        ({"code": "x"}, 400),
        ([], 400),
    ],
)
async def test_what_the_issuer_does_not_accept_gives_no_token(market, monkeypatch, given, status):
    async with StrictIssuer().serving() as found:
        required_by_gateways(monkeypatch, lambda: security_of(found.issuer))
        async with gateway_of(market.address) as client:
            async with client.post("/api/v2/sign-in", json=given) as response:
                assert response.status == status
                assert (await response.json())["data"] is None
            async with client.post("/api/v2/sign-in", data=b"[" * 10_000) as response:
                assert response.status == 400


async def test_while_the_issuer_is_unavailable_nobody_signs_in(market, monkeypatch):
    required_by_gateways(monkeypatch, lambda: security_of(NOWHERE.rstrip("/")))
    async with gateway_of(market.address) as client:
        assert (await client.answer("/api/v2/sign-in"))[0] == 502
        async with client.post("/api/v2/sign-in", json={"refresh": "x"}) as response:
            assert response.status == 502
