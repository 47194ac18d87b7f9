"""Webhooks: signed, retried, and refused where they lead inside the network."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import ipaddress
import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver

from mdtool.core.errors import UsageError
from mdtool.services.alerts import webhooks
from mdtool.services.alerts.webhooks import SIGNATURE, Webhooks, is_outside
from mdtool.services.http.listening import listening
from tests.support.waiting import bounded

SECRET = "a key of the test"
FULL_WIDTH = "127.0.0.1".translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0127"})


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
        ("2002:7f00:1::", False),
        ("2002:808:808::", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::808:808", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:7f00:1", False),
        ("::ffff:8.8.8.8", True),
        ("::127.0.0.1", False),
        ("::", False),
        ("::ffff:0:7f00:1", False),
        ("fec0::1", False),
        ("fc00::1", False),
        ("ff0e::1", False),
        ("100::1", False),
        ("5f00::1", False),
        ("4000::1", False),
        ("2001::53aa:64c:0:7ffe:ff80:fffe", False),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("2606:2800:220:1::1%eth0", False),
        ("127.1", False),
        ("0177.0.0.1", False),
        ("0x7f000001", False),
        ("2130706433", False),
        ("134744072", True),
        ("172.16.0.1", False),
        ("172.32.0.1", True),
        ("192.168.1.1", False),
        ("192.0.0.8", False),
        ("192.0.0.10", False),
        ("192.0.2.1", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("100.63.255.255", True),
        ("100.127.255.255", False),
        ("100.128.0.0", True),
        ("233.252.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_which_addresses_are_outside_the_network(address, is_public):
    assert is_outside(address) == is_public


@pytest.mark.parametrize("text", ["", "example.com", "1.2.3.4.5", "1.2.3.256", "ß", FULL_WIDTH])
def test_a_name_is_no_address(text):
    with pytest.raises(ValueError, match="not an IP address"):
        is_outside(text)


async def test_a_name_of_an_address_inside_is_refused_before_anything_is_sent(monkeypatch):
    hook = Hook()
    async with served(hook) as url:
        port = url.rpartition(":")[2]
        async with running(f"http://localhost:{port}", allows_inside=False) as hooks:
            hooks.publish(b"1")
            await counted(hooks, failed=1)
    assert hook.requests.empty()


class Names(AbstractResolver):
    """What a name leads to, a list of addresses for each time that somebody resolves it."""

    def __init__(self, *answers):
        self._answers = list(answers)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        entry = {"hostname": host, "port": port, "family": family, "proto": 0, "flags": 0}
        return [{**entry, "host": address} for address in found]

    async def close(self):
        pass


@pytest.fixture
def named(monkeypatch):
    """Has names lead to some addresses, which are resolved for each request."""

    def name(*answers):
        connect = functools.partial(
            aiohttp.TCPConnector, resolver=Names(*answers), use_dns_cache=False, force_close=True
        )
        monkeypatch.setattr(aiohttp, "TCPConnector", connect)

    return name


@pytest.mark.usefixtures("at_once")
async def test_a_name_that_leads_inside_later_is_refused_then(named, monkeypatch):
    def is_first(address):  # 127.0.0.1 is outside here, 127.0.0.2 is inside: both are served
        return ipaddress.ip_address(address) == ipaddress.ip_address("127.0.0.1")

    monkeypatch.setattr(webhooks, "is_outside", is_first)
    named(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"])
    hook = Hook()
    app = web.Application()
    app.router.add_post("/", hook.answer)
    async with listening(app, "0.0.0.0", 0) as address:
        port = str(address).rpartition(":")[2]
        async with running(f"http://hook.example:{port}/", allows_inside=False) as hooks:
            hooks.publish(b"1")
            await counted(hooks, delivered=1)
            hooks.publish(b"2")
            await counted(hooks, failed=1, delivered=1)
            assert hook.requests.qsize() == 1
            hooks.publish(b"3")  # by the address outside
            await counted(hooks, failed=1, delivered=2)
    peers = [hook.requests.get_nowait()[0]["Host"] for _ in range(2)]
    assert peers == [f"hook.example:{port}"] * 2


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "0",
            "localhost",
        ),
        *(FULL_WIDTH, "127。0。0。1", "①②⑦.⓪.⓪.①"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
    ],
)
async def test_no_notation_of_a_host_leads_inside(host):
    hook = Hook()
    async with served(hook) as url:
        port = url.rpartition(":")[2].removesuffix("/alerts")
        # As an address at once, as a name once it is resolved.
        with contextlib.suppress(UsageError):
            async with running(f"http://{host}:{port}/alerts", allows_inside=False) as hooks:
                hooks.publish(b"1")
                await counted(hooks, failed=1)
    assert hook.requests.empty()


async def test_a_connection_is_refused_whatever_its_url_says(monkeypatch):
    monkeypatch.setattr(webhooks._Webhook, "check_outside", lambda _: None)
    hook = Hook()
    async with served(hook) as url, running(url, allows_inside=False) as hooks:
        hooks.publish(b"1")
        await counted(hooks, failed=1)
    assert hook.requests.empty()


async def test_an_address_that_the_client_does_not_take_is_not_tried_again(caplog):
    async with running("http://127.1/") as hooks:
        hooks.publish(b"1")
        hooks.publish(b"2")
        await counted(hooks, failed=2)  # at once: there is no pause
    assert "not a canonical IPv4 address" in caplog.text


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("ftp://example.com/", SECRET, "not a valid URL"),
        ("https:///alerts", SECRET, "not a valid URL"),
        ("https://[::1/", SECRET, "not a valid URL"),
        ("https://example.com:99999/", SECRET, "not a valid URL"),
        ("https://example.com:port/", SECRET, "not a valid URL"),
        ("http://127.0.0.1/", SECRET, "--webhook-inside allows"),
        ("http://[::1]:80/", SECRET, "--webhook-inside allows"),
        ("https://example.com/", "", "webhook-secret"),
    ],
)
def test_urls_that_are_not_accepted(url, secret, message):
    with pytest.raises(UsageError, match=message):
        Webhooks([url], secret)
