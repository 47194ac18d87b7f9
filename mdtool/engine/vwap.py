"""Rolling volume-weighted average prices: of each instrument's last trades, by count or by time.

`RollingVwap` is the engine; `VwapStream` applies it to DBN records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.buckets import Buckets
from mdtool.core.dtypes import (
    RTYPE_STATISTICS,
    STAT_TYPE_VWAP,
    STAT_UPDATE_NEW,
    STATISTICS,
    SYMBOL_MAPPING,
    record_length,
)
from mdtool.core.errors import UsageError
from mdtool.core.instruments import with_room
from mdtool.core.records import Records, has_trades
from mdtool.core.units import UNDEF_PRICE, UNDEF_TIMESTAMP, format_duration, parse_duration
from mdtool.engine import vwap_kernel as kernels
from mdtool.engine.timed_trades import TimedTrades

Integers = NDArray[np.int64]

MAX_TRADES: Final = 1_000_000_000
"""That a window by count may have: 16 GB."""
_UNLIMITED: Final = 2**62
_CHUNK_TRADES: Final = (16, 128)
_FIRST_CHUNKS: Final = 256
_SLICE_RECORDS: Final = 8_192
"""As many are taken at a time as stay in a core's own cache, with all that is made of them."""
_BLANK: Final = np.zeros(1, STATISTICS)
_BLANK["length"] = record_length(STATISTICS)
_BLANK["rtype"] = RTYPE_STATISTICS
_BLANK["ts_ref"] = UNDEF_TIMESTAMP
_BLANK["stat_type"] = STAT_TYPE_VWAP
_BLANK["update_action"] = STAT_UPDATE_NEW
_COPIED: Final = frozenset(
    {"publisher_id", "instrument_id", "ts_event", "ts_recv", "ts_in_delta", "sequence"}
)
"""What a statistic has of the trade that it follows, where that has it."""


@dataclass(frozen=True, slots=True)
class Window:
    """How far back a VWAP looks: a number of trades, or a span of time.

    Attributes
    ----------
    trades : int
        At most so many; 0 for any number.
    span_ns : int
        Those that are less than so much older than the latest; 0 for any age.

    Raises
    ------
    UsageError
        When neither limits it, or one cannot be.
    """

    trades: int = 0
    span_ns: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.trades <= MAX_TRADES and self.span_ns >= 0):
            raise UsageError(f"a window has from 1 to {MAX_TRADES:,} trades, or a span of time")
        if not self.trades and not self.span_ns:
            raise UsageError("a window needs a number of trades from 1 on, or a span of time")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the window that `100` (trades) or `5m` (time) means.

        Raises
        ------
        UsageError
            When it means none.
        """
        if text.isascii() and text.isdigit():
            if len(text) > len(str(MAX_TRADES)):
                raise UsageError(f"--window {text}: at most {MAX_TRADES:,} trades")
            return cls(trades=int(text))
        try:
            return cls(span_ns=parse_duration(text))
        except UsageError as error:
            raise UsageError(f"--window: {error}; or a number of trades") from error

    def __str__(self) -> str:
        return format_duration(self.span_ns) if self.span_ns else str(self.trades)


SESSION_WINDOW: Final = "session"
"""The window of `AnchoredVwap`, in texts."""


@dataclass(frozen=True, slots=True)
class Vwaps:
    """What the windows held after each trade of a batch.

    Attributes
    ----------
    price : int64[n]
        The VWAP at 1e-9, rounded to the nearest, half to even; UNDEF_PRICE of no volume.
    volume : int64[n]
        That it is of.
    trades : int64[n]
        That it is of; 0 for a trade that came too late and is in no window.
    """

    price: Integers
    volume: Integers
    trades: Integers


class RollingVwap:
    """A window of every instrument's latest trades, exact and at the same cost whatever it holds.

    Trades are taken in order of arrival. By time, a window holds the trades that are less than its
    span older than the instrument's latest time. One that comes late, by less than the span, stays
    as long as if it had come in time with the latest before it; one that is later is left out and
    counted. Trades of the same time stay together.

    A window's volume is at most 2**63 - 1: where a trade would take it beyond that, the oldest
    leave early and are counted. Within that, sums are exact whatever the prices are.

    Parameters
    ----------
    window : Window
        By count, by time, or both: then whichever is reached first, and what leaves for the count
        is counted as early.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self._most = window.trades or _UNLIMITED
        least, largest = _CHUNK_TRADES
        self._chunk = min(max(1 << (self._most - 1).bit_length(), least), largest)
        columns = 3 if window.span_ns else 2
        self._state = np.array([-1, 0, 0, 0], np.int64)
        self._rows = np.empty((0, kernels.COLUMNS), np.int64)
        self._links = np.empty(_FIRST_CHUNKS, np.int64)
        self._entries = np.empty((_FIRST_CHUNKS * self._chunk, columns), np.int64)

    @property
    def late(self) -> int:
        """How many trades were left out for being older than the window."""
        return int(self._state[kernels.LATE])

    @property
    def early(self) -> int:
        """How many trades left before their time, because the window was full."""
        return int(self._state[kernels.EARLY])

    def update(
        self,
        instrument: NDArray[np.integer],
        price: Integers,
        volume: Integers,
        ts_ns: Integers,
    ) -> Vwaps:
        """Take a batch of trades; return what their windows then hold, one entry a trade.

        Parameters
        ----------
        instrument : integers[n]
            Dense indices from 0.
        price : int64[n]
            At 1e-9, any but UNDEF_PRICE, negative ones too.
        volume : int64[n]
            0 or above.
        ts_ns : int64[n]
            0 or above; only looked at where the window is by time.
        """
        self._rows = with_room(self._rows, instrument, -1)
        found = np.empty((3, len(price)), np.int64)
        vwaps = Vwaps(*found)
        taken = 0
        while True:
            taken = kernels.update(
                self._most,
                self.window.span_ns,
                self._chunk,
                self._rows,
                self._entries,
                self._links,
                self._state,
                instrument,
                price,
                volume,
                ts_ns,
                vwaps.price,
                vwaps.volume,
                vwaps.trades,
                taken,
            )
            if taken == len(price):
                break
            self._grow_entries()
        vwaps.price[vwaps.volume == 0] = UNDEF_PRICE
        return vwaps

    def _grow_entries(self) -> None:
        """Make room for a quarter more trades.

        Where the system can move pages, as Linux does, nothing is copied.
        """
        chunks = len(self._links) + max(len(self._links) // 4, 1)
        self._links.resize(chunks, refcheck=False)
        self._entries.resize((chunks * self._chunk, self._entries.shape[1]), refcheck=False)


class AnchoredVwap:
    """A window of every instrument's trades since their session began, exact.

    A trade that comes after one of a later session of its instrument is left out and counted.

    Parameters
    ----------
    buckets : Buckets
        The sessions.
    """

    early = 0

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._rows = np.empty((0, kernels.COLUMNS), np.int64)
        self._state = np.zeros(4, np.int64)

    @property
    def late(self) -> int:
        """How many trades were left out for being of an earlier session."""
        return int(self._state[kernels.LATE])

    def update(
        self,
        instrument: NDArray[np.integer],
        price: Integers,
        volume: Integers,
        ts_ns: Integers,
    ) -> Vwaps:
        """Take a batch of trades, at least one, as `RollingVwap.update`."""
        self._rows = with_room(self._rows, instrument, -1)
        vwaps = Vwaps(*np.empty((3, len(price)), np.int64))
        kernels.update_anchored(
            self._buckets.length_ns or 0,
            self._buckets.bounds(int(ts_ns.min()), int(ts_ns.max())),
            self._rows,
            self._state,
            instrument,
            price,
            volume,
            ts_ns,
            vwaps.price,
            vwaps.volume,
            vwaps.trades,
        )
        vwaps.price[vwaps.volume == 0] = UNDEF_PRICE
        return vwaps


class VwapStream:
    """Takes a stream of records as it arrives and yields a statistic for each trade.

    Parameters
    ----------
    windows : RollingVwap or AnchoredVwap
        Of each publisher's instrument.
    clock : str
        By which of a record's times: `ts_recv` or `ts_event`.

    Attributes
    ----------
    trades : int
        How many trades were taken, late ones too.
    undefined : int
        How many trades were left out for having no price, size or time.
    """

    def __init__(self, windows: RollingVwap | AnchoredVwap, clock: str = "ts_recv") -> None:
        self._windows = windows
        self._clock = clock
        self.trades = 0
        self.undefined = 0

    @property
    def late(self) -> int:
        """How many trades were older than the window and left out."""
        return self._windows.late

    @property
    def early(self) -> int:
        """How many trades had to leave a window that can hold no more volume."""
        return self._windows.early

    def update(self, batch: Batch) -> Iterator[Batch]:
        """Take a stream's next records; yield those of the trades among them, if any.

        Symbol mappings are passed on, for they hold for the statistics too. Other records without
        trades are skipped.
        """
        if batch.records.dtype == SYMBOL_MAPPING:
            yield batch
        if not has_trades(batch.records.dtype):
            return
        for start in range(0, len(batch), _SLICE_RECORDS):
            timed = TimedTrades.of(batch[start : start + _SLICE_RECORDS], self._clock)
            trades = timed.trades
            self.trades += len(trades)
            self.undefined += timed.undefined
            if len(trades):
                vwaps = self._windows.update(trades.symbol, trades.price, trades.size, timed.ts_ns)
                is_in = vwaps.trades > 0
                statistics = _statistics(timed, vwaps)
                if batch.instruments.consolidates:
                    statistics["publisher_id"] = 0  # a window of several publishers is of none
                made = Batch(statistics, batch.instruments, trades.symbol)
                yield made if is_in.all() else made[is_in]


def _statistics(timed: TimedTrades, vwaps: Vwaps) -> Records:
    """Return a STATISTICS of stat_type VWAP for each trade, with its times.

    `price` is the VWAP, `quantity` the volume that it is of.
    """
    source = timed.records
    assert source is not None
    made = np.empty(len(source), STATISTICS)
    # As words it is filled in a quarter of the time.
    made.view(np.int64).reshape(len(source), -1)[:] = _BLANK.view(np.int64)
    for name in _COPIED & set(source.dtype.names or ()):
        made[name] = source[name]
    made["price"] = vwaps.price
    made["quantity"] = vwaps.volume
    return made
