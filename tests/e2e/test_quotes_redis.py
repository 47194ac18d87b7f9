"""Quotes through a real redis-server: what it keeps, and what becomes of them when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys

import pytest
from redis.asyncio import Redis

from mdtool.adapters import redis as channels
from mdtool.adapters.quotes import redis
from mdtool.adapters.quotes.port import TTL_S
from mdtool.adapters.quotes.redis import CHANNEL, RedisQuoteHub
from mdtool.core.errors import ConfigError, StartupError
from mdtool.wire.quotes import Quote, decode_quote, encode_quote
from tests.support.certificates import Certificates
from tests.support.redis_servers import redis_sentinel, redis_server
from tests.support.services import logged
from tests.support.waiting import WITHIN_S, bounded


class Heard:
    """The last quote that a hub told of each symbol."""

    def __init__(self, hub) -> None:
        self.last: dict[str, Quote] = {}
        self._news = asyncio.Event()
        hub.subscribe(self._take)

    def _take(self, quotes) -> None:
        self.last.update((quote.symbol, quote) for quote in quotes)
        self._news.set()

    async def until(self, condition):
        while not condition(self.last):
            self._news.clear()
            await self._news.wait()


def quote(number: int, symbol: str = "AAPL") -> Quote:
    return Quote(symbol, number * 10**9, None, None, number)


def has(wanted: Quote):
    return lambda last: last.get(wanted.symbol) == wanted


async def until(condition) -> None:
    async with bounded():
        while not condition():  # noqa: ASYNC110 - a hub tells of its connection by no event
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Let servers answer as late as a machine does that has enough else to do."""
    monkeypatch.setattr(channels, "_RESPONSE_S", WITHIN_S)
    monkeypatch.setattr(RedisQuoteHub.__init__, "__defaults__", (WITHIN_S,))


@pytest.fixture
async def server(tmp_path):
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def client(server):
    async with Redis.from_url(server.url) as client:
        yield client


async def test_the_last_quote_of_each_symbol_is_kept_for_a_time(server, client, monkeypatch):
    assert redis._TTL_MS == TTL_S * 1_000 == 2_000
    monkeypatch.setattr(redis, "_TTL_MS", 3_600_000)  # longer than any test
    hub = RedisQuoteHub(server.url)
    heard = Heard(hub)
    async with hub:
        hub.publish([quote(1), quote(2, "MSFT")])
        await heard.until(has(quote(2, "MSFT")))
        assert await client.get("quote:AAPL") == encode_quote(quote(1))
        for symbol in ("AAPL", "MSFT"):
            assert 3_000_000 < await client.pttl(f"quote:{symbol}") <= 3_600_000


async def test_a_quote_that_has_expired_is_sent_to_nobody(server, client, monkeypatch):
    monkeypatch.setattr(redis, "_TTL_MS", 3_600_000)
    early, late = RedisQuoteHub(server.url), RedisQuoteHub(server.url)
    heard_early, heard_late = Heard(early), Heard(late)
    async with early:
        early.publish([quote(1), quote(2, "MSFT")])
        await heard_early.until(has(quote(2, "MSFT")))
        await client.pexpire("quote:AAPL", 0)
        async with late:
            assert heard_late.last == {"MSFT": quote(2, "MSFT")}


async def test_quotes_are_published_on_the_channel_one_a_message(server, client):
    async with client.pubsub() as channel, RedisQuoteHub(server.url) as hub:
        await channel.subscribe(CHANNEL)
        assert (await channel.get_message(timeout=60))["type"] == "subscribe"
        hub.publish([quote(1), quote(2, "MSFT")])
        texts = [(await channel.get_message(timeout=60))["data"] for _ in range(2)]
        assert [decode_quote(text) for text in texts] == [quote(1), quote(2, "MSFT")]


async def test_many_hubs_share_what_any_of_them_publishes(server):
    hubs = [RedisQuoteHub(server.url) for _ in range(3)]
    heards = [Heard(hub) for hub in hubs]
    async with hubs[0], hubs[1], hubs[2]:
        for number, hub in enumerate(hubs, 1):
            hub.publish([quote(number, f"OF{number}")])
        for heard, number in itertools.product(heards, (1, 2, 3)):
            await heard.until(has(quote(number, f"OF{number}")))


async def test_who_comes_later_is_told_what_stands(server, monkeypatch):
    monkeypatch.setattr(redis, "_TTL_MS", 60_000)
    early, late = RedisQuoteHub(server.url), RedisQuoteHub(server.url)
    heard_early, heard_late = Heard(early), Heard(late)
    async with early:
        early.publish([quote(7)])
        await heard_early.until(has(quote(7)))
        async with late:
            assert heard_late.last == {"AAPL": quote(7)}


async def test_others_may_publish_and_nonsense_is_left_out(server, client):
    hub = RedisQuoteHub(server.url)
    heard = Heard(hub)
    await client.set("quote:BAD", b"\xff")
    await client.lpush("quote:LIST", b"1")
    await client.sadd("quote:", "BAD", "LIST", b"\xff", "GONE")
    async with hub:
        for text in (b"", b"\x00\xff", b"{}", b"x" * 100_000, encode_quote(quote(5))):
            await client.publish(CHANNEL, text)
        await heard.until(has(quote(5)))
        assert hub.malformed == 5
        assert hub.lost_because is None
        assert list(heard.last) == ["AAPL"]


async def test_a_server_killed_and_restarted_under_load_takes_no_listener_with_it(server):
    hub, other = RedisQuoteHub(server.url), RedisQuoteHub(server.url)
    heard, heard_by_other = Heard(hub), Heard(other)
    numbers = itertools.count(1)
    symbols = [f"SYMBOL{number}" for number in range(200)]

    async def load() -> None:
        for number in numbers:
            hub.publish([quote(number, symbol) for symbol in symbols])
            await asyncio.sleep(0.001)

    async with hub, other:
        loading = asyncio.create_task(load())
        for _ in range(3):
            known = next(numbers)
            await heard_by_other.until(lambda last, n=known: last and last["SYMBOL0"].ts_ms > n)
            await server.kill()
            await until(lambda: hub.lost_because is not None)
            lost_at = next(numbers)
            # While it is away, who publishes goes on being told.
            await heard.until(lambda last, n=lost_at: last["SYMBOL0"].ts_ms > n)
            await server.start()
            await until(lambda: hub.lost_because is None and other.lost_because is None)
        loading.cancel()
        last = next(numbers)
        hub.publish([quote(last, symbol) for symbol in symbols])
        for listener in (heard, heard_by_other):
            await listener.until(
                lambda told: all(told.get(symbol) == quote(last, symbol) for symbol in symbols)
            )
            assert set(listener.last) == set(symbols)


async def test_a_server_that_hangs_is_given_up_and_found_again(server, monkeypatch):
    monkeypatch.setattr(channels, "_RESPONSE_S", 2.0)
    hub = RedisQuoteHub(server.url)
    heard = Heard(hub)
    async with hub:
        server.process.send_signal(signal.SIGSTOP)
        try:
            hub.publish([quote(1)])
            await heard.until(has(quote(1)))  # told here, once nobody waits for the server
            assert hub.lost_because is not None
        finally:
            server.process.send_signal(signal.SIGCONT)
        await until(lambda: hub.lost_because is None)
        hub.publish([quote(2)])
        await heard.until(has(quote(2)))


async def test_a_server_that_is_away_at_the_start_is_waited_for(server):
    await server.kill()
    hub = RedisQuoteHub(server.url, start_s=60)
    opening = asyncio.create_task(hub.__aenter__())
    await until(lambda: hub.lost_because != "not connected yet")
    await server.start()
    await opening
    assert hub.lost_because is None
    await hub.__aexit__(None, None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_a_server_that_is_away_keeps_no_start_and_its_password_secret(host):
    with logged("mdtool.adapters") as log:
        hub = RedisQuoteHub(f"redis://user:secret@{host}:1", start_s=0.01)
        heard = Heard(hub)
        async with hub:
            hub.publish([quote(1)])
            await heard.until(has(quote(1)))
            await log.has(1)
            assert log.lines[0].startswith(f"redis {host}:1: ")
            assert log.lines[0].endswith("; reconnecting")
    assert "secret" not in "".join(log.lines)


async def test_a_server_that_comes_later_is_used(server):
    await server.kill()
    hub, other = RedisQuoteHub(server.url, start_s=0.01), RedisQuoteHub(server.url)
    heard = Heard(other)
    async with hub:
        await server.start()
        await until(lambda: hub.lost_because is None)
        async with other:
            hub.publish([quote(1)])
            await heard.until(has(quote(1)))


async def refused(url: str) -> str:
    """Open a hub that is refused at once; return why."""
    with logged("mdtool.adapters") as log, pytest.raises(StartupError) as raised:
        async with bounded():
            await RedisQuoteHub(url, start_s=3_600).__aenter__()
    assert log.lines == []
    assert "\n" not in str(raised.value)
    return str(raised.value)


async def test_a_server_that_lets_nobody_in_ends_the_start(server, client):
    await client.config_set("requirepass", "secret")
    assert "uthenticat" in await refused(server.url)
    assert "invalid username-password pair" in await refused(server.url.replace("//", "//:no@"))


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (("+@all", "~*", "resetchannels"), "channel"),
        (("+@all", "&*", "resetkeys"), "key"),
        (("+@all", "&*", "~*", "-smembers"), "smembers"),
    ],
)
async def test_a_user_without_rights_ends_the_start(server, client, rights, said):
    await client.execute_command("ACL", "SETUSER", "mdtool", "on", ">secret", *rights)
    error = await refused(server.url.replace("//", "//mdtool:secret@"))
    assert said in error
    assert error.endswith("its user needs the channel quotes and the keys quote:*")
    assert "secret" not in error


async def test_keys_of_others_are_not_searched(server, client):
    async with client.pipeline(transaction=False) as commands:
        for number in range(20_000):
            commands.set(f"foreign:{number}", b"1")
        await commands.execute()
    early, late = RedisQuoteHub(server.url), RedisQuoteHub(server.url)
    heard = Heard(early)
    async with early:
        early.publish([quote(1)])
        await heard.until(has(quote(1)))
        async with late:
            pass
    used = {name.removeprefix("cmdstat_") for name in await client.info("commandstats")}
    assert {"subscribe", "smembers", "mget"} <= used
    assert not used & {"scan", "keys", "sscan", "randomkey", "dbsize"}


async def connections(client) -> int:
    return (await client.info("stats"))["total_connections_received"]


@pytest.fixture
def _tried_often(monkeypatch):
    monkeypatch.setattr(redis, "_REFUSED_S", 0.01)


async def publish_until_accepted(hub, heard, first: int) -> None:
    async with bounded():
        for number in itertools.count(first):
            hub.publish([quote(number)])
            await heard.until(has(quote(number)))
            if hub.lost_because is None:
                return


@pytest.mark.usefixtures("_tried_often")
async def test_a_server_whose_memory_is_full_still_passes_quotes_on(server, client):
    hub, other = RedisQuoteHub(server.url), RedisQuoteHub(server.url)
    heard = Heard(other)
    async with hub, other:
        before = await connections(client)
        with logged("mdtool.adapters") as log:
            await client.config_set("maxmemory", 1)
            for number in range(1, 50):
                hub.publish([quote(number)])
                await heard.until(has(quote(number)))
            await until(lambda: hub.lost_because is not None)
            (line,) = log.lines
            assert line.startswith(f"{hub.address}: refuses quotes: ")
            assert "maxmemory" in line
            await client.config_set("maxmemory", 0)
            await publish_until_accepted(hub, heard, 50)
            assert log.lines[1:] == [f"{hub.address}: accepts quotes again"]
        assert await connections(client) == before


@pytest.mark.usefixtures("_tried_often")
async def test_quotes_that_may_not_be_published_reach_local_listeners(server, client):
    rights = ("+@all", "~*", "&*", "-publish", "-ping")
    await client.execute_command("ACL", "SETUSER", "mdtool", "on", ">secret", *rights)
    hub = RedisQuoteHub(server.url.replace("//", "//mdtool:secret@"))
    heard = Heard(hub)
    async with hub:
        before = await connections(client)
        with logged("mdtool.adapters") as log:
            for number in range(1, 50):
                hub.publish([quote(number)])
                await heard.until(has(quote(number)))
            assert len(log.lines) == 1
            assert "publish" in hub.lost_because
            await client.publish(CHANNEL, encode_quote(quote(7, "OTHERS")))
            await heard.until(has(quote(7, "OTHERS")))  # it still listens
            await client.execute_command("ACL", "SETUSER", "mdtool", "+publish")
            await publish_until_accepted(hub, heard, 50)
        assert await connections(client) == before


async def test_a_cancellation_that_is_lost_is_repeated(server, monkeypatch):
    hub = RedisQuoteHub(server.url)
    listen = hub._channel._listen

    async def forgetful(channel) -> None:
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await listen(channel)

    monkeypatch.setattr(hub._channel, "_listen", forgetful)
    async with bounded(), hub:
        pass


async def test_a_cancellation_that_is_repeated_leaves_no_connection(server, client, monkeypatch):
    monkeypatch.setattr(channels, "_CANCEL_S", 0)  # within the closing of connections
    for _ in range(5):
        async with RedisQuoteHub(server.url):
            pass
    await until_count(client, 1)


async def until_count(client, count: int) -> None:
    """Wait until the server has so many clients."""
    async with bounded():
        while len(await client.client_list()) != count:
            pass


@pytest.mark.parametrize("url", ["redis:", "redis://", "redis://host:port", "redis://h:99999"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="redis"):
        RedisQuoteHub(url)


async def test_without_its_client_it_says_what_to_install():
    program = (
        "import sys; sys.modules['redis.asyncio'] = None\n"
        "from mdtool.adapters.quotes import open_hub\n"
        "open_hub('redis://127.0.0.1')"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert b"the client of redis is not installed; pip install 'mdtool[redis]'" in told


@pytest.mark.parametrize("has_tls", [False, True])
async def test_sentinels_name_the_server_at_each_connection(tmp_path, has_tls):
    certificates = Certificates(tmp_path / "certificates") if has_tls else None
    options = f"?ssl_ca_certs={certificates['ca.pem']}" if has_tls else ""
    async with (
        bounded(),
        redis_server(tmp_path, certificates) as server,
        redis_sentinel(tmp_path, server) as sentinel,
        RedisQuoteHub(sentinel.url + options) as hub,
        RedisQuoteHub(server.url + options) as other,
    ):
        heard = Heard(other)
        hub.publish([quote(1)])
        await heard.until(has(quote(1)))
        await server.kill()
        await until(lambda: hub.lost_because and other.lost_because)
        await server.start()
        await until(lambda: not (hub.lost_because or other.lost_because))
        hub.publish([quote(2)])
        await heard.until(has(quote(2)))


async def test_a_server_of_another_authority_is_rejected_in_one_line(tmp_path):
    certificates = Certificates(tmp_path / "certificates")
    other = Certificates(tmp_path / "other")
    async with redis_server(tmp_path, certificates) as server:
        error = await refused(f"{server.url}?ssl_ca_certs={other['ca.pem']}")
        assert "certificate verify failed" in error
        assert error.endswith("name whom to trust as ssl_ca_certs")


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:1", "redis+sentinel://:x/quotes"])
def test_urls_of_sentinels_that_are_not_valid(url):
    with pytest.raises(ConfigError, match="not a valid URL"):
        RedisQuoteHub(url)
