"""Tokens of clients that send frames: who may write what, and whose a stream is."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from mdtool.adapters.identity import api_keys
from mdtool.adapters.identity.config import OPTIONAL
from mdtool.core.addresses import parse_address
from mdtool.core.trades import PROBE, Reason
from mdtool.wire.frames import PROBE_FRAME, Ack, Resume, encode_auth, encode_hello
from tests.support.ingest_servers import Client, frame, frames, prices, serving
from tests.support.tokens import Keys
from tests.support.waiting import bounded


@pytest.fixture
def keys(tmp_path, monkeypatch):
    keys = Keys(tmp_path)
    keys.configure(monkeypatch)
    return keys


async def finish(address, *parts):
    client = await Client.connect(address)
    async with bounded():
        return await client.finish(b"".join(parts))


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (b"", "token: missing"),
        (encode_hello("s"), "token: missing"),
        (encode_auth(""), "token: "),
        (encode_auth("mdt_" + "A" * 43), "token: "),
        (encode_auth("x" * 16_000), "token: "),
        (encode_auth("x" * 100_000), "control frame of"),
        (encode_auth("\N{SNOWMAN}.a.b"), "token: "),
    ],
)
async def test_without_a_valid_token_nothing_is_taken(keys, ledger, address, opening, reason):
    client = await Client.connect(address)
    client.writer.write(opening + frames(1))
    async with bounded():
        ack = await client.last_reply()
    assert not ack.success
    assert ack.message.startswith(reason)
    assert "x" * 30 not in ack.message
    assert not ledger.count()


@pytest.mark.parametrize("role", ["all", "some", "denied", "elsewhere"])
async def test_a_principal_writes_the_symbols_of_its_roles(keys, ledger, address, role):
    named = [frame("AAPL"), frame("MSFT"), frame("aapl "), frame("SECRET9"), frame("AAPLX")]
    taken = {"all": 5, "some": 2, "denied": 3, "elsewhere": 0}[role]
    ack = await finish(address, encode_auth(keys[role]), *named)
    assert ack.success
    assert ack.message.startswith(f"Accepted {taken} tick")
    assert (f"{5 - taken} without permission" in ack.message) == (taken < 5)
    assert sum(price is not None for price in prices(ledger)) == taken


async def test_bytes_that_come_one_by_one_are_read_alike(keys, ledger, address):
    client = await Client.connect(address)
    renewal = encode_auth(keys["some"])
    for byte in encode_auth(keys["some"]) + encode_hello("s") + frames(1) + renewal + frames(1, 2):
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    async with bounded():
        ack = await client.finish()
    assert ack.message.startswith("Accepted 2 ticks, refused 0; stream 's'")


async def test_a_stream_is_of_the_principal_that_opened_it(keys, ledger, address):
    first = await Client.connect(address)
    first.writer.write(encode_auth(keys["all"]) + encode_hello("s"))
    async with bounded():
        assert await first.reply() == Resume(0)
        first.writer.write(frames(2))
        await first.committed(2)
        ack = await finish(address, encode_auth(keys["some"]), encode_hello("s"), frames(1))
        assert ack == Ack(False, "stream 's': belongs to another principal; use another id")
        first.writer.write(frames(1, first=3))
        await first.committed(3)
        first.vanish()
        ack = await finish(address, encode_auth(keys["some"]), encode_hello("s"))
        assert not ack.success
        again = await Client.connect(address)
        again.writer.write(encode_auth(keys["all"]) + encode_hello("s"))
        assert await again.reply() == Resume(3)
    assert ledger.prices("s") == [1, 2, 3]


@pytest.mark.parametrize(("role", "refused"), [("all", 0), ("some", 1), ("elsewhere", 1)])
async def test_a_probe_is_a_state_of_the_symbol_that_its_stream_is_called(
    keys, ledger, address, role, refused
):
    probe = encode_auth(keys[role]) + encode_hello("MSFT") + PROBE_FRAME
    ack = await finish(address, probe)
    assert ack.message.startswith(f"Accepted 0 ticks, refused {refused}")
    assert ("1 without permission" in ack.message) == bool(refused)
    assert ledger.reasons["MSFT"] == {0: Reason.SYMBOL if refused else PROBE}


async def test_a_stream_stays_its_principals_at_another_server(keys, ledger, aggregator):
    for role, expected in (("all", True), ("some", False), ("all", True)):
        async with serving(aggregator.address) as at, bounded():
            ack = await finish(parse_address(at), encode_auth(keys[role]), encode_hello("s"))
            assert ack.success is expected


async def test_a_revoked_key_ends_its_connections(keys, ledger, address):
    client = await Client.connect(address)
    client.writer.write(encode_auth(keys["all"]) + frames(1))
    async with bounded():
        await ledger.when(lambda: ledger.count() == 1)
        api_keys.revoke(keys.path, "all")
        ack = await client.last_reply()
    assert ack == Ack(False, "the token has expired, or is revoked")


async def test_a_newer_token_is_of_the_same_principal(keys, ledger, address):
    other = encode_auth(keys["some"])
    ack = await finish(address, encode_auth(keys["all"]), frames(1), other, frames(1))
    assert not ack.success
    assert "another principal" in ack.message


async def test_where_tokens_are_optional_others_have_the_role_anonymous(
    tmp_path, monkeypatch, ledger, aggregator
):
    keys = Keys(tmp_path)
    keys.configure(monkeypatch, OPTIONAL)
    async with serving(aggregator.address) as at:
        address = parse_address(at)
        ack = await finish(address, frames(1))
        assert ack.message.startswith("Accepted 0 ticks, refused 1")
        ack = await finish(address, encode_auth(keys["all"]), frames(1))
        assert ack.message.startswith("Accepted 1 tick")
    assert sum(price is not None for price in prices(ledger)) == 1


async def test_without_authentication_tokens_are_left_unread(ledger, address):
    ack = await finish(address, encode_auth("whatever"), frames(1))
    assert ack.message.startswith("Accepted 1 tick")


async def test_a_principal_sends_no_more_ticks_than_its_quota(keys, ledger, aggregator):
    keys.add_settings("[quotas.default]\nticks-per-s = 50\n")
    async with serving(aggregator.address) as at:
        address = parse_address(at)
        began_s = time.monotonic()
        async with bounded():
            acks = await asyncio.gather(
                *(finish(address, encode_auth(keys["all"]), frames(60)) for _ in range(2))
            )
        took_s = time.monotonic() - began_s
    assert [ack.message for ack in acks] == ["Accepted 60 ticks, refused 0"] * 2
    assert took_s > 1  # 50 ticks at once, and 70 at 50 a second


async def test_connections_beyond_a_quota_are_closed_with_the_reason(keys, ledger, aggregator):
    keys.add_settings("[quotas.default]\nconnections = 2\n")
    async with serving(aggregator.address) as at, bounded():
        address = parse_address(at)
        several = [await Client.connect(address) for _ in range(2)]
        further = await Client.connect(address)
        further.writer.write(encode_auth(keys["all"]) + frames(1))
        limit = "connection limit of 2 for one client reached"
        assert await further.last_reply() == Ack(False, f"{limit}; try again later")
        for client in several:  # of the principal from now on
            client.writer.write(encode_auth(keys["all"]) + frames(1))
        await ledger.when(lambda: ledger.count() == 2)
        ack = await finish(address, encode_auth(keys["all"]), frames(1))
        assert ack == Ack(False, limit)
        ack = await finish(address, encode_auth(keys["some"]), frames(1))
        assert ack.success


@pytest.mark.parametrize("opening", [b"", encode_hello("s")])
async def test_a_principal_sends_no_more_bytes_than_its_quota(keys, ledger, aggregator, opening):
    sent = frames(100)
    keys.add_settings(f"[quotas.default]\nbytes-per-s = {len(sent)}\n")
    async with serving(aggregator.address) as at:
        began_s = time.monotonic()
        client = await Client.connect(parse_address(at))
        async with bounded():
            client.writer.write(encode_auth(keys["all"]) + opening)
            for count in range(100, 600, 100):
                client.writer.write(sent)
                await ledger.when(lambda count=count: ledger.count() == count)
            ack = await client.finish()
        took_s = time.monotonic() - began_s
    assert ack.message.startswith("Accepted 500 ticks, refused 0")
    assert took_s > 1  # what is read behind the token: a second's worth at once, then a second's


async def test_another_principal_has_a_quota_of_its_own(keys, ledger, aggregator):
    keys.add_settings("[quotas.default]\nticks-per-s = 1\n")
    async with serving(aggregator.address) as at:
        address = parse_address(at)
        blocked = await Client.connect(address)
        blocked.writer.write(encode_auth(keys["all"]) + frames(1_000))
        async with bounded():
            await ledger.when(ledger.count)  # more than a second's
            ack = await finish(address, encode_auth(keys["denied"]), frame("AAPL"))
        assert ack.message.startswith("Accepted 1 tick")


async def test_log_lines_about_a_client_have_its_principal(keys, ledger, address, caplog):
    ack = await finish(address, encode_auth(keys["some"]), frame("AAPL", price=-1.0))
    assert ack.success
    about = [record for record in caplog.records if "refused" in record.getMessage()]
    assert {record.principal for record in about} == {"key:some"}


async def test_decisions_are_in_the_audit_log(keys, aggregator, tmp_path):
    file = tmp_path / "audit.jsonl"
    keys.add_settings(f"[audit]\nfile = {str(file)!r}\n")
    async with serving(aggregator.address) as at, bounded():
        address = parse_address(at)
        await finish(address, encode_auth(keys["some"]), frames(1), frame("MSFT"), frame("MSFT"))
        await finish(address, encode_auth("mdt_nobody"), frames(1))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["principal"], line["what"], line["allowed"]) for line in lines] == [
        ("key:some", "authenticate", True),
        ("key:some", "send ticks", False),
        ("anonymous", "authenticate", False),
    ]
