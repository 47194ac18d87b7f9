"""Snapshots of books in sessions of the live gateway."""

from __future__ import annotations

import pytest

from mdtool.wire.live import Start
from tests.support.dbn_files import MAY_1, header, order, write
from tests.support.live_clients import BOTH_DAYS, client, gateway, session, texts, wants


async def test_the_book_in_priority_order_then_what_follows(tmp_path):
    orders = [
        order(1, MAY_1 + 1, "A", "B", 5, 1, 21),
        order(1, MAY_1 + 2, "A", "B", 6, 2, 22),
        order(2, MAY_1 + 3, "A", "B", 7, 3, 23),
        order(1, MAY_1 + 4, "A", "B", 6, 4, 24),
    ]
    path = write(tmp_path / "mbo.dbn", header({**BOTH_DAYS, "GOOG": {1: 3}}, "mbo"), *orders)
    async with (
        gateway(path, at_end="hold") as address,
        client(address) as first,
        client(address) as second,
    ):
        await first.login()
        first.send(wants("AAPL", schema="mbo"), Start())
        await first.until(lambda received: len(received) == 6)
        await second.login()
        second.send(wants("AAPL", schema="mbo", has_snapshot=True), Start())
        received = await second.until(lambda received: len(received) == 8)
        clear, *adds, end = received[3:]
        assert (str(clear.action), clear.flags) == ("R", 40)
        assert [each.order_id for each in adds] == [22, 24, 21]
        assert all((str(each.action), each.flags) == ("A", 32) for each in adds)
        assert end.flags & 128
        assert not end.flags & 32
        second.send(wants("MSFT", schema="mbo", has_snapshot=True))
        received = await second.until(lambda received: len(received) == 13)
        assert [each.order_id for each in received[-2:-1]] == [23]
        second.send(wants("GOOG", schema="mbo", has_snapshot=True))
        received = await second.until(lambda received: len(received) == 15)
        assert texts(received)[-1] == "GOOG = GOOG 3"


async def test_a_gateway_without_snapshots(tmp_path):
    path = write(tmp_path / "mbo.dbn", header(BOTH_DAYS, "mbo"), order(1, MAY_1, "A", "B", 5, 1))
    async with gateway(path, snapshots=False) as address:
        received = await session(address, wants("AAPL", schema="mbo"))
        *_, error = await session(address, wants("AAPL", schema="mbo", has_snapshot=True))
    assert texts(received)[-1] == "MBOMsg 1 0"
    assert error.err == "Invalid subscription: this gateway has no snapshots"


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (wants("AAPL", has_snapshot=True), "for schema mbo alone"),
        (wants("AAPL", schema="mbo", has_snapshot=True, start_ns=0), "excludes start"),
    ],
)
async def test_what_has_none(live_trades, request_, why):
    async with gateway(live_trades) as address:
        *_, error = await session(address, request_)
    assert why in error.err
