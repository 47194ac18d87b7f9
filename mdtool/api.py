"""The Python API: records, bars and order books of DBN files, as numpy arrays or Arrow tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.adapters.dbn_files import open_merged
from mdtool.adapters.dbn_select import Selection, selected
from mdtool.adapters.dbn_source import RecordSource
from mdtool.adapters.dbn_trades import TradeSource
from mdtool.core import batch as core_batch
from mdtool.core.dtypes import OHLCV, WIDE_BAR
from mdtool.core.errors import UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.publishers import publisher_name
from mdtool.core.records import TS_OUT, Records
from mdtool.core.units import parse_duration, parse_moment
from mdtool.wire.dbn_records import CONTROL_RTYPES, SHOWN_DTYPES, shown_types

if TYPE_CHECKING:
    import pyarrow as pa

    from mdtool.engine.book.sampling import Sampler
    from mdtool.engine.book.snapshot import Levels, Snapshot

__all__ = ["Batch", "BookSnapshot", "bars", "book", "read"]

Path: TypeAlias = str | os.PathLike[str]
Time: TypeAlias = str | int
"""ISO-8601, or nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records of one layout, each with its symbol.

    Attributes
    ----------
    records : structured array, shape (n,)
        DBN's own fields. Prices are int64 in units of 1e-9, times are uint64 nanoseconds since the
        epoch. The last field is `ts_out` where the stream has that. Read-only.
    symbols : object array, shape (n,)
        The symbol of each record as a string, None where its instrument has no name.
    """

    records: Records
    symbols: npt.NDArray[np.object_]

    def __len__(self) -> int:
        """Return how many records there are."""
        return len(self.records)

    def to_arrow(self) -> pa.RecordBatch:
        """Return the records as Arrow columns, the last of which is `symbol`.

        Prices are decimal128(19, 9), times timestamp[ns, UTC]; both are null where DBN has no
        value.
        """
        import pyarrow as pa

        from mdtool.adapters.outputs.columns import columns_of

        if len(self.records):
            rtype = int(self.records["rtype"][0])
        else:
            rtype = next(r for r, d in SHOWN_DTYPES.items() if d == self.records.dtype)
        types = shown_types(TS_OUT in (self.records.dtype.names or ()))
        columns = columns_of(self.records, types[rtype], "batch")
        columns["symbol"] = pa.array(self.symbols.tolist(), pa.string())
        return pa.RecordBatch.from_pydict(columns)


@dataclass(frozen=True, slots=True, eq=False)
class BookSnapshot:
    """One order book at one moment.

    Attributes
    ----------
    symbol : str or None
        None where the instrument has no name.
    publisher_id : int
        DBN's number of the venue. Each venue has a book of its own; 0 where they are consolidated.
    ts_ns : int
        When the snapshot was taken, in nanoseconds since the epoch.
    bids, asks : structured array, shape (n,)
        Levels with `price` (int64 in units of 1e-9), `size` and `count` (orders), best first.
    total_orders : int
        Orders of the whole book, whatever the depth.
    is_partial : bool
        Whether older orders may be missing, because the stream began without a snapshot.
    anomalies : dict of str to int
        How many records of each kind contradicted the book.
    """

    symbol: str | None
    publisher_id: int
    ts_ns: int
    bids: Levels
    asks: Levels
    total_orders: int
    is_partial: bool
    anomalies: dict[str, int]

    @property
    def publisher(self) -> str | None:
        """The name of the venue, such as `XNAS.ITCH.XNAS`, None where it has none."""
        return publisher_name(self.publisher_id)

    def to_arrow(self) -> pa.RecordBatch:
        """Return the levels as Arrow columns `side` (`B` or `A`), `price`, `size` and `count`.

        Prices are decimal128(19, 9). Bids come first, each side best first.
        """
        import pyarrow as pa

        from mdtool.adapters.arrow_arrays import decimals, numbers

        levels = np.concatenate([self.bids, self.asks])
        sides = ["B"] * len(self.bids) + ["A"] * len(self.asks)
        columns: dict[str, Any] = {"side": pa.array(sides, pa.string())}
        columns["price"] = decimals(levels["price"])
        columns |= {name: numbers(levels[name]) for name in ("size", "count")}
        return pa.RecordBatch.from_pydict(columns)


def read(
    path: Path | Sequence[Path],
    *,
    schema: str | None = None,
    symbols: str | Iterable[str] | None = None,
    start: Time | None = None,
    end: Time | None = None,
) -> Iterator[Batch]:
    """Read DBN files batch by batch, in constant memory.

    Parameters
    ----------
    path : str, PathLike, or a sequence of these
        DBN files of any version, zstd or not. Several are merged by time.
    schema : str, optional
        Only records of this schema, such as `trades`; trades are taken out of MBO and MBP too.
    symbols : str or iterable of str, optional
        Only these symbols.
    start, end : str or int, optional
        Only records from `start` to before `end`, by their index timestamp: ISO-8601, or
        nanoseconds since the epoch.

    Yields
    ------
    Batch
        Records of one schema, in the order of the stream; never empty.

    Raises
    ------
    InputError
        When a file does not exist or is not DBN; while iterating, when it is damaged. All records
        before the damage have been yielded by then.
    UsageError
        When an argument has no meaning.
    """
    return _batches(_open(path, schema, _selection(symbols, start, end)))


def bars(
    path: Path | Sequence[Path],
    *,
    interval: str | None = None,
    by: str | None = None,
    fill: str = "none",
    clock: str = "ts_recv",
    lateness: str | None = None,
    consolidate: bool = False,
    schema: str | None = None,
    tz: str | None = None,
    session: str | None = None,
    label: str = "start",
    extras: Collection[str] = (),
    symbols: str | Iterable[str] | None = None,
    start: Time | None = None,
    end: Time | None = None,
) -> Batch:
    """Return the OHLCV bars of the trades in DBN files.

    Parameters
    ----------
    path : str, PathLike, or a sequence of these
        As for `read`; files of any schema that shows trades. Where several show the same trade, it
        is counted once. Files of bars make bars of multiples of their interval.
    interval : str, optional
        Length of the bars, such as `1s`, `5m`, `1d`, `1w` or `1mo`; `1m` by default.
    by : str, optional
        Bars by size instead of by time: `volume=N`, `ticks=N` or `notional=N`.
    fill : {"none", "prev", "zero"}
        The bars of intervals without trades: no bar, the last close, or zeros.
    clock : {"ts_recv", "ts_event"}
        Which time puts a trade into its bar.
    lateness : str, optional
        How long after its end a bar still takes late trades, such as `2s`.
    consolidate : bool
        One bar of each symbol for all publishers of its dataset, instead of one for each.
    schema : str, optional
        The only schema to count trades of, where there are several.
    tz : str, optional
        The time zone of days, weeks and months, such as `America/New_York`; UTC by default.
    session : str, optional
        When these begin, such as `17:00`, by that zone's clock; from noon on, the evening before.
    label : {"start", "end"}
        Which of a bar's times is its `ts_event`.
    extras : collection of {"count", "vwap"}
        What bars have besides DBN's fields: how many trades, and their VWAP at 1e-9, UNDEF_PRICE
        without volume.
    symbols, start, end : optional
        As for `read`.

    Returns
    -------
    Batch
        OHLCV records in order of time, with `count` and `vwap` if there are `extras`. Perhaps
        empty.

    Raises
    ------
    InputError, UsageError
        As `read`.
    """
    from mdtool.engine.bar_stream import BarStream

    stream = BarStream.parse(interval, by, fill, clock, lateness, tz, session, label, extras)
    selection = _selection(symbols, start, end)
    made: list[Batch] = []
    opened = _open(path, schema, selection, Instruments(consolidate))
    with TradeSource(opened, stream.bar_rtypes) as source:
        for batch in source:
            made += _labelled(stream.update(batch))
        made += _labelled(stream.close())
    return _joined(made, WIDE_BAR if extras else OHLCV)


def book(
    path: Path | Sequence[Path],
    *,
    at: Time | None = None,
    every: str | None = None,
    depth: int | None = None,
    consolidate: bool = False,
    symbols: str | Iterable[str] | None = None,
    start: Time | None = None,
    end: Time | None = None,
) -> Iterator[BookSnapshot]:
    """Rebuild the order books of DBN files of MBO records, and take snapshots of them.

    Without `at` and `every` there is one snapshot of each book, as it is at the end.

    Parameters
    ----------
    path : str, PathLike, or a sequence of these
        As for `read`.
    at : str or int, optional
        The books as they were at this time, once its last event had ended.
    every : str, optional
        An interval such as `1s`: at its end, each book that an event changed within it.
    depth : int, optional
        At most so many levels of a side, else all.
    consolidate : bool
        One book of each symbol for all publishers of its dataset, in which sizes are added.
    symbols, end : optional
        As for `read`.
    start : str or int, optional
        With `every`, the time of the first snapshot; what comes before still builds the books.

    Yields
    ------
    BookSnapshot

    Raises
    ------
    InputError, UsageError
        As `read`.
    """
    if at is not None and (every or start is not None or end is not None):
        raise UsageError("at: is one moment; leave out every, start and end")
    if start is not None and every is None:
        raise UsageError("start: is the time of the first snapshot; give every too")
    if depth is not None and depth < 1:
        raise UsageError(f"depth: {depth} is less than 1; leave it out for all levels")
    table = Instruments()
    sampler = _sampler(every, depth, start, table if consolidate else None)
    until = end if at is None else parse_moment(str(at)) + 1
    return _snapshots(_open(path, "mbo", _selection(symbols, None, until), table), sampler)


def _open(
    path: Path | Sequence[Path],
    schema: str | None,
    selection: Selection | None,
    instruments: Instruments | None = None,
) -> RecordSource:
    paths = [os.fspath(each) for each in _sequence(path)]
    return selected(open_merged(paths, schema, instruments), selection)


def _sequence(path: Path | Sequence[Path]) -> Sequence[Path]:
    return [path] if isinstance(path, str | os.PathLike) else path


def _selection(
    symbols: str | Iterable[str] | None, start: Time | None, end: Time | None
) -> Selection | None:
    if symbols is None and start is None and end is None:
        return None
    names = [symbols] if isinstance(symbols, str) else symbols
    start_ns, end_ns = _moment(start), _moment(end)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        raise UsageError(f"start: {start} is not before end {end}")
    return Selection(None if names is None else tuple(names), start_ns, end_ns)


def _moment(time: Time | None) -> int | None:
    return None if time is None else parse_moment(str(time))


def _batches(source: RecordSource) -> Iterator[Batch]:
    with source:
        has_ts_out = source.metadata.ts_out
        yield from _labelled(batch.with_ts_out() if has_ts_out else batch for batch in source)


def _labelled(batches: Iterable[core_batch.Batch]) -> Iterator[Batch]:
    """Yield batches of data with the symbol of each record."""
    for batch in batches:
        if batch.rtype not in CONTROL_RTYPES:
            yield Batch(batch.records, batch.symbols)


def _joined(batches: list[Batch], layout: np.dtype[np.void]) -> Batch:
    if not batches:
        return Batch(np.empty(0, layout), np.empty(0, np.object_))
    return Batch(
        np.concatenate([batch.records for batch in batches]),
        np.concatenate([batch.symbols for batch in batches]),
    )


def _sampler(
    every: str | None, depth: int | None, start: Time | None, consolidated: Instruments | None
) -> Sampler:
    from mdtool.engine.book.sampling import FinalSampler, IntervalSampler

    if every is not None:
        interval_ns, after_ns = parse_duration(every), _moment(start)
        return IntervalSampler(interval_ns, depth, after_ns, consolidated=consolidated)
    return FinalSampler(depth, consolidated=consolidated)


def _snapshots(source: RecordSource, sampler: Sampler) -> Iterator[BookSnapshot]:
    with source:
        for batch in source:
            for snapshot in sampler.update(batch):
                yield _named(snapshot, source.instruments)
        for snapshot in sampler.close():
            yield _named(snapshot, source.instruments)


def _named(snapshot: Snapshot, table: Instruments) -> BookSnapshot:
    return BookSnapshot(
        symbol=table[snapshot.instrument].label,
        publisher_id=snapshot.publisher_id,
        ts_ns=snapshot.ts_ns,
        bids=snapshot.bids,
        asks=snapshot.asks,
        total_orders=snapshot.total_orders,
        is_partial=snapshot.is_partial,
        anomalies=snapshot.anomalies,
    )
