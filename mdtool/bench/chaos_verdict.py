"""The ticks that a stack is fed under chaos, and what its store and gateway should hold of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores import Store, open_store
from mdtool.core.dtypes import F_LAST, RTYPE_TRADE, TRADE, record_length
from mdtool.core.records import Records
from mdtool.core.units import NS_PER_S, PRICE_SCALE
from mdtool.engine.saved_state import SAVED_BAR, SESSION
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata

SYMBOLS: Final = ("AAPL", "AMZN", "GOOG", "MSFT", "TSLA")
BAR_NS: Final = NS_PER_S
"""The length of the bars that are compared."""
_START_NS: Final = 1_735_201_200 * NS_PER_S
_STEP_NS: Final = 100_000
"""Between two ticks: each has a time of its own, and bars close all the time."""
_CENT: Final = PRICE_SCALE // 100
_EVERY: Final = 1 << 31
"""A limit higher than the number of bars."""
_PRICES: Final = ("open", "high", "low", "close")
_INGESTED: Final = "ingest_timestamp"


@dataclass(frozen=True, slots=True)
class Traded:
    """The trades of one symbol, in order of their times, which are all different.

    Attributes
    ----------
    timestamp, price, volume : int64[n]
        In ns, in units of 1e-9, and above 0.
    """

    timestamp: NDArray[np.int64]
    price: NDArray[np.int64]
    volume: NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Return the trades of all parts, one after the other."""
        columns = ("timestamp", "price", "volume")
        none = [np.empty(0, np.int64)]
        joined = (
            np.concatenate([getattr(part, name) for part in parts] or none) for name in columns
        )
        return cls(*joined)

    def __len__(self) -> int:
        return len(self.timestamp)

    def session(self) -> NDArray[np.void]:
        """Return the SESSION of these trades, without the time of ingest, which is unknown."""
        session = np.zeros((), SESSION)
        session["open"], session["close"] = self.price[0], self.price[-1]
        session["high"], session["low"] = self.price.max(), self.price.min()
        session["volume"], session["count"] = self.volume.sum(), len(self)
        session["timestamp"] = self.timestamp[-1]
        return session

    def bars(self) -> NDArray[np.void]:
        """Return the bars of these trades, a SAVED_BAR[m] whose last one is open."""
        start = self.timestamp // BAR_NS * BAR_NS
        first = np.flatnonzero(np.diff(start, prepend=-1))
        last = np.append(first[1:], len(self)) - 1
        bars = np.zeros(len(first), SAVED_BAR)
        bars["interval_ns"] = BAR_NS
        bars["is_open"][-1] = 1
        bars["start_ns"] = start[first]
        bars["open"], bars["close"] = self.price[first], self.price[last]
        bars["high"] = np.maximum.reduceat(self.price, first)
        bars["low"] = np.minimum.reduceat(self.price, first)
        bars["volume"] = np.add.reduceat(self.volume, first)
        bars["count"] = last - first + 1
        bars["first_ns"], bars["last_ns"] = self.timestamp[first], self.timestamp[last]
        return bars


@dataclass(slots=True)
class Input:
    """Random trades, always the same for a seed.

    Attributes
    ----------
    seed : int
    ticks : int
        How many were made so far.
    """

    seed: int
    ticks: int = 0
    _parts: list[Records] = field(default_factory=list)
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def header(self) -> bytes:
        """Return the header of their DBN stream."""
        instruments = dict(enumerate(SYMBOLS, 1))
        return encode_metadata(make_metadata("BENCH", "trades", _START_NS, instruments=instruments))

    def next(self, count: int) -> memoryview:
        """Return the next ones, as DBN records."""
        records = np.zeros(count, TRADE)
        records["length"] = record_length(TRADE)
        records["rtype"] = RTYPE_TRADE
        records["publisher_id"] = 1
        records["instrument_id"] = self._random.integers(1, len(SYMBOLS) + 1, count)
        records["ts_event"] = _START_NS + (self.ticks + np.arange(count)) * _STEP_NS
        records["ts_recv"] = records["ts_event"]
        records["price"] = self._random.integers(10_000, 20_000, count) * _CENT
        records["size"] = self._random.integers(1, 1_000, count)
        records["action"], records["side"], records["flags"] = b"T", b"N", F_LAST
        self.ticks += count
        self._parts.append(records)
        return encode_records(records)

    def traded(self) -> dict[str, Traded]:
        """Return the trades so far, by symbol."""
        records = np.concatenate(self._parts)
        found = {}
        for instrument, symbol in enumerate(SYMBOLS, 1):
            own = records[records["instrument_id"] == instrument]
            columns = (own[name].astype(np.int64) for name in ("ts_recv", "price", "size"))
            found[symbol] = Traded(*columns)
        return found


@dataclass(slots=True)
class Verdict:
    """Differences, summed over symbols.

    Attributes
    ----------
    lost, double : int
        Ticks that are missing or too many, in the raw trades, the totals, the sessions or the bars,
        whichever has most.
    wrong : int
        Prices, volumes and times that differ.
    """

    lost: int = 0
    double: int = 0
    wrong: int = 0

    def add(self, other: Verdict) -> None:
        """Add the differences of another."""
        self.lost += other.lost
        self.double += other.double
        self.wrong += other.wrong


def judge_store(url: str, inputs: Mapping[str, Traded]) -> Verdict:
    """Compare all that a store holds with its input."""
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
    """Return all trades of a symbol in a store."""
    pages = (page.trades for page in store.trades(symbol))
    parts = [Traded(page.ts_event, page.price, page.size) for page in pages]
    return Traded.concatenate(parts)


def judge_answer(answer: Mapping[str, Any], traded: Traded) -> int:
    """Return how many values of the gateway's aggregate differ from the input."""
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
    """Match trades by their times, which are unique in the input."""
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
