"""Whether the bench of killed services would see what it looks for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mdtool.adapters.stores import open_store
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.bench.chaos import Plan, victims
from mdtool.bench.chaos_verdict import (
    SYMBOLS,
    Input,
    Traded,
    Verdict,
    judge_answer,
    judge_store,
)
from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Trades
from mdtool.core.units import PRICE_SCALE
from mdtool.engine.saved_state import SESSION
from mdtool.wire.dbn import DbnDecoder

TICKS = 5_000


@pytest.fixture
def fed():
    """Some input, in two parts."""
    ticks = Input(seed=1)
    ticks.next(TICKS // 2)
    ticks.next(TICKS // 2)
    return ticks


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/chaos.db"


def kept(url, inputs, *, sessions=None):
    """Store what a market would."""
    with open_store(url) as store:
        store.write(as_step(inputs, sessions or {s: of.session() for s, of in inputs.items()}))


def as_step(inputs, sessions):
    table = SymbolTable(SYMBOLS)
    bars = [of.bars() for of in inputs.values()]
    for symbol, own in zip(inputs, bars, strict=True):
        own["symbol"] = table.find(symbol)
    return Step(
        table,
        [run(number, table.find(symbol), of) for number, (symbol, of) in enumerate(inputs.items())],
        np.array([table.find(symbol) for symbol in sessions], np.uint32),
        np.array([session[()] for session in sessions.values()], SESSION),
        np.concatenate(bars),
    )


def run(number, symbol, traded):
    sequence = np.arange(len(traded))
    symbols = np.full(len(traded), symbol, np.uint32)
    columns = (traded.price, traded.volume, traded.timestamp, traded.timestamp)
    return StreamRun(f"s{number}", 0, len(traded), sequence, Trades(symbols, *columns))


def without(traded, *rows):
    columns = (traded.timestamp, traded.price, traded.volume)
    return Traded(*(np.delete(column, rows) for column in columns))


def test_the_same_seed_gives_the_same_ticks(fed):
    again = Input(seed=1)
    data = bytes(again.header()) + bytes(again.next(TICKS // 2)) + bytes(again.next(TICKS // 2))
    (records,) = DbnDecoder("test").feed(data)
    assert len(records) == TICKS == fed.ticks
    for symbol, traded in fed.traded().items():
        own = records[records["instrument_id"] == 1 + SYMBOLS.index(symbol)]
        assert own["price"].tolist() == traded.price.tolist()
        assert (np.diff(traded.timestamp) > 0).all()


def test_what_went_in_is_found(fed, url):
    kept(url, fed.traded())
    assert judge_store(url, fed.traded()) == Verdict()


def test_a_lost_tick_is_seen_wherever_it_lacks(fed, url):
    inputs = fed.traded()
    kept(url, {**inputs, "AAPL": without(inputs["AAPL"], 10, 11)})
    verdict = judge_store(url, inputs)
    assert (verdict.lost, verdict.double) == (2, 0)
    assert verdict.wrong > 0


def test_a_double_tick_is_seen(fed, url):
    inputs = fed.traded()
    kept(url, inputs)
    assert judge_store(url, {**inputs, "MSFT": without(inputs["MSFT"], 100)}).double == 1


def test_a_session_that_counts_twice_is_seen_though_the_trades_are_right(fed, url):
    inputs = fed.traded()
    sessions = {symbol: of.session() for symbol, of in inputs.items()}
    sessions["TSLA"]["count"] += 7
    sessions["TSLA"]["volume"] += 1
    kept(url, inputs, sessions=sessions)
    assert judge_store(url, inputs) == Verdict(lost=0, double=7, wrong=1)


def test_another_price_is_seen(fed, url):
    inputs = fed.traded()
    aapl = inputs["AAPL"]
    price = aapl.price.copy()
    price[5] = aapl.price.max()
    kept(url, {**inputs, "AAPL": Traded(aapl.timestamp, price, aapl.volume)})
    verdict = judge_store(url, inputs)
    assert (verdict.lost, verdict.double) == (0, 0)
    assert verdict.wrong > 0


def test_a_store_without_anything_has_lost_all(fed, url):
    assert judge_store(url, fed.traded()).lost == TICKS


def test_an_answer_of_the_gateway_is_compared_value_by_value(fed):
    traded = fed.traded()["AAPL"]
    session = traded.session()
    answer = {name: int(session[name]) / PRICE_SCALE for name in ("open", "high", "low", "close")}
    answer["volume"] = str(session["volume"])
    assert judge_answer(answer, traded) == 0
    assert judge_answer({**answer, "close": answer["close"] + 0.01, "volume": "1"}, traded) == 2


def test_the_same_seed_kills_the_same_services_in_the_same_order():
    services = ["serve-tcp", "aggregate", "vwap", "gateway"]
    plan = Plan(kills=40, seed=7, spared=frozenset({"serve-tcp"}))
    first = victims(plan, services)
    assert victims(plan, services[::-1]) == first
    assert {victim.name for victim in first} == {"aggregate", "vwap", "gateway"}
    assert victims(dataclasses.replace(plan, seed=8), services) != first
