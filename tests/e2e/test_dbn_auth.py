"""Tokens on the ports of DBN and of order books: who may read which records, and start what."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import databento_dbn as dbn
import numpy as np
import pytest

from mdtool.adapters.dbn_tcp import connect_source
from mdtool.adapters.identity import api_keys
from mdtool.adapters.identity.config import OPTIONAL
from mdtool.adapters.quotes.dbn_stream import DbnQuotes
from mdtool.adapters.simulated import SimulatedSource
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.tcp import ReservedPort
from mdtool.engine.pacing import Pacer
from mdtool.engine.simulate import Exchange
from mdtool.services.live_gateway.server import LiveGateway
from mdtool.services.security import ENDED, Security
from mdtool.services.send.quotes import QuotePort
from mdtool.wire.dbn_session import End, FromLive, FromStart, Refused, Resume, encode_request
from mdtool.wire.live import Start
from tests.support import live_clients
from tests.support.book_services import Heard, connected, receiver_of, sender_of
from tests.support.dbn_files import MAY_1, header, mapping, order, write
from tests.support.tokens import ROLES, Keys
from tests.support.waiting import bounded

IDS = {"AAPL": 1, "MSFT": 2, "NEW": 3}
SEEN = {"all": {1, 2, 3}, "some": {1, 3}, "denied": {1, 3}}


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path)


@pytest.fixture
def day(tmp_path):
    """Orders of two symbols that the header names, and of one that is named later."""
    named = {name: {1: IDS[name]} for name in ("AAPL", "MSFT")}
    orders = [order(1 + n % 2, MAY_1 + n, "A", "B", 10, 1, n) for n in range(1, 201)]
    late = [order(3, MAY_1 + n, "A", "B", 10, 1, n) for n in range(201, 221)]
    return write(tmp_path / "day.dbn", header(named, "mbo"), *orders, mapping(3, "NEW"), *late)


@pytest.fixture
async def sender(keys, day, monkeypatch, request):
    """A sender that authenticates its receivers, and streams."""
    keys.configure(monkeypatch, getattr(request, "param", "required"))
    async with bounded(), sender_of(day) as http:
        headers = {"Authorization": f"Bearer {keys['all']}"}
        async with http.post("/start-streaming", headers=headers) as response:
            assert response.status == 200
        yield http


async def heard_by(address, request, token=""):
    async with connected(address, encode_request(request, token)) as receiver:
        heard = await receiver.hear(Heard())
        return heard, receiver.decoder.metadata


def replace(path, text):
    """Give a file of keys another content."""
    Path(path).write_text(text)


def ids(heard):
    return set(heard.all_records()["instrument_id"].tolist())


@pytest.mark.parametrize("role", SEEN)
async def test_a_receiver_gets_the_records_that_it_may_read(sender, keys, role):
    heard, metadata = await heard_by(sender.data, FromStart(), keys[role])
    orders = [each for each in heard.records if each.dtype.names[-1] == "sequence"]
    assert {*np.concatenate(orders)["instrument_id"].tolist()} == SEEN[role]
    assert ("MSFT" in metadata.symbols) == ("MSFT" in metadata.mappings) == (role == "all")
    n_records = sum(map(len, heard.records))
    assert (heard.begins[0].position, heard.last.position) == (0, n_records)
    assert isinstance(heard.last, End)


async def test_a_receiver_gets_no_more_bytes_than_its_quota(keys, day, monkeypatch):
    keys.configure(monkeypatch)
    keys.add_settings("[quotas.default]\nbytes-per-s = 5000\n")
    headers = {"Authorization": f"Bearer {keys['all']}"}
    async with bounded(), sender_of(day) as http:
        async with http.post("/start-streaming", headers=headers) as response:
            assert response.status == 200
        began_s = time.monotonic()
        heard, _ = await heard_by(http.data, FromStart(), keys["all"])
    assert isinstance(heard.last, End)
    assert time.monotonic() - began_s > 1  # 220 orders of 56 bytes, 5,000 of them at once


@pytest.mark.parametrize("role", SEEN)
async def test_a_snapshot_has_the_books_that_it_may_read(sender, keys, role):
    await heard_by(sender.data, FromStart(), keys["all"])  # until all is reached
    heard, _ = await heard_by(sender.data, FromLive(), keys[role])
    orders = [each for each in heard.records if "order_id" in (each.dtype.names or ())]
    assert {*np.concatenate(orders)["instrument_id"].tolist()} == SEEN[role]
    assert heard.begins[0].snapshot == sum(map(len, heard.records))


async def test_only_who_reads_everything_can_resume(sender, keys):
    heard, _ = await heard_by(sender.data, FromStart(), keys["all"])
    stream = heard.begins[0].stream
    whole, _ = await heard_by(sender.data, Resume(stream, 10), keys["all"])
    assert sum(map(len, whole.records)) == heard.last.position - 10
    part, _ = await heard_by(sender.data, Resume(stream, 10), keys["some"])
    assert part.last == Refused(
        "to resume takes every symbol; request from=start or from=live", is_final=True
    )


@pytest.mark.parametrize(
    "say",
    [
        b"from=start\n",
        b"auth=\nfrom=start\n",
        b"auth=mdt_nobody_x\nfrom=start\n",
        b"Authorization: Bearer mdt_secret\nfrom=start\n",
        b"auth=" + b"x" * 100_000 + b"\n",
        b"auth=a\nauth=b\nfrom=start\n",
    ],
    ids=range(6),
)
async def test_without_a_token_nothing_is_sent(sender, say):
    async with connected(sender.data, say) as receiver:
        heard = await receiver.hear(Heard())
    assert not heard.records
    assert isinstance(heard.last, Refused)
    assert "secret" not in heard.last.reason
    assert "x" * 30 not in heard.last.reason


async def test_a_plain_receiver_that_leaves_is_sent_nothing(sender):
    async with connected(sender.data) as receiver:
        receiver.writer.write_eof()
        heard = await receiver.hear(Heard())
    assert not heard.records
    assert "token: missing" in heard.last.reason


@pytest.mark.parametrize("sender", [OPTIONAL], indirect=True)
async def test_where_tokens_are_optional_a_role_decides(sender, keys):
    heard, _ = await heard_by(sender.data, FromStart())
    assert "none of your roles" in heard.last.reason
    assert not heard.records
    heard, _ = await heard_by(sender.data, FromStart(), keys["some"])
    assert isinstance(heard.last, End)


async def test_a_role_without_a_feed_of_records_reads_none(sender, keys):
    heard, _ = await heard_by(sender.data, FromStart(), keys["elsewhere"])
    assert "none of your roles has a feed of records" in heard.last.reason


async def test_a_revoked_key_ends_its_stream(keys, day, monkeypatch):
    keys.configure(monkeypatch)
    async with bounded(), sender_of(day, speed=1e-9) as http:
        headers = {"Authorization": f"Bearer {keys['all']}"}
        await http.post("/start-streaming", headers=headers)
        async with connected(http.data, encode_request(FromStart(), keys["some"])) as receiver:
            heard = await receiver.hear(Heard(), until=1)
            api_keys.revoke(keys.path, "some")
            await receiver.hear(heard)
        assert heard.last == Refused("the token has expired, or is revoked", is_final=True)


async def test_nothing_follows_the_end_of_a_revoked_key(keys, tmp_path, monkeypatch):
    """A receiver that is always a little behind is cut off, too."""
    keys.configure(monkeypatch)
    has_ended = asyncio.Event()
    monkeypatch.setattr("mdtool.services.replay.session._WRITE_AHEAD_BYTES", 1 << 23)
    monkeypatch.setattr(Security, "note", lambda *noted: ENDED in noted and has_ended.set())
    orders = b"".join(order(1, MAY_1 + n, "A", "B", 10, 1, n) for n in range(1_000))
    many = write(tmp_path / "many.dbn", header({"AAPL": {1: IDS["AAPL"]}}, "mbo"), orders * 400)
    async with bounded(), sender_of(many) as http:
        headers = {"Authorization": f"Bearer {keys['all']}"}
        await http.post("/start-streaming", headers=headers)
        request = encode_request(FromStart(), keys["some"])
        async with connected(http.data, request) as receiver:
            heard = await receiver.hear(Heard(), until=1)
            api_keys.revoke(keys.path, "some")
            await has_ended.wait()
            while data := await receiver.reader.read(1 << 14):
                assert not isinstance(heard.last, Refused)
                for message in receiver.decoder.feed(data):
                    heard.add(message)
                await asyncio.sleep(0)
    assert heard.last == Refused("the token has expired, or is revoked", is_final=True)
    assert sum(map(len, heard.records)) < 400_000


async def test_a_command_reads_a_sender_with_its_token(sender, keys):
    def read(token):
        with connect_source(*parse_address(sender.data), token) as source:
            return sum(len(batch) for batch in source)

    assert await asyncio.to_thread(read, keys["some"]) > 0
    with pytest.raises(PeerError, match="token: missing"):
        await asyncio.to_thread(read, "")


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "/start-streaming", "replay"),
        ("POST", "/stop-streaming", "replay"),
        ("POST", "/pause-streaming", "replay"),
        ("POST", "/resume-streaming", "replay"),
        ("POST", "/set-speed", "replay"),
        ("GET", "/status", "metrics"),
        ("GET", "/health", "metrics"),
    ],
)
async def test_rights_of_the_sender(sender, keys, method, path, right):
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer mdt_nobody_x"}, 401),
        ({"Authorization": f"Bearer {keys['some']}"}, 403),
    ):
        request = sender.get if method == "GET" else sender.post
        async with request(path, headers=headers) as response:
            assert response.status == status
            if status == 403:
                assert right in (await response.json())["message"]
    async with sender.get("/livez") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("role", SEEN)
async def test_a_reader_of_books_sees_its_own(sender, keys, monkeypatch, role):
    monkeypatch.setenv("MDTOOL_TOKEN", keys["all"])
    headers = {"Authorization": f"Bearer {keys['all']}"}
    seen = {name for name, number in IDS.items() if number in SEEN[role]}
    async with receiver_of(sender.data) as receiver:
        async with receiver.post("/start-processing", headers=headers) as response:
            assert response.status == 200
        async with receiver.get("/start-processing", headers=headers) as response:
            assert response.status == 405
        headers = {"Authorization": f"Bearer {keys[role]}"}
        for query in ("", "?symbols=AAPL,MSFT,NEW", "?last=true"):
            async with receiver.get(f"/order-book{query}", headers=headers) as response:
                lines = (await response.read()).splitlines()
            assert {json.loads(line)["symbol"] for line in lines} == seen
        async with receiver.get("/order-book") as response:
            assert response.status == 401
        async with receiver.get("/status", headers=headers) as response:
            assert response.status == (200 if role == "all" else 403)


async def test_books_that_are_hidden_are_not_in_the_status(sender, keys, monkeypatch):
    monkeypatch.setenv("MDTOOL_TOKEN", keys["all"])
    roles = {**ROLES, "watcher": {"read": ["AAPL"], "rights": ["metrics", "replay"]}}
    monkeypatch.setitem(ROLES, "watcher", roles["watcher"])
    keys.configure(monkeypatch)
    headers = {"Authorization": f"Bearer {keys.make('watcher', 'watcher')}"}
    async with receiver_of(sender.data) as receiver:
        await receiver.post("/start-processing", headers=headers)
        async with receiver.get("/order-book", headers=headers) as response:
            await response.read()  # to its end
        async with receiver.get("/status", headers=headers) as response:
            status = await response.json()
        assert {book["symbol"] for book in status["books"]} == {"AAPL"}


@pytest.mark.parametrize(("role", "seen"), [("all", {"AAPL", "MSFT"}), ("some", {"AAPL"})])
async def test_the_quotes_beside_ticks(keys, monkeypatch, role, seen):
    keys.configure(monkeypatch)
    symbols = ("MSFT", "AAPL")
    generated = Exchange(symbols).generate(4_000, "mbp-1")
    followed, has_come = {}, asyncio.Event()

    class First(SimulatedSource):
        def __iter__(self):
            yield self._resolver.batch(generated)

    def receive(quotes):
        followed.update((quote.symbol, quote) for quote in quotes)
        if "AAPL" in followed:
            has_come.set()

    with ReservedPort("127.0.0.1") as reserved:
        port = QuotePort(f"127.0.0.1:{reserved.port}")
        source = port.watch(First(Exchange(symbols), "mbp-1"))
        monkeypatch.setenv("MDTOOL_TOKEN", keys[role])
        async with bounded(), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(port.run(Pacer(0.0)))
            await asyncio.to_thread(lambda: [len(batch) for batch in source])
            following = tasks.create_task(DbnQuotes(port.address, receive).run())
            await has_come.wait()
            heard, _ = await heard_by(port.address, FromLive())
            assert "token: missing" in heard.last.reason
            serving.cancel()
            following.cancel()
    assert followed.keys() == seen


class TestLiveGateway:
    @pytest.fixture
    def roles(self, keys, monkeypatch, tmp_path):
        """A file with a key of each role, `KEY-role`, and one without any."""
        keys.configure(monkeypatch, "none")
        path = tmp_path / "live.txt"
        lines = [f"{role} {role:->32} {role}\n" for role in ROLES]
        path.touch(0o600)
        path.write_text("".join(lines) + f"plain {'plain':->32}\n")
        return str(path)

    @pytest.mark.parametrize(
        ("role", "seen"),
        [("all", {1, 2}), ("plain", {1, 2}), ("some", {1}), ("denied", {1})],
    )
    @pytest.mark.parametrize("symbols", [("ALL_SYMBOLS",), ("AAPL", "MSFT")])
    async def test_a_key_gets_the_symbols_of_its_roles(
        self, live_trades, roles, role, seen, symbols
    ):
        async with live_clients.gateway(live_trades, keys=roles) as address:
            received = await live_clients.session(
                address, live_clients.wants(*symbols), key=f"{role:->32}"
            )
        trades = [each for each in received if isinstance(each, dbn.TradeMsg)]
        assert {each.instrument_id for each in trades} == seen
        texts = live_clients.texts(received)
        is_named = any("MSFT = " in text for text in texts)
        assert is_named == (2 in seen)
        if symbols != ("ALL_SYMBOLS",):
            absent = "error 4: Failed to resolve symbol: MSFT"  # as of one that does not exist
            assert (absent in texts) == (2 not in seen)

    async def test_a_feed_that_no_role_has_is_rejected(self, live_trades, roles):
        async with live_clients.gateway(live_trades, keys=roles) as address:
            received = await live_clients.session(
                address, live_clients.wants("AAPL"), key=f"{'elsewhere':->32}"
            )
        assert "none of your roles has feed trades" in live_clients.texts(received)[-1]

    async def test_a_bare_stream_takes_every_symbol(self, live_trades, roles):
        async with live_clients.gateway(live_trades, keys=roles, bare=True) as address:
            assert len(await live_clients.session(address, key=f"{'all':->32}")) == 4
            with pytest.raises(EOFError, match="every symbol"):
                await live_clients.session(address, key=f"{'some':->32}")

    @pytest.mark.parametrize("left", ["", f"some {'some':->32} all\n"])
    async def test_a_session_ends_with_its_key(self, tmp_path, roles, left):
        played = live_clients.trades_apart(tmp_path, 1_000)
        async with (
            live_clients.gateway(played, keys=roles, speed=1e-9) as address,
            live_clients.client(address) as client,
            live_clients.client(address) as other,
            live_clients.client(address) as late,
        ):
            for each, role in ((client, "some"), (other, "all")):
                await each.login(f"{role:->32}")
                each.send(live_clients.wants("AAPL"), Start())
                await each.until(lambda received: len(received) > 2)
            replace(roles, "not\n")  # after which the last keys remain
            replace(roles, f"all {'all':->32} all\n{left}")
            last = (await client.rest())[-1]
            assert last.code == dbn.ErrorCode.API_KEY_DEACTIVATED
            assert last.err == "the key was removed, or has other roles now"
            with pytest.raises(EOFError, match="unknown key"):
                await late.login(f"{'plain':->32}")
            other.send(live_clients.wants("AAPL", id=9))
            await other.until(lambda received: "request 9" in str(live_clients.texts(received)))

    async def test_a_session_that_reads_nothing_ends_with_its_key(
        self, tmp_path, roles, monkeypatch
    ):
        has_ended, serve = asyncio.Event(), LiveGateway._serve

        async def serve_one(*arguments):
            await serve(*arguments)
            has_ended.set()

        monkeypatch.setattr(LiveGateway, "_serve", serve_one)
        monkeypatch.setattr("mdtool.services.live_gateway.session._CLOSE_S", 0.1)
        played = live_clients.trades_apart(tmp_path, 1_000)
        async with (
            live_clients.gateway(played, keys=roles, at_end="loop") as address,
            live_clients.client(address, receive_bytes=1 << 14) as client,
        ):
            await client.login(f"{'some':->32}")
            client.send(live_clients.wants("AAPL"), Start())
            await client.until(lambda received: len(received) > 3)
            replace(roles, "")
            await has_ended.wait()

    async def test_its_sessions_are_in_the_audit_log(self, live_trades, keys, roles, tmp_path):
        path = tmp_path / "audit.jsonl"
        keys.add_settings(f"[audit]\nfile = {str(path)!r}\n")
        async with live_clients.gateway(live_trades, keys=roles) as address:
            for role in ("some", "elsewhere"):
                request = live_clients.wants("AAPL")
                await live_clients.session(address, request, key=f"{role:->32}")
            with pytest.raises(EOFError):
                await live_clients.session(address, key="x" * 32)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        noted = [(each["principal"], each["what"], each.get("why", "")[:24]) for each in lines]
        assert noted == [
            ("some", "enter XNAS.ITCH", ""),
            ("elsewhere", "enter XNAS.ITCH", ""),
            ("elsewhere", "subscribe", "none of your roles has f"),
            ("anonymous", "enter XNAS.ITCH", "authentication failed: u"),
        ]
        assert {each["address"] for each in lines} == {"127.0.0.1"}
        assert "--------" not in path.read_text()

    @pytest.mark.parametrize("schema", ["bbo-1s", "ohlcv-1s", "ohlcv-1m"])
    @pytest.mark.parametrize("symbols", [("ALL_SYMBOLS",), ("AAPL", "MSFT")])
    async def test_an_id_that_gets_another_symbol_shows_nothing_of_the_one_before(
        self, tmp_path, roles, schema, symbols
    ):
        """A bar or a sample in which it does so has trades of both."""
        step_ns = 10**8
        renamed_ns = MAY_1 + 55 * step_ns
        traded = [
            order(2, MAY_1 + n * step_ns, action, side, 10, 1, n)
            for n in range(1, 101)
            for action, side in (("A", "B"), ("T", "A"))
        ]
        renaming = mapping(2, "AAPL", renamed_ns)
        names = header({"MSFT": {1: 2}}, "mbo")
        path = write(tmp_path / "day.dbn", names, *traded[:110], renaming, *traded[110:])
        async with live_clients.gateway(path, keys=roles) as address:
            request = live_clients.wants(*symbols, schema=schema)
            received = await live_clients.session(address, request, key=f"{'some':->32}")
        times = [each.ts_event for each in received if isinstance(each, dbn.BBOMsg | dbn.OHLCVMsg)]
        assert all(time_ns >= renamed_ns for time_ns in times)
        assert bool(times) == (schema != "ohlcv-1m")  # its only bar has trades of both

    async def test_its_control_needs_rights(self, live_trades, keys, monkeypatch):
        keys.configure(monkeypatch)
        async with live_clients.controlled(live_trades) as (_, control):
            assert (await control("GET", "/livez"))[0] == 200
            assert (await control("GET", "/status"))[0] == 401
            assert (await control("POST", "/faults"))[0] == 401
