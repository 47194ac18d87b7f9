"""The changes of a market in the steps that are written."""

from __future__ import annotations

import pytest

from mdtool.adapters.stores.steps import Steps
from mdtool.core.trades import Reason
from mdtool.core.units import NS_PER_S
from mdtool.engine.live_bars import LiveBars
from mdtool.engine.market import Market
from mdtool.engine.saved_state import SavedState
from tests.reference.market import Tick, batch

NOON_NS = 1_735_214_400 * NS_PER_S


def tick(price: int, symbol: int = 0) -> Tick:
    return Tick(symbol, price, 1, NOON_NS + price, NOON_NS + price + 5)


@pytest.fixture
def market() -> Market:
    market = Market(LiveBars([NS_PER_S]), max_symbols=10, max_streams=10)
    market.restore(SavedState.empty())
    market.intern("AAPL")
    market.intern("MSFT")
    return market


def test_the_changes_of_a_stream_are_one_run_each_trade_with_its_own_sequence(market):
    steps = Steps(market)
    changes = [
        market.apply("a", 10, batch([tick(1), Reason.PRICE, tick(2)])),
        market.apply("b", 0, batch([tick(3, symbol=1)])),
        market.apply("a", 12, batch([tick(2), tick(4)])),  # the first was sent again
    ]

    step = steps.take(changes)

    a, b = step.runs
    assert (a.stream_id, a.first_sequence, a.next_sequence) == ("a", 10, 14)
    assert a.sequence.tolist() == [10, 12, 13]
    assert a.trades.price.tolist() == [1, 2, 4]
    assert (b.stream_id, b.first_sequence, b.next_sequence) == ("b", 0, 1)
    assert [step.symbols[index] for index in b.trades.symbol] == ["MSFT"]
    assert sorted(step.changed.tolist()) == [0, 1]
    assert step.counts["ticks"] == 4
    assert step.counts["duplicates"] == step.counts["refused.2"] == 1


def test_a_step_holds_what_changed_since_the_one_before(market):
    steps = Steps(market)
    steps.take([market.apply("a", 0, batch([tick(1), tick(2, symbol=1)]))])

    step = steps.take([market.apply("a", 2, batch([tick(3)]))])

    assert step.changed.tolist() == [0]
    assert step.sessions["count"].tolist() == [2]
    assert step.bars["symbol"].tolist() == [0]


def test_resent_frames_make_no_run(market):
    steps = Steps(market)
    steps.take([market.apply("a", 0, batch([tick(1)]))])

    step = steps.take([market.apply("a", 0, batch([tick(1)]))])

    assert list(step.runs) == []
    assert not len(step.changed)
    assert not len(step.bars)
    assert step.counts["duplicates"] == 1
