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
