"""Webhooks: signed, retried, and refused where they lead inside the network."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from mdtool.core.errors import UsageError
from mdtool.services.alerts import webhooks
from mdtool.services.alerts.webhooks import SIGNATURE, OutsideResolver, Webhooks, is_outside
from mdtool.services.http.listening import listening
from tests.support.waiting import bounded

SECRET = "a key of the test"


class Hook:
    """A server whose answers a test chooses; 200 once they are used up."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = asyncio.Queue()

    async def answer(self, request):
        self.requests.put_nowait((dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if self.answers else 200
        if answer is None:
            await asyncio.Event().wait()
        headers = {"Location": "/elsewhere"} if 300 <= answer < 400 else {}
        return web.Response(status=answer, headers=headers)


@contextlib.asynccontextmanager
async def served(hook):
    app = web.Application()
    app.router.add_post("/alerts", hook.answer)
    app.router.add_route("*", "/elsewhere", hook.answer)
    async with listening(app, "127.0.0.1", 0) as address:
        yield f"http://{address}/alerts"


@contextlib.asynccontextmanager
async def running(*urls, allows_inside=True):
    hooks = Webhooks(urls, SECRET, allows_inside=allows_inside)
    task = asyncio.create_task(hooks.run())
    try:
        yield hooks
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(webhooks, "_FIRST_DELAY_S", 0.001)
    monkeypatch.setattr(webhooks, "_LONGEST_DELAY_S", 0.001)


async def counted(hooks, **counts):
    async with bounded():
        while any(  # noqa: ASYNC110 - counts have no event
            hooks.counts[name] < count for name, count in counts.items()
        ):
            await asyncio.sleep(0.005)
    assert {name: hooks.counts[name] for name in counts} == counts


async def test_requests_are_signed_over_their_time_and_body():
    hook = Hook()
    async with served(hook) as url, running(url) as hooks:
        hooks.publish(b'{"id":"jump:A:1"}')
        async with bounded():
            headers, body = await hook.requests.get()
        stamp, _, signed = headers[SIGNATURE].partition(",v1=")
        assert body == b'{"id":"jump:A:1"}'
        expected = hmac.new(SECRET.encode(), stamp[2:].encode() + b"." + body, hashlib.sha256)
        assert signed == expected.hexdigest()
        await counted(hooks, delivered=1)


@pytest.mark.usefixtures("at_once")
async def test_what_fails_for_a_while_is_sent_again_in_order():
    hook = Hook(500, 503, 429, 200)
    async with served(hook) as url, running(url) as hooks:
        hooks.publish(b"1")
        hooks.publish(b"2")
        await counted(hooks, delivered=2)
        bodies = [hook.requests.get_nowait()[1] for _ in range(5)]
        assert bodies == [b"1", b"1", b"1", b"1", b"2"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("status", "attempts"), [(302, 1), (404, 1), (500, webhooks.ATTEMPTS)])
async def test_redirects_are_not_followed_and_what_is_refused_is_not_repeated(status, attempts):
    hook = Hook(*[status] * attempts)
    async with served(hook) as url, running(url) as hooks:
        hooks.publish(b"1")
        hooks.publish(b"2")
        await counted(hooks, failed=1, delivered=1)
        assert hook.requests.qsize() == attempts + 1


@pytest.mark.usefixtures("at_once")
async def test_a_webhook_that_hangs_times_out_and_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(webhooks, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(webhooks, "MAX_WAITING", 3)
    hanging, quick = Hook(*[None] * 100), Hook()
    async with served(hanging) as slow_url, served(quick) as url, running(slow_url, url) as hooks:
        for number in range(3):
            hooks.publish(b"%d" % number)
        await counted(hooks, delivered=3)
        hooks.publish(b"3")
        await counted(hooks, dropped=1, delivered=4)
        await counted(hooks, failed=1)


@pytest.mark.usefixtures("at_once")
async def test_a_webhook_that_nobody_serves_fails():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with running(f"http://127.0.0.1:{port}/") as hooks:
        hooks.publish(b"1")
        await counted(hooks, failed=1)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.1.2.3", False),
        ("64:ff9b::a01:203", False),
        ("2002:a01:203::", False),
    ],
)
def test_which_addresses_are_outside_the_network(address, is_public):
    assert is_outside(address) == is_public


async def test_a_name_of_an_address_inside_is_refused_before_anything_is_sent(monkeypatch):
    hook = Hook()
    async with served(hook) as url:
        port = url.rpartition(":")[2]
        async with running(f"http://localhost:{port}", allows_inside=False) as hooks:
            hooks.publish(b"1")
            await counted(hooks, failed=1)
    assert hook.requests.empty()


async def test_one_address_inside_is_enough_to_refuse_a_name():
    class Names(AbstractResolver):
        async def resolve(self, host, port=0, family=0):
            found = ["93.184.216.34", *(["10.0.0.1"] if host == "mixed" else [])]
            return [{"host": address, "port": port} for address in found]

        async def close(self):
            pass

    resolver = OutsideResolver(Names())
    assert len(await resolver.resolve("public", 443)) == 1
    with pytest.raises(OSError, match=r"mixed is 10\.0\.0\.1"):
        await resolver.resolve("mixed", 443)


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("ftp://example.com/", SECRET, "not a valid URL"),
        ("https:///alerts", SECRET, "not a valid URL"),
        ("http://127.0.0.1/", SECRET, "--webhook-inside allows"),
        ("http://[::1]:80/", SECRET, "--webhook-inside allows"),
        ("https://example.com/", "", "webhook-secret"),
    ],
)
def test_urls_that_are_not_accepted(url, secret, message):
    with pytest.raises(UsageError, match=message):
        Webhooks([url], secret)
