"""A store in MongoDB: failures of single commands, other databases, and limits of documents."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading

import bson
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import numpy as np
import pymongo
import pytest

from mdtool.adapters.stores import open_history, open_store
from mdtool.adapters.stores.errors import (
    StoreFormatError,
    StoreRefusedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.mongodb import commits
from mdtool.core.errors import EXIT_STARTUP, ConfigError
from mdtool.engine.saved_state import SESSION_LENGTH
from tests.support import store_proxies
from tests.support.commands import completed
from tests.support.mongodb_servers import mongodb_server, shared_server
from tests.support.store_proxies import MongoProxy
from tests.support.stores import MS, NOON_NS, run, step, until_taken
from tests.support.stream_writer import SYMBOLS, frames

SECOND_NS = 10**9
FAILURES = {
    "lost answer": store_proxies.lost_answer,
    "silence": store_proxies.silence,
    "not primary": store_proxies.rejected(10107),
    "stepped down": store_proxies.interrupted(11602),
    "not replicated": store_proxies.not_replicated,
}


@pytest.fixture
def url():
    return shared_server().new_url()


@pytest.fixture
def database(url):
    """The database of the store, as other programs see it."""
    with pymongo.MongoClient(url) as client:
        yield client.get_default_database()


@pytest.fixture
def proxy():
    with MongoProxy(shared_server().port) as proxy:
        yield proxy


def through(proxy, url):
    """The URL of a store behind a proxy, whose client gives up what is silent."""
    return url.replace(str(shared_server().port), str(proxy.port)) + "?socketTimeoutMS=500"


def whole_step(number):
    """A step that changes whatever steps change, as the one before it did."""
    start_ns, trades = NOON_NS + number * SECOND_NS, 4 * (number + 1)
    times = [start_ns + n * MS for n in range(4)]
    values = (1, 2, 3, 4, 5, trades)
    return step(
        ["AAPL", f"NEW{number}"],
        run("whole", number * 4, [(n % 2, n, n + 1, at_ns) for n, at_ns in enumerate(times)]),
        run(f"new-{number}", 0, [(0, 1, 1, start_ns)]),
        run("part", 0, [(0, n, 1, at_ns) for n, at_ns in enumerate(times)] * 2, is_part=True),
        sessions={0: (*values, start_ns, start_ns)},
        bars=[
            (0, SECOND_NS, 0, NOON_NS, *values, start_ns, start_ns),
            (0, SECOND_NS, 0, start_ns, *values, start_ns, start_ns),
            (0, SECOND_NS, 1, start_ns + SECOND_NS, *values, start_ns, start_ns),
            (0, SESSION_LENGTH, 0, start_ns, *values, start_ns, start_ns),
        ],
        counts={"ticks": trades},
        lots={1: 10},
    )


def contents(url, count):
    """All that a store has after a number of those steps."""
    with open_store(url) as store:
        state = store.load(100, 10**15)
        assert store.recount() == []
        assert state.counts == {"ticks": 4 * count}
        names = {each.number: each.stream_id for each in store.streams()}
        return (
            store.symbols(),
            [
                (symbol, names[stream], sequence, price)
                for symbol in ("AAPL", "NEW0")
                for page in store.trades(symbol)
                for stream, sequence, price in zip(
                    page.stream.tolist(),
                    page.sequence.tolist(),
                    page.trades.price.tolist(),
                    strict=True,
                )
            ],
            (state.symbols, state.positions, state.lots),
            (state.sessions.tolist(), state.bars.tolist()),
        )


@pytest.mark.parametrize("failure", FAILURES)
def test_whichever_write_of_a_step_fails_the_step_enters_once(proxy, url, failure, monkeypatch):
    monkeypatch.setattr(commits, "_PART_BYTES", 600)
    with contextlib.ExitStack() as stack:
        store = open_store(through(proxy, url))
        until_taken(lambda: stack.enter_context(store))
        until_taken(lambda: store.write(whole_step(0)))
        for number in itertools.count(1):
            proxy.cuts = 0
            proxy.fail_write(FAILURES[failure], number - 1)
            until_taken(lambda number=number: store.write(whole_step(number)))
            if not proxy.cuts:
                break
    assert number > 10
    undisturbed = shared_server().new_url()
    with open_store(undisturbed) as store:
        for each in range(number + 1):
            store.write(whole_step(each))
    assert contents(url, number + 1) == contents(undisturbed, number + 1)


class DiedError(Exception):
    """A writer ends in the middle of a step."""


def finished_by_another(database, change, monkeypatch):
    """Commit a change whose writer dies then; return the largest document, and what is applied."""
    applied, really_apply = [], commits.apply

    def die(*_):
        raise DiedError

    def record(database, number, change):
        applied.append(change)
        really_apply(database, number, {})

    writer, other = commits.Commits("here"), commits.Commits("here")
    writer.create(database)
    head = writer.settled(database)
    monkeypatch.setattr(commits, "apply", die)
    with pytest.raises(DiedError):
        writer.commit(database, head, change)
    documents = [*database.parts.find(), *database.market.find()]
    monkeypatch.setattr(commits, "apply", record)
    monkeypatch.setattr(commits, "_PATIENCE_S", 0)
    assert other.settled(database).number == head.number + 1
    monkeypatch.setattr(commits, "apply", really_apply)
    assert list(database.parts.find()) == []
    assert "payload" not in database.market.find_one()
    (only,) = applied
    return max(len(bson.encode(each)) for each in documents), only


def test_a_change_of_any_size_is_joined_from_its_parts(database, monkeypatch):
    monkeypatch.setattr(commits, "_PART_BYTES", 1_000)
    around = len(bson.encode({"trades": b""}))
    for size in (500, 999, 1_000, 1_001, 1_999, 2_000, 2_001, 3_000, 7_654):
        change = {"trades": bytes(n % 251 for n in range(size - around))}
        largest, applied = finished_by_another(database, change, monkeypatch)
        assert applied == change
        assert largest < 2_000


def test_a_change_that_is_larger_than_a_document_may_be_is_joined_too(database, monkeypatch):
    change = {"trades": np.random.default_rng(0).bytes(20 << 20)}
    largest, applied = finished_by_another(database, change, monkeypatch)
    assert applied == change
    assert largest < 16 << 20


def test_a_silent_server_times_out_and_is_used_again():
    with mongodb_server() as server, contextlib.ExitStack() as stack:
        url = server.new_url()
        store = stack.enter_context(open_store(url))
        store.write(step(SYMBOLS, frames("a", 0, 10)))
        options = "?socketTimeoutMS=300&connectTimeoutMS=300&serverSelectionTimeoutMS=300"
        hasty = open_store(url + options)
        until_taken(lambda: stack.enter_context(hasty))
        server.pause()
        try:
            for opened in (hasty, stack.enter_context(open_history(url + options))):
                with pytest.raises(StoreUnavailableError, match="timed out"):
                    opened.symbols()
            with pytest.raises(StoreUnavailableError, match="timed out"):
                hasty.write(step(SYMBOLS, frames("a", 10, 10)))
        finally:
            server.resume()
        until_taken(lambda: hasty.write(step(SYMBOLS, frames("a", 10, 10))))
        assert store.position("a") == 20
        assert store.recount() == []


def test_a_database_of_another_program_is_left_alone(database, url):
    database.accounts.insert_one({"_id": 1, "owner": "somebody"})
    database.trades.insert_one({"_id": 1})
    message = r"other collections .*\(accounts, trades\); name another database"
    with pytest.raises(StoreFormatError, match=message) as raised, open_store(url):
        pass
    assert raised.value.exit_code == EXIT_STARTUP
    assert sorted(database.list_collection_names()) == ["accounts", "trades"]


def test_a_market_of_another_program_is_left_alone(database, url):
    database.market.insert_one({"_id": "fish"})
    with (
        pytest.raises(StoreFormatError, match=r"\(market\); name another database"),
        open_store(url),
    ):
        pass
    assert list(database.market.find()) == [{"_id": "fish"}]


def test_a_newer_version_is_rejected(database, url):
    with open_store(url) as store:
        database.market.update_one({}, {"$set": {"version": 2}})
        for opened in (open_store(url), open_history(url)):
            with (
                pytest.raises(StoreFormatError, match="version 2, and this mdtool knows 1"),
                opened,
            ):
                opened.symbols()
        del store


def test_documents_of_another_program_are_damage(database, url):
    with open_store(url) as store:
        store.write(step(SYMBOLS, frames("a", 0, 10)))
        database.trades.insert_one({"_id": 1, "price": "much"})
        with pytest.raises(StoreFormatError, match="is damaged; restore it from a copy"):
            store.recount()


@pytest.mark.parametrize("code", [13, 18])
def test_a_user_whom_the_server_rejects_is_final(proxy, url, code):
    proxy.fail(store_proxies.rejected(code), lambda each: "find" in each or "saslStart" in each)
    credentials = "user:s3cret@" if code == 18 else ""
    rejected = through(proxy, url).replace("//", f"//{credentials}") + "&authSource=admin"
    for opened in (open_store(rejected), open_history(rejected)):
        with pytest.raises(StoreRefusedError) as raised, opened:
            opened.symbols()
        assert raised.value.exit_code == EXIT_STARTUP
    ended = completed("aggregate", "--port", "0", "--store", rejected)
    assert ended.returncode == EXIT_STARTUP
    *_, line = ended.stderr.decode().splitlines()
    assert line.startswith("mdtool: mongodb 127.0.0.1:")
    assert b"s3cret" not in ended.stderr + ended.stdout
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mongodb://", "not a valid MongoDB URL"),
        ("mongodb://host", "names no database"),
        ("mongodb://host/", "names no database"),
        ("mongodb://host/a.b", "names no database"),
        ("mongodb://user:s3cret@other@host/market", "not a valid MongoDB URL"),
        ("mongodb://user:s3cret@host:0x10/market", "not a valid MongoDB URL"),
        ("mongodb+srv://user:s3cret@host.a.b:1/market", "one host, without a port"),
        ("mongodb+srv://user:s3cret@host.a.b,other.a.b/market", "one host, without a port"),
        ("mongodb+srv://user:s3cret@host.a.b", "names no database"),
        ("mongodb://user:s3cret@host/market?socketTimeoutMS=soon", "not a valid MongoDB URL"),
        ("mongodb://user:s3cret@host/market?mirror=by_time", "an option that is not valid"),
    ],
)
def test_a_url_that_is_not_valid_is_rejected_without_its_password(url, reason):
    for opening in (open_store, open_history):
        with pytest.raises(ConfigError, match=reason) as raised:
            opening(url)
        assert "s3cret" not in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_a_host_that_is_not_found_is_an_unavailable_store(scheme):
    url = f"{scheme}://user:s3cret@no-such-host.invalid/market?serverSelectionTimeoutMS=100"
    with (
        pytest.raises(StoreUnavailableError, match=r"no-such-host\.invalid") as raised,
        open_store(url),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


class Names(threading.Thread):
    """A DNS server that has the host and the port of one database, as `mongodb+srv` asks."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._answer = f"0 0 {port} 127.0.0.1."
        self.port = self._socket.getsockname()[1]

    def run(self) -> None:
        while (received := self._socket.recvfrom(4096))[0]:
            query = dns.message.from_wire(received[0])
            reply = dns.message.make_response(query)
            (asked,) = query.question
            if asked.rdtype != dns.rdatatype.SRV:
                pass  # which is no option in TXT
            elif asked.name.to_text() == "_mongodb._tcp.market.0.0.1.":
                reply.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "SRV", self._answer))
            else:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            self._socket.sendto(reply.to_wire(), received[1])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", ("127.0.0.1", self.port))
        self.join()
        self._socket.close()


def test_hosts_are_looked_up_in_dns(monkeypatch):
    names = Names(shared_server().port)
    names.start()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], names.port
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    # The parent of a host's address, so that it needs no other server of names.
    url = shared_server().new_url().replace(f"127.0.0.1:{shared_server().port}", "market.0.0.1")
    url = url.replace("mongodb:", "mongodb+srv:") + "?tls=false&srvServiceName=mongodb"
    with contextlib.closing(names):
        with open_store(url) as store, open_history(url) as history:
            assert store.address.startswith("mongodb+srv market.0.0.1/test")
            store.write(step(SYMBOLS, frames("a", 0, 10)))
            assert [each.trade_count for each in history.symbols()] == [5, 5]
        unknown = url.replace("market.0.0.1", "user:s3cret@other.0.0.1")
        message = r"^mongodb\+srv other\.0\.0\.1/test\w+: The DNS query name does not exist"
        with pytest.raises(StoreUnavailableError, match=message), open_store(unknown):
            pass
