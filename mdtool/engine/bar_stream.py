"""Bars of a stream of records, as DBN's OHLCV records; gaps can be filled."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch
from mdtool.core.buckets import Buckets, EvenBuckets, parse_buckets
from mdtool.core.dtypes import (
    EXTRAS,
    OHLCV,
    RTYPE_OHLCV,
    RTYPE_OHLCV_1D,
    RTYPE_OHLCV_1H,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    SYMBOL_MAPPING,
    WIDE_BAR,
    record_length,
    rtype_with,
)
from mdtool.core.errors import UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.records import CLOCKS, has_trades
from mdtool.core.units import UNDEF_PRICE, parse_duration, parse_option
from mdtool.engine.bars import Bars, Size, SizedBars, TimeBars
from mdtool.engine.timed_trades import TimedTrades
from mdtool.engine.trade_views import CADENCES

Integers = NDArray[np.int64]

FILLS: Final = ("none", "prev", "zero")
LABELS: Final = ("start", "end")
"""Which of a bar's times is its `ts_event`, by default the first."""
_BLOCK: Final = 65_536
OHLCV_RTYPES: Final = {
    "ohlcv-1s": RTYPE_OHLCV_1S,
    "ohlcv-1m": RTYPE_OHLCV_1M,
    "ohlcv-1h": RTYPE_OHLCV_1H,
    "ohlcv-1d": RTYPE_OHLCV_1D,
}
"""The rtype of the bars of each schema; `CADENCES` has their lengths."""
_BY_LENGTH_NS: Final = {CADENCES[rtype]: (rtype, each) for each, rtype in OHLCV_RTYPES.items()}
_DBN_RTYPES: Final = {RTYPE_OHLCV, *OHLCV_RTYPES.values()}


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
    label : str
        Which of a bar's times is its `ts_event`, one of `LABELS`. Sized bars have a start only.
    extras : collection of str
        What bars have besides DBN's fields, of `EXTRAS`.

    Attributes
    ----------
    schema : str or None
        Of the bars; None where DBN has none for them.
    rtype : int
        Of the bars' records.
    bar_rtypes : frozenset of int
        Of bars that may take the place of trades: those of whose intervals that of these bars is a
        multiple.
    trades : int
        How many trades, or bars in place of them, were taken, late ones too.
    undefined : int
        How many trades were left out for having no price, size or time.
    """

    def __init__(
        self,
        bars: TimeBars | SizedBars,
        clock: str = "ts_recv",
        fill: str = "none",
        label: str = LABELS[0],
        extras: Collection[str] = (),
    ) -> None:
        self._bars = bars
        self._clock = clock
        self._buckets = bars.buckets if isinstance(bars, TimeBars) else None
        self._is_labelled_by_end = label == "end"
        self._fill = GapFill(fill, self._buckets or EvenBuckets(1))
        self._instruments: Instruments | None = None
        # The day of a session is a day to DBN too, whatever the clock's changes make of its length.
        cadence_ns = self._buckets.cadence_ns if self._buckets else None
        has_own_layout = bool(extras) or self._is_labelled_by_end
        self.schema = None if has_own_layout else schema_of(cadence_ns)
        self.rtype = rtype_with(extras) if extras else rtype_of(cadence_ns)
        # What a bar stands for has neither the number of its trades nor their VWAP.
        grain_ns = self._buckets.grain_ns if self._buckets and not extras else 0
        self.bar_rtypes = frozenset(
            rtype
            for rtype, cadence_ns in CADENCES.items()
            if grain_ns and grain_ns % cadence_ns == 0
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
        zone: str | None = None,
        session: str | None = None,
        label: str = LABELS[0],
        extras: Collection[str] = (),
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
        zone, session : str, optional
            The time zone of days, weeks and months, and when their sessions begin, such as `17:00`.
        label : str
            Of the constructor.
        extras : collection of str
            Of the constructor.

        Raises
        ------
        UsageError
            When a text is not valid, or bars by size have what only bars by time can have.
        """
        if clock not in CLOCKS:
            raise UsageError(f"clock {clock}: does not exist; choose from {', '.join(CLOCKS)}")
        if label not in LABELS:
            raise UsageError(f"label {label}: choose from {', '.join(LABELS)}")
        for name in extras:
            if name not in EXTRAS:
                raise UsageError(f"with {name}: choose from {', '.join(EXTRAS)}")
        has_vwap = "vwap" in extras
        if by is None:
            lateness_ns = parse_option("--lateness", parse_duration, lateness) if lateness else 0
            buckets = parse_buckets(interval or "1m", zone, session)
            bars = TimeBars(buckets, lateness_ns, has_vwap=has_vwap)
            return cls(bars, clock, fill, label, extras)
        of_time = {
            "interval": interval is not None,
            "lateness": lateness is not None,
            "fill": fill != FILLS[0],
            "tz": zone is not None,
            "session": session is not None,
            "label": label != LABELS[0],
        }
        if any(of_time.values()):
            given = " and ".join(name for name, is_given in of_time.items() if is_given)
            raise UsageError(f"by {by}: goes without {given}, which bars by time have")
        return cls(SizedBars(Size.parse(by), has_vwap=has_vwap), clock, extras=extras)

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
                records = ohlcv_records(block, self.rtype, instruments)
                if self._is_labelled_by_end and self._buckets is not None:
                    numbers = self._buckets.numbers(block["start_ns"])
                    records["ts_event"] = self._buckets.starts(numbers + 1)
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
        `zero`: all are 0. Either has no VWAP.
    buckets : Buckets or int
        As of `TimeBars`.
    """

    def __init__(self, mode: str, buckets: Buckets | int) -> None:
        if mode not in FILLS:
            raise UsageError(f"fill {mode!r}: does not exist; choose from {', '.join(FILLS)}")
        self.mode = mode
        self._buckets = EvenBuckets(buckets) if isinstance(buckets, int) else buckets
        self._last: dict[int, tuple[int, int]] = {}
        """The bucket and the close of each instrument's last bar."""

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
        numbers = self._buckets.numbers(bars["start_ns"])
        before, closes = self._before(bars, numbers)
        gaps = numbers - before - 1
        ends = np.cumsum(gaps + 1)
        for begin in range(0, int(ends[-1]), _BLOCK):
            position = np.arange(begin, min(begin + _BLOCK, int(ends[-1])))
            bar = np.searchsorted(ends, position, side="right")
            block = bars[bar]
            is_filler = position < ends[bar] - 1
            of = bar[is_filler]
            fillers = np.zeros(len(of), bars.dtype)
            fillers["instrument"] = bars["instrument"][of]
            nth = position[is_filler] - (ends[of] - gaps[of] - 1)
            filled = before[of] + nth + 1
            fillers["start_ns"] = self._buckets.starts(filled)
            if "vwap" in (bars.dtype.names or ()):
                fillers["vwap"] = UNDEF_PRICE
            if self.mode == "prev":
                for price in ("open", "high", "low", "close"):
                    fillers[price] = closes[of]
            block[is_filler] = fillers
            # A day that a time zone skipped has no length, and so no bar.
            is_kept = np.ones(len(block), bool)
            is_kept[is_filler] = fillers["start_ns"] < self._buckets.starts(filled + 1)
            yield block[is_kept]

    def _before(self, bars: Bars, numbers: Integers) -> tuple[Integers, Integers]:
        """Return the bucket and close of the bar before each; a first bar has one right before."""
        before = np.empty(len(bars), np.int64)
        closes = np.empty(len(bars), np.int64)
        order = np.argsort(bars["instrument"], kind="stable")
        instrument = bars["instrument"][order]
        before[order[1:]] = numbers[order[:-1]]
        closes[order[1:]] = bars["close"][order[:-1]]
        is_first = np.concatenate([[True], instrument[1:] != instrument[:-1]])
        for bar in order[is_first].tolist():
            fresh = (int(numbers[bar]) - 1, 0)
            before[bar], closes[bar] = self._last.get(int(bars["instrument"][bar]), fresh)
        for bar in order[np.roll(is_first, -1)].tolist():
            row = bars[bar]
            self._last[int(row["instrument"])] = (int(numbers[bar]), int(row["close"]))
        return before, closes


def _order(bars: Bars, start: NDArray[np.generic], instruments: Instruments) -> Integers:
    """Return how bars are ordered by start, publisher and id."""
    publisher_ids = instruments.publisher_ids[bars["instrument"]]
    ids = instruments.ids_on(bars["instrument"], bars["start_ns"])
    return np.lexsort((ids, publisher_ids, start))


def rtype_of(interval_ns: int | None) -> int:
    """Return the rtype of bars of an interval; None means that they are not by time."""
    return _BY_LENGTH_NS[interval_ns][0] if interval_ns in _BY_LENGTH_NS else RTYPE_OHLCV


def schema_of(interval_ns: int | None) -> str | None:
    """Return the DBN schema of bars of an interval, None where DBN has none."""
    return _BY_LENGTH_NS[interval_ns][1] if interval_ns in _BY_LENGTH_NS else None


def ohlcv_records(bars: Bars, rtype: int, instruments: Instruments) -> NDArray[np.void]:
    """Return bars as DBN's OHLCV records.

    Parameters
    ----------
    bars : BAR[n] or VWAP_BAR[n]
        Their counts and VWAPs have no place in DBN.
    rtype : int
        One of the OHLCV rtypes, or of `core.dtypes.rtype_with`.
    instruments : Instruments
        The table into which the bars' instruments point.

    Returns
    -------
    OHLCV[n] or WIDE_BAR[n]
        By the rtype, in the same order; `ts_event` is the bar's start, and the id is the one that
        the instrument has on its date.
    """
    layout = OHLCV if rtype in _DBN_RTYPES else WIDE_BAR
    records = np.zeros(len(bars), layout)
    records["length"] = record_length(layout)
    records["rtype"] = rtype
    records["publisher_id"] = instruments.publisher_ids[bars["instrument"]]
    records["instrument_id"] = instruments.ids_on(bars["instrument"], bars["start_ns"])
    records["ts_event"] = bars["start_ns"]
    for name in ("open", "high", "low", "close", "volume"):
        records[name] = bars[name]
    if layout == WIDE_BAR:
        records["count"] = bars["count"]
        records["vwap"] = bars["vwap"] if "vwap" in (bars.dtype.names or ()) else UNDEF_PRICE
    return records
