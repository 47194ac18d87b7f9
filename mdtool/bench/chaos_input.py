"""The ticks that a stack is fed while its services are killed, and what they should come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.dtypes import F_LAST, RTYPE_TRADE, TRADE, record_length
from mdtool.core.records import Records
from mdtool.core.units import NS_PER_S, PRICE_SCALE
from mdtool.engine.saved_bars import SAVED_BAR
from mdtool.engine.sessions import SESSION
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata

SYMBOLS: Final = ("AAPL", "AMZN", "GOOG", "MSFT", "TSLA")
BAR_NS: Final = NS_PER_S
"""The length of the bars that are compared."""
_START_NS: Final = 1_735_201_200 * NS_PER_S
_STEP_NS: Final = 100_000
"""Between two ticks, so that each has a time of its own, and bars close all along."""
_CENT: Final = PRICE_SCALE // 100


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
        """Return the SESSION that they make, without the time of ingest, which nobody foresees."""
        session = np.zeros((), SESSION)
        session["open"], session["close"] = self.price[0], self.price[-1]
        session["high"], session["low"] = self.price.max(), self.price.min()
        session["volume"], session["count"] = self.volume.sum(), len(self)
        session["timestamp"] = self.timestamp[-1]
        return session

    def bars(self) -> NDArray[np.void]:
        """Return the bars that they make, a SAVED_BAR[m] whose last one is open."""
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
    """Random trades, the same for a seed, as many as are asked for.

    Attributes
    ----------
    seed : int
    ticks : int
        How many there were.
    """

    seed: int
    ticks: int = 0
    _parts: list[Records] = field(default_factory=list)
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def header(self) -> bytes:
        """Return what their DBN stream begins with."""
        instruments = dict(enumerate(SYMBOLS, 1))
        return encode_metadata(make_metadata("BENCH", "trades", _START_NS, instruments=instruments))

    def next(self, count: int) -> memoryview:
        """Return some more of them, as DBN records."""
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
