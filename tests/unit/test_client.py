"""Admission: what each client may use, and what a service's clients may use together."""

import asyncio
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from mdtool.adapters.identity.config import OPTIONAL, REQUIRED, AuthConfig
from mdtool.adapters.identity.errors import TokenError
from mdtool.core.logs import PRINCIPAL
from mdtool.core.permissions import Principal, Roles
from mdtool.services.client import Admission, Client
from mdtool.services.client_address import client_address
from mdtool.services.http.answers import answering
from mdtool.services.http.entry import TOKEN, enter
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.security import Security
from tests.support.feed_followers import bearer
from tests.support.issuers import AUDIENCE, ISSUER, claims, new_key, sign, write_jwks
from tests.support.tokens import Keys


def ignore(_code: int, _reason: str) -> None:
    pass


@pytest.mark.usefixtures("no_refill")
def test_requests_beyond_the_rate_are_rejected_and_say_when_to_retry():
    admission = Admission(Limits(requests_per_s=2))
    client = admission.client("10.0.0.1")
    client.spend_request()
    client.spend_request()
    with pytest.raises(LimitError) as caught:
        client.spend_request()
    assert int(caught.value.headers["Retry-After"]) >= 1
    assert caught.value.headers["RateLimit-Policy"] == '"memory";q=2;w=1'
    assert admission.refused["requests"] == 1
    admission.client("10.0.0.2").spend_request()


@pytest.mark.usefixtures("no_refill")
def test_connections_of_one_address_share_its_limits_and_a_principal_has_its_own():
    admission = Admission(Limits(upstream_per_s=1, upstream_burst=1))
    admission.client("10.0.0.1").spend_upstream()
    with pytest.raises(LimitError):
        admission.client("10.0.0.1").spend_upstream()
    admission.client("10.0.0.1", Principal("desk-7")).spend_upstream()
    with pytest.raises(LimitError):
        admission.client("10.0.0.9", Principal("desk-7")).spend_upstream()


@pytest.mark.usefixtures("no_refill")
def test_what_is_left_upstream_is_told_in_headers():
    admission = Admission(Limits(upstream_per_s=10, upstream_burst=20))
    client = admission.client("10.0.0.1")
    client.spend_upstream()
    headers = client.upstream_headers()
    assert headers["RateLimit-Policy"] == '"upstream";q=20;w=2'
    assert headers["RateLimit"] == '"upstream";r=19'


@pytest.mark.usefixtures("no_refill")
def test_a_reserved_request_waits_for_its_time_and_too_long_a_wait_is_rejected():
    client = Admission(Limits(upstream_per_s=1, upstream_burst=1)).client("10.0.0.1")
    assert client.reserve_upstream() == 0
    assert 0 < client.reserve_upstream() <= 1
    for _ in range(9):
        client.reserve_upstream()
    with pytest.raises(LimitError):
        client.reserve_upstream()


def test_connections_are_counted_while_they_are_open():
    admission = Admission(Limits(connections=2, connections_of_client=1))
    first, again = admission.client("10.0.0.1"), admission.client("10.0.0.1")
    with first.connected("/ws", ignore) as tally:
        assert (len(admission), tally.open, tally.opened) == (1, 1, 1)
        with pytest.raises(LimitError, match="for one client"), again.connected("/ws", ignore):
            pass
        with (
            admission.client("10.0.0.2").connected("/other", ignore),
            pytest.raises(CapacityError, match="limit of 2"),
            admission.client("10.0.0.3").connected("/ws", ignore),
        ):
            pass
    assert (len(admission), tally.open, tally.opened, tally.refused) == (0, 0, 1, 2)
    assert admission.refused["sockets"] == 2
    with again.connected("/ws", ignore):
        assert tally.opened == 2


def test_every_connection_is_closed_with_the_reason():
    admission = Admission(Limits())
    closed: list[tuple[str, int, str]] = []

    def closing(client: Client):
        return client.connected("/ws", lambda *why: closed.append((client.address, *why)))

    one, two = admission.client("10.0.0.1"), admission.client("10.0.0.2")
    with closing(one), closing(two):
        admission.close_all(1001, "the service stops")
    assert closed == [
        ("10.0.0.1", 1001, "the service stops"),
        ("10.0.0.2", 1001, "the service stops"),
    ]
    one.close(1000, "again")
    assert len(closed) == 2


async def test_a_client_that_used_its_share_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch):
    now_ns = time.monotonic_ns()
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        nonlocal now_ns
        slept.append(delay_s)
        now_ns += int(delay_s * 1e9)

    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    admission = Admission(Limits(time_percent=25))
    busy = admission.client("10.0.0.1")
    with await busy.turn():
        now_ns += 500_000_000
    assert not slept
    await admission.client("10.0.0.2").turn()
    assert not slept
    await admission.client("10.0.0.1").turn()
    assert 1.0 <= sum(slept) <= 1.2
    assert admission.waits == 1


@pytest.mark.usefixtures("no_refill")
def test_clients_on_this_machine_may_have_a_limit_of_their_own():
    admission = Admission(Limits(upstream_per_s=1, upstream_burst=2, upstream_here_per_s=100))
    for address in ("127.0.0.1", "127.1.2.3", client_address("::1")):
        here = admission.client(address)
        assert here.upstream_headers()["RateLimit-Policy"] == '"upstream";q=100;w=1'
        for _ in range(100):
            here.spend_upstream()
    elsewhere = admission.client("10.0.0.1")
    assert elsewhere.upstream_headers()["RateLimit-Policy"] == '"upstream";q=2;w=2'
    elsewhere.spend_upstream()
    elsewhere.spend_upstream()
    with pytest.raises(LimitError, match="rate limit of 1 requests a second"):
        elsewhere.spend_upstream()


@pytest.mark.usefixtures("no_refill")
def test_wrong_tokens_count_against_their_address_and_right_ones_do_not(tmp_path):
    keys = Keys(tmp_path)
    admission = Admission(Limits(requests_per_s=2), keys.security())
    for _ in range(2):
        with pytest.raises(TokenError):
            admission.client("10.0.0.1").authenticate("mdt_guessed_guessed")
    with pytest.raises(LimitError):
        admission.client("10.0.0.1").authenticate("mdt_guessed_guessed")
    client = admission.client("10.0.0.1")
    client.authenticate(keys["some"])
    client.spend_request()
    assert client.identity not in {"10.0.0.1", "localhost"}


@pytest.mark.usefixtures("no_refill")
async def test_tokens_with_unknown_keys_count_as_wrong_ones(tmp_path):
    jwks = write_jwks(tmp_path / "jwks.json", new_key("one"))
    config = AuthConfig(mode=REQUIRED, issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
    admission = Admission(Limits(requests_per_s=2), Security(config, Roles({}), {}))
    token = sign(new_key("two"), claims())
    for _ in range(2):
        with pytest.raises(TokenError, match="its key is unknown"):
            await admission.client("10.0.0.1").authenticate_now(token)
    with pytest.raises(LimitError):
        await admission.client("10.0.0.1").authenticate_now(token)


def test_who_authenticates_later_takes_its_connection_along(tmp_path):
    keys = Keys(tmp_path)
    admission = Admission(Limits(connections_of_client=1), keys.security())
    first, second = admission.client("10.0.0.1"), admission.client("10.0.0.2")
    with first.connected("x", ignore), second.connected("x", ignore):
        first.authenticate(keys["some"])
        assert admission.connections.of("10.0.0.1") == 0
        with pytest.raises(LimitError):
            second.authenticate(keys["some"])
        assert not second.is_authenticated
        with pytest.raises(TokenError, match="another principal"):
            first.authenticate(keys["all"])
    assert not admission.connections.here


async def test_log_lines_of_a_request_have_its_principal_and_not_that_of_the_one_before(tmp_path):
    keys = Keys(tmp_path)
    admission = Admission(Limits(), keys.security(OPTIONAL))

    async def handler(_request):
        return web.Response(text=PRINCIPAL.get())

    app = web.Application()
    enters = answering(handler, {}, admit=lambda each: enter(each, admission.client("x"), TOKEN))
    app.router.add_get("/", enters)
    async with TestClient(TestServer(app)) as client:
        for headers, name in ((bearer(keys["some"]), "key:some"), ({}, "")):
            async with client.get("/", headers=headers) as answer:
                assert await answer.text() == name
