"""Bars of a stream of records, as DBN's OHLCV records; gaps can be filled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.dtypes import (
    OHLCV,
    RTYPE_OHLCV,
    RTYPE_OHLCV_1D,
    RTYPE_OHLCV_1H,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    SYMBOL_MAPPING,
    record_length,
)
from mdtool.core.errors import UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.records import CLOCKS, has_trades
from mdtool.core.units import NS_PER_DAY, NS_PER_S, parse_duration
from mdtool.engine.bars import BAR, Bars, Size, SizedBars, TimeBars
from mdtool.engine.timed_trades import TimedTrades
from mdtool.engine.trade_views import CADENCES

Integers = NDArray[np.int64]

FILLS: Final = ("none", "prev", "zero")
_BLOCK: Final = 65_536
_CADENCES: Final = {
    NS_PER_S: (RTYPE_OHLCV_1S, "ohlcv-1s"),
    60 * NS_PER_S: (RTYPE_OHLCV_1M, "ohlcv-1m"),
    3_600 * NS_PER_S: (RTYPE_OHLCV_1H, "ohlcv-1h"),
    NS_PER_DAY: (RTYPE_OHLCV_1D, "ohlcv-1d"),
}


class BarStream:
    """Takes a stream of records as it arrives and gives the bars that it closes.

    Parameters
    ----------
    bars : TimeBars or SizedBars
        What makes bars of trades.
    clock : str
        By which of a record's times: `ts_recv` or `ts_event`.
    fill : str
        What fills an empty bucket: see `GapFill`. Sized bars have none.

    Attributes
    ----------
    schema : str or None
        Of the bars; None where DBN has none for them.
    bar_rtypes : frozenset of int
        Of bars that may take the place of trades: those of whose intervals that of these bars is a
        multiple.
    trades : int
        How many trades, or bars in place of them, were taken, late ones too.
    undefined : int
        How many trades were left out for having no price, size or time.
    """

    def __init__(
        self, bars: TimeBars | SizedBars, clock: str = "ts_recv", fill: str = "none"
    ) -> None:
        self._bars = bars
        self._clock = clock
        interval_ns = bars.interval_ns if isinstance(bars, TimeBars) else None
        self._rtype = rtype_of(interval_ns)
        self._fill = GapFill(fill, interval_ns or 1)
        self._instruments: Instruments | None = None
        self.schema = schema_of(interval_ns)
        self.bar_rtypes = frozenset(
            rtype
            for rtype, cadence_ns in CADENCES.items()
            if interval_ns is not None and interval_ns % cadence_ns == 0
        )
        self.trades = 0
        self.undefined = 0

    @classmethod
    def parse(
        cls,
        interval: str | None = None,
        by: str | None = None,
        fill: str = "none",
        clock: str = "ts_recv",
        lateness: str | None = None,
    ) -> Self:
        """Return the stream of bars that texts describe.

        Parameters
        ----------
        interval : str, optional
            Length of bars by time, `1m` by default.
        by : str, optional
            A size such as `volume=1000`, for bars by size instead.
        fill, clock : str
            As of the constructor.
        lateness : str, optional
            How long after its end a bar by time still takes late trades.

        Raises
        ------
        UsageError
            When a text is not valid, or bars by size have what only bars by time can have.
        """
        if clock not in CLOCKS:
            raise UsageError(f"clock {clock}: does not exist; choose from {', '.join(CLOCKS)}")
        if by is None:
            lateness_ns = parse_duration(lateness) if lateness else 0
            return cls(TimeBars(parse_duration(interval or "1m"), lateness_ns), clock, fill)
        if interval or lateness or fill != "none":
            raise UsageError("interval, lateness and fill: are for bars by time; leave out by")
        return cls(SizedBars(Size.parse(by)), clock)

    @property
    def late(self) -> int:
        """How many trades came after their bar had closed and were left out."""
        return self._bars.late if isinstance(self._bars, TimeBars) else 0

    def update(self, batch: Batch) -> Iterator[Batch]:
        """Take a stream's next records; yield those of the bars that they close, if any.

        Symbol mappings are passed on, for they hold for the bars too. Other records without
        trades are skipped, but for bars of `bar_rtypes`.
        """
        dtype = batch.records.dtype
        if dtype == SYMBOL_MAPPING:
            yield batch
        is_of_bars = dtype == OHLCV and batch.rtype in self.bar_rtypes
        if not (has_trades(dtype) or is_of_bars):
            return
        self._instruments = batch.instruments
        timed = TimedTrades.of(batch, self._clock)
        self.trades += len(batch) if is_of_bars else len(timed)
        self.undefined += timed.undefined
        bars = self._bars.update(timed)
        if isinstance(self._bars, TimeBars):
            bars = bars[_order(bars, bars["start_ns"], batch.instruments)]
        yield from self._batches(bars, batch.instruments)

    def close(self) -> Iterator[Batch]:
        """Yield the records of the bars that the stream's end leaves open."""
        bars, instruments = self._bars.close_all(), self._instruments
        if instruments is not None:
            start = bars["start_ns"] if isinstance(self._bars, TimeBars) else np.zeros(len(bars))
            yield from self._batches(bars[_order(bars, start, instruments)], instruments)

    def _batches(self, bars: Bars, instruments: Instruments) -> Iterator[Batch]:
        for block in self._fill.expand(bars):
            if len(block):
                records = ohlcv_records(block, self._rtype, instruments)
                yield Batch(records, instruments, block["instrument"].astype(np.uint32))


class GapFill:
    """Adds the bars of empty buckets, from each instrument's last bar on.

    A gap is filled when the bar after it has closed, so an instrument's first bar follows and its
    last is followed by none. Fillers come right before the bar that ends their gap: each
    instrument's bars stay in order of start.

    Parameters
    ----------
    mode : str
        `none`: no filler. `prev`: open, high, low and close are the last close, volume is 0.
        `zero`: all are 0.
    interval_ns : int
        The length of the bars.
    """

    def __init__(self, mode: str, interval_ns: int) -> None:
        if mode not in FILLS:
            raise UsageError(f"fill {mode!r}: does not exist; choose from {', '.join(FILLS)}")
        self.mode = mode
        self.interval_ns = interval_ns
        self._last: dict[int, tuple[int, int]] = {}
        """The start and the close of each instrument's last bar."""

    def expand(self, bars: Bars) -> Iterator[Bars]:
        """Yield the bars with their fillers, in blocks of a bounded size however long a gap is.

        Parameters
        ----------
        bars : BAR[n]
            Each instrument's in order of start, later than those of earlier calls.
        """
        if self.mode == "none" or not len(bars):
            yield bars
            return
        starts, closes = self._before(bars)
        gaps = (bars["start_ns"] - starts) // self.interval_ns - 1
        ends = np.cumsum(gaps + 1)
        for begin in range(0, int(ends[-1]), _BLOCK):
            position = np.arange(begin, min(begin + _BLOCK, int(ends[-1])))
            bar = np.searchsorted(ends, position, side="right")
            block = bars[bar]
            is_filler = position < ends[bar] - 1
            of = bar[is_filler]
            fillers = np.zeros(len(of), BAR)
            fillers["instrument"] = bars["instrument"][of]
            nth = position[is_filler] - (ends[of] - gaps[of] - 1)
            fillers["start_ns"] = starts[of] + (nth + 1) * self.interval_ns
            if self.mode == "prev":
                for price in ("open", "high", "low", "close"):
                    fillers[price] = closes[of]
            block[is_filler] = fillers
            yield block

    def _before(self, bars: Bars) -> tuple[Integers, Integers]:
        """Return the start and close of the bar before each; a first bar has one right before."""
        starts = np.empty(len(bars), np.int64)
        closes = np.empty(len(bars), np.int64)
        order = np.argsort(bars["instrument"], kind="stable")
        instrument = bars["instrument"][order]
        starts[order[1:]] = bars["start_ns"][order[:-1]]
        closes[order[1:]] = bars["close"][order[:-1]]
        is_first = np.concatenate([[True], instrument[1:] != instrument[:-1]])
        for bar in order[is_first].tolist():
            fresh = (int(bars["start_ns"][bar]) - self.interval_ns, 0)
            starts[bar], closes[bar] = self._last.get(int(bars["instrument"][bar]), fresh)
        for bar in order[np.roll(is_first, -1)].tolist():
            row = bars[bar]
            self._last[int(row["instrument"])] = (int(row["start_ns"]), int(row["close"]))
        return starts, closes


def _order(bars: Bars, start: NDArray[np.generic], instruments: Instruments) -> Integers:
    """Return how bars are ordered by start, publisher and id."""
    publisher_ids = instruments.publisher_ids[bars["instrument"]]
    ids = instruments.ids_on(bars["instrument"], bars["start_ns"])
    return np.lexsort((ids, publisher_ids, start))


def rtype_of(interval_ns: int | None) -> int:
    """Return the rtype of bars of an interval; None means that they are not by time."""
    return _CADENCES[interval_ns][0] if interval_ns in _CADENCES else RTYPE_OHLCV


def schema_of(interval_ns: int | None) -> str | None:
    """Return the DBN schema of bars of an interval, None where DBN has none."""
    return _CADENCES[interval_ns][1] if interval_ns in _CADENCES else None


def ohlcv_records(bars: Bars, rtype: int, instruments: Instruments) -> NDArray[np.void]:
    """Return bars as DBN's OHLCV records.

    Parameters
    ----------
    bars : BAR[n]
        Their counts have no place in DBN.
    rtype : int
        One of the OHLCV rtypes.
    instruments : Instruments
        The table into which the bars' instruments point.

    Returns
    -------
    OHLCV[n]
        In the same order; `ts_event` is the bar's start, and the id is the one that the instrument
        has on its date.
    """
    records = np.zeros(len(bars), OHLCV)
    records["length"] = record_length(OHLCV)
    records["rtype"] = rtype
    records["publisher_id"] = instruments.publisher_ids[bars["instrument"]]
    records["instrument_id"] = instruments.ids_on(bars["instrument"], bars["start_ns"])
    records["ts_event"] = bars["start_ns"]
    for name in ("open", "high", "low", "close", "volume"):
        records[name] = bars[name]
    return records
