"""Followers of trades, and the messages that they get."""

from __future__ import annotations

from mdtool.core.symbols import SymbolTable
from mdtool.services.aggregator import trade_publisher
from mdtool.services.aggregator.trade_publisher import TradePublisher


async def test_symbols_that_precede_an_answer_are_not_answers(monkeypatch):
    monkeypatch.setattr(trade_publisher, "_MAX_NAMES", 2)
    publisher = TradePublisher(SymbolTable(["A", "B", "C", "D", "E"]))
    with publisher.follow() as follower:
        follower.request(0)
        messages = [await anext(follower) for _ in range(3)]
    assert [list(message.new_symbols) for message in messages] == [["A", "B"], ["C", "D"], ["E"]]
    assert [bool(message.stream_id) for message in messages] == [True, True, False]


async def test_lots_come_once_to_each_follower_behind_their_symbols(monkeypatch):
    monkeypatch.setattr(trade_publisher, "_MAX_NAMES", 1)
    table = SymbolTable(["A", "B"])
    table.give_lot(1, 10_000)
    publisher = TradePublisher(table)
    with publisher.follow() as follower:
        follower.request(0)
        messages = [await anext(follower) for _ in range(2)]
        table.give_lot(0, 5)
        follower.request(0)
        messages.append(await anext(follower))
        follower.request(0)
        messages.append(await anext(follower))
    lots = [[(each.symbol, each.step) for each in message.new_lots] for message in messages]
    assert lots == [[], [(1, 10_000)], [(0, 5)], []]
