"""Quotas that several processes count together through a real redis-server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from http import HTTPStatus

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from redis.asyncio import Redis

from mdtool.core.addresses import parse_address
from mdtool.core.errors import ConfigError
from mdtool.core.permissions import NOTHING, Principal
from mdtool.services import usage
from mdtool.services.client import Admission
from mdtool.services.limits import LimitError, Limits
from mdtool.services.usage import CHANNEL, Usage, UsageExchange, keeping_current
from tests.reference.market_source import MarketSource
from tests.support.certificates import Certificates
from tests.support.feed_followers import bearer
from tests.support.gateways import Client, gateway_of
from tests.support.redis_servers import redis_server
from tests.support.services import logged, service
from tests.support.tokens import Keys
from tests.support.vwap_feeds import connected, vwap_feed
from tests.support.waiting import bounded

ANN, BEN = (Principal(name, NOTHING) for name in ("key:ann", "key:ben"))
ADDRESS, NETWORK = "203.0.113.7", "2001:db8::/64"
SOCKET = "/ws/marketdata?symbol=AAPL"
MOST = 2
FOR_EVER_S = 3_600.0


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch):
    """Publish what clients hold when it changes or is requested, and wait for who is silent."""
    monkeypatch.setattr(usage, "_HELD_EVERY_S", FOR_EVER_S)
    monkeypatch.setattr(usage, "_SILENT_S", FOR_EVER_S)


@pytest.fixture
async def server(tmp_path, monkeypatch):
    async with redis_server(tmp_path) as server:
        monkeypatch.setenv("MDTOOL_AUTH_QUOTAS_REDIS", server.url)
        yield server


@pytest.fixture
def keys(tmp_path, monkeypatch):
    keys = Keys(tmp_path)
    keys.configure(monkeypatch)
    return keys


@pytest.fixture
async def source():
    async with MarketSource().serving() as source:
        source.trade("AAPL", 187.25, 400)
        yield source


def ignore(_code, _reason):
    pass


@contextlib.asynccontextmanager
async def process(gateway: str | None = None, **quotas):
    """The admission of a process; `gateway` is the one whose worker it is."""
    admission = Admission(Limits(connections_of_client=MOST, **quotas))
    used = None if gateway is None else Usage(admission, gateway)
    async with bounded(), keeping_current(admission, used):
        yield admission


async def until(condition) -> None:
    async with bounded():
        while not condition():  # noqa: ASYNC110 - what others use is counted without an event
            await asyncio.sleep(0.005)


def holds(admission: Admission, identity: str = "principal key:ann") -> int:
    return admission.connections.of(identity)


class Observer:
    """Reads what processes publish, and makes sure of what they have received."""

    def __init__(self, client: Redis, channel) -> None:
        self.texts: list[bytes] = []
        self._client = client
        self._channel = channel

    async def until(self, condition) -> None:
        while True:
            message = await self._channel.get_message(ignore_subscribe_messages=True, timeout=60)
            if message is None:
                continue
            self.texts.append(message["data"])
            if condition():
                return

    def spent(self, rate: str) -> Counter:
        """What clients have spent of a rate."""
        total = Counter()
        for text in self.texts:
            message = json.loads(text)
            if message["op"] == "news":
                total.update(message["usage"].get(rate, {}))
        return total

    async def joined(self, processes: int) -> None:
        """Wait until so many processes exchange what clients use."""
        hello = b'"op": "hello"'
        await self.until(lambda: sum(hello in text for text in self.texts) == processes)
        await self.received(processes)

    async def received(self, processes: int) -> None:
        """Wait until so many processes have received all that was read here."""
        hello = {"source": "observer", "gateway": "", "op": "hello", "usage": {}}
        await self._client.publish(CHANNEL, json.dumps(hello))
        answers = iter(range(processes))
        await self.until(
            lambda: json.loads(self.texts[-1])["op"] == "held" and next(answers) == processes - 1
        )


@pytest.fixture
async def observer(server):
    async with Redis.from_url(server.url) as client, client.pubsub() as channel:
        await channel.subscribe(CHANNEL)
        assert (await channel.get_message(timeout=60))["type"] == "subscribe"
        yield Observer(client, channel)


@pytest.mark.usefixtures("no_refill")
@pytest.mark.parametrize("spend", ["spend_request", "spend_upstream"])
@pytest.mark.parametrize("principal", [ANN, None])
async def test_requests_count_at_every_process(observer, spend, principal):
    rates = {"requests_per_s": 3, "upstream_per_s": 3, "upstream_burst": 3}
    async with process(**rates) as one, process(**rates) as other:
        await observer.joined(2)
        clients = [each.client(ADDRESS, principal) for each in (one, other)]
        for _ in range(3):
            getattr(clients[0], spend)()
        rate = f"default/{spend.removeprefix('spend_').replace('request', 'requests')}"
        await observer.until(lambda: observer.spent(rate) == {clients[0].identity: 3})
        await observer.received(2)
        with pytest.raises(LimitError):
            getattr(clients[1], spend)()
        getattr(other.client(ADDRESS, BEN), spend)()


@pytest.mark.usefixtures("server")
async def test_connections_count_at_every_process_until_they_end():
    async with process() as one, process(connections=MOST) as other:
        with contextlib.ExitStack() as open_at_one:
            for _ in range(MOST):
                open_at_one.enter_context(one.client(ADDRESS, ANN).connected("x", ignore))
            await until(lambda: holds(other) == MOST)
            with pytest.raises(LimitError), other.client(ADDRESS, ANN).connected("x", ignore):
                pass
            # All connections of a service are those of its workers.
            assert len(other) == 0
            with other.client(ADDRESS, BEN).connected("x", ignore):
                assert len(other) == 1
        await until(lambda: not holds(other))
        with other.client(ADDRESS, ANN).connected("x", ignore):
            await until(lambda: holds(one) == 1)


@pytest.mark.usefixtures("server")
async def test_a_process_that_starts_later_knows_what_clients_hold():
    async with process() as one:
        with one.client(ADDRESS, ANN).connected("x", ignore):
            end = one.client(ADDRESS, ANN).subscribe()
            async with process() as other:
                await until(lambda: holds(other) == 1)
                await until(lambda: other.subscriptions.of("principal key:ann") == 1)
                end()
                await until(lambda: not other.subscriptions.of("principal key:ann"))


@pytest.mark.usefixtures("server")
async def test_a_process_that_stops_says_so():
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(process())
        async with process() as one:
            stack.enter_context(one.client(ADDRESS, ANN).connected("x", ignore))
            await until(lambda: holds(other) == 1)
        await until(lambda: not holds(other))


async def test_workers_of_one_gateway_count_each_other_once(observer):
    async with (
        process("/tmp/a") as worker,
        process("/tmp/a") as its_peer,
        process("/tmp/b") as other,
    ):
        await observer.joined(3)
        with worker.client(ADDRESS, ANN).connected("x", ignore):
            await until(lambda: holds(other) == 1)
            await observer.received(3)
            assert not holds(its_peer)  # who exchange it otherwise
        await until(lambda: not holds(other))


async def test_addresses_that_are_another_machines_elsewhere_are_not_shared(observer):
    hidden = ("127.0.0.1", "127.9.9.9", "::/64", "fe80::/64", "169.254.1.1", "localhost", "")
    hidden += ("unknown", "_hidden")
    async with process() as one, process() as other:
        await observer.joined(2)
        with contextlib.ExitStack() as stack:
            for address in (*hidden, ADDRESS, NETWORK):
                stack.enter_context(one.client(address).connected("x", ignore))
            await until(lambda: holds(other, ADDRESS) and holds(other, NETWORK))
            await observer.received(2)
            assert all(not holds(other, address) for address in hidden)
            for text in observer.texts:
                for used in json.loads(text)["usage"].values():
                    assert set(used) <= {ADDRESS, NETWORK}


async def test_messages_that_are_not_valid_are_left_out(server, observer, monkeypatch):
    exchanges = []
    enter = UsageExchange.__aenter__

    async def entered(exchange):
        exchanges.append(exchange)
        return await enter(exchange)

    monkeypatch.setattr(UsageExchange, "__aenter__", entered)
    good = {"source": "a", "gateway": "", "op": "news", "usage": {}}
    used = {"connections": {"principal key:ann": 1}}
    bad = [
        *(b"", b"\xff", b"{}", b"[]", b"null", b"[" * 100_000, b'{"source": 1}'),
        *(
            json.dumps({**good, **change}).encode()
            for change in (
                {"source": None},
                {"gateway": 7},
                {"op": "gone"},
                {"op": []},
                {"usage": []},
                {"usage": {"connections": []}},
                {"usage": {"connections": {"x": -1}}},
                {"usage": {"connections": {"x": 1.5}}},
                {"usage": {"connections": {"x": True}}},
                {"usage": {"default/requests": {"x": 1 << 60}}},
            )
        ),
    ]
    async with process() as one, Redis.from_url(server.url) as client:
        await observer.joined(1)
        for text in bad:
            await client.publish(CHANNEL, text)
        await client.publish(CHANNEL, json.dumps({**good, "usage": {"gold/other": {"x": 1}}}))
        await client.publish(CHANNEL, json.dumps({**good, "usage": used}))
        await until(lambda: holds(one) == 1)
        assert exchanges[0].malformed == len(bad)


async def test_each_process_counts_for_itself_while_the_server_is_unavailable(server):
    async with process() as one, process() as other, contextlib.AsyncExitStack() as stack:

        def open_at(admission, principal=ANN):
            stack.enter_context(admission.client(ADDRESS, principal).connected("x", ignore))

        open_at(one)
        await until(lambda: holds(other) == 1)
        with logged("mdtool.adapters.redis") as log:
            await server.kill()
            await log.heard("reconnecting")
            open_at(one)
            open_at(other, BEN)
            assert len(set(log.lines)) == len(log.lines)  # each reason once
            await server.start()
            await until(lambda: holds(other) == MOST and holds(one, "principal key:ben") == 1)
        with pytest.raises(LimitError):
            open_at(other)


async def test_a_process_starts_while_the_server_is_unavailable(server):
    await server.kill()
    with logged("mdtool.adapters.redis") as log:
        async with process() as one, contextlib.AsyncExitStack() as stack:
            with one.client(ADDRESS, ANN).connected("x", ignore):
                await log.heard("reconnecting")
                await server.start()
                other = await stack.enter_async_context(process())
                await until(lambda: holds(other) == 1)


async def test_a_user_without_rights_rejects_nobody_and_is_reported_once(server, monkeypatch):
    async with Redis.from_url(server.url) as client:
        rights = ("+@all", "~*", "&*", "-publish")
        await client.execute_command("ACL", "SETUSER", "mdtool", "on", ">secret", *rights)
        url = server.url.replace("//", "//mdtool:secret@")
        monkeypatch.setenv("MDTOOL_AUTH_QUOTAS_REDIS", url)
        with logged("mdtool.adapters.redis") as log:
            async with process() as one, process() as other:
                await log.has(2)  # of two processes
                with one.client(ADDRESS, ANN).connected("x", ignore):
                    assert all("publish" in line for line in log.lines)
                    assert not any("secret" in line for line in log.lines)
                    assert len(log.lines) == 2
                    await client.execute_command("ACL", "SETUSER", "mdtool", "+publish")
                    await until(lambda: holds(other) == 1)


async def test_through_tls(tmp_path, monkeypatch):
    certificates = Certificates(tmp_path / "certificates")
    async with redis_server(tmp_path, certificates) as server:
        url = f"{server.url}?ssl_ca_certs={certificates['ca.pem']}"
        monkeypatch.setenv("MDTOOL_AUTH_QUOTAS_REDIS", url)
        async with process() as one, process() as other:
            with one.client(ADDRESS, ANN).connected("x", ignore):
                await until(lambda: holds(other) == 1)


@pytest.mark.parametrize("url", ["redis:", "redis://", "http://host", "redis+sentinel://:x/a"])
async def test_a_url_that_is_not_valid_is_rejected(url, monkeypatch):
    monkeypatch.setenv("MDTOOL_AUTH_QUOTAS_REDIS", url)
    with pytest.raises(ConfigError, match=r"^\[auth\] quotas-redis: "):
        async with process():
            pass


async def statuses(client, token, count: int, path: str = "/api/v2/quotes") -> list[int]:
    found = []
    for _ in range(count):
        async with client.get(path, headers=bearer(token)) as response:
            found.append(response.status)
    return found


@pytest.mark.usefixtures("no_refill")
async def test_gateways_share_requests_and_bytes_of_a_principal(keys, observer, source):
    keys.add_settings(
        "[quotas.default]\nrequests-per-s = 3\n[quotas.slow]\nbytes-per-s = 300\n"
        "[roles.slow]\nread = ['*']\nquota = 'slow'\n"
    )
    slow = keys.make("slow", "slow")
    async with bounded(), gateway_of(source.address) as one, gateway_of(source.address) as other:
        await observer.joined(2)
        assert await statuses(one, keys["some"], 4) == [200, 200, 200, 429]
        await observer.until(lambda: observer.spent("default/requests").total() == 3)
        await observer.received(2)
        assert await statuses(other, keys["some"], 1) == [429]
        assert await statuses(other, keys["all"], 1) == [200]
        while await statuses(one, slow, 1) != [429]:
            pass
        await observer.until(lambda: observer.spent("slow/bytes").total() >= 300)
        await observer.received(2)
        assert await statuses(other, slow, 1) == [429]
    assert keys["some"] not in b"".join(observer.texts).decode()


async def refused(client, token, path: str = SOCKET) -> bool:
    """Whether the socket of a principal is rejected for the number of its connections."""
    try:
        async with client.ws_connect(path, headers=bearer(token)):
            return False
    except WSServerHandshakeError as error:
        if error.status != HTTPStatus.TOO_MANY_REQUESTS:
            raise
        return True


@pytest.mark.usefixtures("server")
async def test_sockets_of_a_gateway_that_is_killed_count_no_more(keys, source, monkeypatch):
    keys.add_settings("[quotas.default]\nconnections = 1\n")
    monkeypatch.setattr(usage, "_HELD_EVERY_S", 0.05)
    command = ("gateway", "--port", "0", "--aggregator", source.address)
    async with bounded(), gateway_of(source.address) as client:
        with service(*command) as other:
            async with ClientSession(f"http://{other.address}") as session:
                there = Client(session, *parse_address(other.address))
                async with there.ws_connect(SOCKET, headers=bearer(keys["some"])):
                    while not await refused(client, keys["some"]):
                        pass
                    assert not await refused(client, keys["all"])
                    other.process.send_signal(signal.SIGKILL)
                    other.process.wait()
                    assert await refused(client, keys["some"])
                    monkeypatch.setattr(usage, "_SILENT_S", 0.0)
                    while await refused(client, keys["some"]):
                        pass


@pytest.mark.usefixtures("server")
async def test_other_services_share_quotas_with_a_gateway(keys, source):
    keys.add_settings("[quotas.default]\nconnections = 1\n")
    async with (
        bounded(),
        gateway_of(source.address) as client,
        vwap_feed(source.address) as address,
        connected(address) as lines,
    ):
        lines.say(f"AUTH {keys['some']}")
        while not await refused(client, keys["some"]):
            pass
        assert not await refused(client, keys["all"])
