"""What a store and a gateway hold after chaos, beside what they should hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import Store, open_store
from mdtool.bench.chaos_input import BAR_NS, Traded
from mdtool.core.units import PRICE_SCALE
from mdtool.engine.sessions import SESSION

_EVERY: Final = 1 << 31
"""More bars than there are."""
_PRICES: Final = ("open", "high", "low", "close")
_INGESTED: Final = "ingest_timestamp"


@dataclass(slots=True)
class Verdict:
    """Differences, summed over symbols.

    Attributes
    ----------
    lost, double : int
        Ticks that are missing or too many, in the raw trades, the totals, the sessions or the bars,
        wherever most are.
    wrong : int
        Prices, volumes and times that differ.
    """

    lost: int = 0
    double: int = 0
    wrong: int = 0

    def add(self, other: Verdict) -> None:
        """Add what another found."""
        self.lost += other.lost
        self.double += other.double
        self.wrong += other.wrong


def judge_store(url: str, inputs: Mapping[str, Traded]) -> Verdict:
    """Compare all that a store holds with what went in."""
    verdict = Verdict()
    with open_store(url) as store:
        totals = {each.symbol: each for each in store.symbols()}
        state = store.load(1, 0)
        sessions = dict(zip(state.symbols, state.sessions, strict=True))
        verdict.wrong += len((set(totals) | set(sessions)) - set(inputs))
        for symbol, traded in inputs.items():
            of = Verdict()
            if symbol in totals:
                _count(of, totals[symbol].trade_count, len(traded))
                of.wrong += totals[symbol].last_trade_at_ns != int(traded.timestamp[-1])
            _judge_trades(of, stored_trades(store, symbol), traded)
            _judge_session(of, sessions.get(symbol, np.zeros((), SESSION)), traded)
            own = (state.bars["interval_ns"] == BAR_NS) & (state.bars["is_open"] == 1)
            own &= np.array(
                [state.symbols[place] == symbol for place in state.bars["symbol"]], bool
            )
            closed = store.bars(symbol, BAR_NS, _EVERY)[::-1]
            _judge_bars(of, np.concatenate([closed, state.bars[own]]), traded)
            verdict.add(of)
    return verdict


def stored_trades(store: Store, symbol: str) -> Traded:
    """Return all trades that a store has of a symbol."""
    parts = [Traded(page.timestamp, page.price, page.volume) for page in store.trades(symbol)]
    return Traded.concatenate(parts)


def judge_answer(answer: Mapping[str, Any], traded: Traded) -> int:
    """Return how many values of the gateway's aggregate are not those of the input."""
    session = traded.session()
    prices = [round(answer[name] * PRICE_SCALE) for name in _PRICES]
    pairs = zip(
        [*prices, int(answer["volume"])], session[[*_PRICES, "volume"]].tolist(), strict=True
    )
    return sum(found != expected for found, expected in pairs)


def _count(verdict: Verdict, found: int, expected: int) -> None:
    verdict.lost = max(verdict.lost, expected - found)
    verdict.double = max(verdict.double, found - expected)


def _judge_trades(verdict: Verdict, stored: Traded, traded: Traded) -> None:
    """Match trades by their times, of which the input has none twice."""
    place = np.searchsorted(traded.timestamp, stored.timestamp)
    place = np.minimum(place, len(traded) - 1)
    known = traded.timestamp[place] == stored.timestamp
    times = np.bincount(place[known], minlength=len(traded))
    verdict.lost = max(verdict.lost, int((times == 0).sum()))
    twice = int(np.maximum(times - 1, 0).sum())
    verdict.double = max(verdict.double, twice + int((~known).sum()))
    for name in ("price", "volume"):
        differs = getattr(stored, name)[known] != getattr(traded, name)[place[known]]
        verdict.wrong += int(differs.sum())


def _judge_session(verdict: Verdict, stored: NDArray[np.void] | np.void, traded: Traded) -> None:
    expected = traded.session()
    _count(verdict, int(stored["count"]), len(traded))
    names = [name for name in SESSION.names or () if name not in {_INGESTED, "count"}]
    verdict.wrong += sum(bool(stored[name] != expected[name]) for name in names)


def _judge_bars(verdict: Verdict, stored: NDArray[np.void], traded: Traded) -> None:
    expected = traded.bars()
    _count(verdict, int(stored["count"].sum()), len(traded))
    if len(stored) != len(expected):
        verdict.wrong += abs(len(stored) - len(expected))
        return
    stored = stored.copy()
    stored["symbol"] = 0
    verdict.wrong += int((stored != expected).sum())
