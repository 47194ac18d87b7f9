"""Snapshots of books in sessions of the live gateway."""

from __future__ import annotations

import databento_dbn as dbn
import pytest

from mdtool.wire.live import Start
from tests.support.dbn_files import MAY_1, header, order, write
from tests.support.live_clients import ACK, BOTH_DAYS, client, gateway, session, texts, wants


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
        received = await second.until(lambda received: len(received) == 16)
        assert texts(received)[-2] == "GOOG = GOOG 3"
        clear = received[-1]
        assert (str(clear.action), clear.flags, clear.instrument_id) == ("R", 40 | 128, 3)


@pytest.mark.parametrize("symbol", ["AAPL", "ALL_SYMBOLS"])
async def test_books_without_orders(tmp_path, symbol):
    orders = [
        order(1, MAY_1 + 1, "A", "B", 5, 1, 21),
        order(1, MAY_1 + 2, "C", "B", 5, 1, 21),
    ]
    path = write(tmp_path / "mbo.dbn", header({"AAPL": {1: 1}, "MSFT": {1: 2}}, "mbo"), *orders)
    request = wants(symbol, schema="mbo", has_snapshot=True)
    async with gateway(path, at_end="hold") as address, client(address) as held:
        await held.login()
        held.send(request, Start())
        await held.until(lambda received: len(received) >= 2 + 2 * len(names(symbol)) + 2)
        first = books(held.received)
        held.send(request)
        n_before = len(held.received)
        await held.until(lambda received: len(received) >= n_before + 1 + 2 * len(names(symbol)))
        later = books(held.received[n_before:])
    empty = [(number, "R", 168) for number in names(symbol)]
    assert first[: len(empty)] == empty
    assert [action for _, action, _ in first[len(empty) :]] == ["A", "C"]
    assert later == empty


async def test_input_without_orders_has_no_books(live_trades):
    async with gateway(live_trades) as address:
        received = await session(address, wants("AAPL", schema="mbo", has_snapshot=True))
    assert texts(received)[1:] == [ACK.format(0, "mbo"), "AAPL = AAPL 1"]


def names(symbol: str) -> list[int]:
    """The ids that a symbol stands for."""
    return [1] if symbol == "AAPL" else [1, 2]


def books(received: list) -> list[tuple[int, str, int]]:
    orders = [each for each in received if isinstance(each, dbn.MBOMsg)]
    maybe_bad = 4  # the stream has begun without a snapshot
    return [(each.instrument_id, str(each.action), each.flags & ~maybe_bad) for each in orders]


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
