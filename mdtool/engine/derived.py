"""The schemas that a stream has not, made of those that it has: trades, quotes and bars.

One of these serves every reader of a stream: order books and bars are updated once for all of
them. Source: the rules of Databento's schemas.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from mdtool.core.batch import Batch
from mdtool.core.dtypes import (
    BBO,
    MBO,
    MBP1,
    RTYPE_BBO_1M,
    RTYPE_BBO_1S,
    RTYPE_CMBP1,
    RTYPE_MBO,
    RTYPE_MBP1,
    RTYPE_MBP10,
    RTYPE_TCBBO,
    RTYPE_TRADE,
    record_length,
)
from mdtool.core.instruments import Instruments
from mdtool.core.records import Records, index_timestamps, is_trade, trades_of
from mdtool.core.stream_warnings import warnings_in
from mdtool.core.units import NS_PER_S, UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.engine.bar_stream import OHLCV_RTYPES, ohlcv_records
from mdtool.engine.bars import Bars, TimeBars
from mdtool.engine.book import kernel as k
from mdtool.engine.book.state import Books
from mdtool.engine.timed_trades import TimedTrades
from mdtool.engine.trade_views import CADENCES

_TRADES: Final = "trades"
_TBBO: Final = "tbbo"
_MBP1: Final = "mbp-1"
_MBP10: Final = "mbp-10"
_SAMPLES: Final = {"bbo-1s": (NS_PER_S, RTYPE_BBO_1S), "bbo-1m": (60 * NS_PER_S, RTYPE_BBO_1M)}
_BARS: Final = {schema: (CADENCES[rtype], rtype) for schema, rtype in OHLCV_RTYPES.items()}
_QUOTES: Final = frozenset({_TBBO, _MBP1, _MBP10, *_SAMPLES})
"""What is made of order books."""


class _Source(NamedTuple):
    rtype: int | None
    makes: frozenset[str]


_SOURCES: Final[Mapping[str, _Source]] = MappingProxyType(
    {
        "mbo": _Source(RTYPE_MBO, frozenset({_TRADES, *_QUOTES, *_BARS})),
        _MBP1: _Source(RTYPE_MBP1, frozenset({_TRADES, _TBBO, *_BARS})),
        _MBP10: _Source(RTYPE_MBP10, frozenset({_TRADES, *_BARS})),
        _TRADES: _Source(RTYPE_TRADE, frozenset(_BARS)),
        _TBBO: _Source(RTYPE_MBP1, frozenset({_TRADES, *_BARS})),
        "cmbp-1": _Source(RTYPE_CMBP1, frozenset({_TRADES, *_BARS})),
        "tcbbo": _Source(RTYPE_TCBBO, frozenset({_TRADES, *_BARS})),
    }
)
"""Of what schemas are made; of several that a stream has, the first one."""
_NONE: Final = _Source(None, frozenset())
_ALL_MADE: Final = frozenset[str]().union(*(source.makes for source in _SOURCES.values()))
_RTYPES: Final = {
    **{schema: source.rtype for schema, source in _SOURCES.items()},
    **{schema: rtype for schema, (_, rtype) in (_SAMPLES | _BARS).items()},
}
"""Of everything that is a source, or made."""


class Made(NamedTuple):
    """Records that were made.

    Attributes
    ----------
    schema : str
    records : structured array, shape (n,)
        Of one rtype.
    end_ns : int or None
        Where they are those of an interval: its end, exclusive.
    """

    schema: str
    records: Records
    end_ns: int | None = None


class Derived:
    """Makes schemas of a stream that has others, as far as somebody follows them.

    Parameters
    ----------
    own : collection of str or None
        The schemas of the stream, which are not made. None at all: nothing is made. None where that
        is not known: then the first orders or trades are what others are made of, and a schema is
        made until the stream has records of it.
    has_books : bool
        Whether order books are kept, which take most of the time; without them no quotes are made.
    is_whole : bool
        Whether books and bars are kept at all. They must be of all records, so this one is replaced
        once `needs_whole` says so.

    Attributes
    ----------
    books : Books
        Of the stream's MBO records.
    schemas : frozenset of str
        What can be made; all that may turn out so, as long as it is not known.
    is_whole : bool
        As given.
    """

    def __init__(
        self, own: Collection[str] | None = (), *, has_books: bool = True, is_whole: bool = True
    ) -> None:
        self.books = Books()
        self.is_whole = is_whole
        self._keeps_books = has_books
        self._has_books = has_books and is_whole
        self._deep: Books | None = None
        self._learns = own is None
        self._own = set(own or ())
        self._bars: dict[str, TimeBars] = {}
        self.schemas = _ALL_MADE
        self._rtype: int | None = None
        self._single = {_TRADES}
        self._followed: dict[Hashable, frozenset[str]] = {}
        self._wanted: frozenset[str] = frozenset()
        self._samples: dict[str, _Samples] = {}
        self._time_ns = 0
        self._bar_end_ns = 0
        self._instruments = Instruments()
        if own is not None:
            self._make_of(next((_SOURCES[each] for each in _SOURCES if each in own), _NONE))

    @property
    def has_source(self) -> bool:
        """Whether it is known what schemas are made of."""
        return not self._learns or self._rtype is not None

    def _make_of(self, source: _Source) -> None:
        """Make of the records of a source what the stream has not."""
        needs_books = source.rtype == RTYPE_MBO and not self._keeps_books
        self.schemas = source.makes - self._own - (_QUOTES if needs_books else frozenset())
        self._rtype = source.rtype
        self._single = {_TRADES} if source.rtype == RTYPE_MBO else {_TRADES, _TBBO}
        self._bars = {
            schema: TimeBars(length_ns)
            for schema, (length_ns, _) in _BARS.items()
            if schema in self.schemas and self.is_whole
        }

    def _see(self, batch: Batch) -> None:
        """Note what a stream has whose header does not say, and what is to be made of it."""
        own = {schema for schema, rtype in _RTYPES.items() if rtype == batch.rtype}
        if own <= self._own and self.has_source:
            return
        self._own |= own
        source = next((_SOURCES[each] for each in _SOURCES if each in own), _NONE)
        if self.has_source:
            self.schemas -= own
            self._bars = {name: bars for name, bars in self._bars.items() if name not in own}
        elif source is not _NONE and (batch.rtype == RTYPE_MBO or is_trade(batch.records).any()):
            self._make_of(source)
        else:
            return
        self._follow(self._followed)

    def follow(self, follower: Hashable, schemas: Collection[str]) -> None:
        """Make some schemas from now on, in place of those that the follower followed before.

        Bars are whole whenever they are followed. Samples of quotes begin with what follows; where
        that will not do, as `lacks_samples` says, another one takes the place of this one.

        Parameters
        ----------
        follower : hashable
            Whoever follows; without schemas it follows nothing.
        schemas : collection of str
            Those that cannot be made are left out.
        """
        self._follow({**self._followed, follower: schemas})

    def _follow(self, followed: Mapping[Hashable, Collection[str]]) -> None:
        """Make the schemas of some followers from now on, and of no others."""
        self._followed = {who: frozenset(schemas) for who, schemas in followed.items() if schemas}
        can_be_made = self.schemas if self.is_whole else self.schemas & self._single
        self._wanted = can_be_made.intersection(frozenset().union(*self._followed.values()))
        # A book is applied once; where quotes of both depths are followed there are two.
        has_both = _MBP10 in self._wanted and not self._wanted & _QUOTES <= {_MBP10}
        if not has_both:
            self._deep = None
        elif self._deep is None:
            self._deep = self.books.copy()
        wanted = {name: self._samples.get(name) for name in _SAMPLES if name in self._wanted}
        self._samples = {
            name: samples or _Samples(*_SAMPLES[name], self._time_ns)
            for name, samples in wanted.items()
        }

    def needs_whole(self, schemas: Collection[str]) -> bool:
        """Return whether some of the schemas cannot be made of single records."""
        return bool(self.schemas & set(schemas) - self._single)

    def lacks_samples(self, schemas: Collection[str]) -> bool:
        """Return whether some of the schemas sample an interval of which a part has passed."""
        sampled = self.schemas & _SAMPLES.keys() & set(schemas)
        return self._time_ns > 0 and not sampled <= self._samples.keys()

    def succeed(self, other: Derived, follower: Hashable, schemas: Collection[str]) -> None:
        """Make what another one made, for its followers, and some schemas for one more."""
        self._follow({**other._followed, follower: schemas})

    def update(self, batch: Batch) -> list[Made]:
        """Take the stream's next records, of any rtype; return what is made of them.

        Each schema's records are in order; schemas are one after the other.
        """
        if not len(batch):
            return []
        if self._learns:
            self._see(batch)
        is_source = batch.rtype == self._rtype
        made: list[Made] = []
        if is_source and _TRADES in self._wanted:
            made.append(Made(_TRADES, trades_of(batch.records)))
        if batch.records.dtype == MBO:
            if is_source and self._wanted & _QUOTES:
                made += self._quotes(batch)
            elif self._has_books:
                self.books.apply(batch)
        elif is_source and _TBBO in self._wanted:
            made.append(Made(_TBBO, batch.records[is_trade(batch.records)]))
        if is_source:
            if self.is_whole:
                made += self._pass_time(batch)
        elif self.is_whole and warnings_in(batch.records):
            self.books.mark_partial()
        return [each for each in made if len(each.records)]

    def close(self) -> list[Made]:
        """Return what the stream's end leaves open: all bars, and the samples that are followed.

        The end stays, and so do its bars for sessions that subscribe later.
        """
        made: list[Made] = []
        for schema, samples in self._samples.items():
            made += (Made(schema, *each) for each in samples.take(self.books))
        for schema, bars in self._bars.items():
            made += self._intervals(schema, bars.close_all())
        return made

    def _quotes(self, batch: Batch) -> list[Made]:
        """Apply orders; return the quotes that they make, and samples of those."""
        made: list[Made] = []
        if _MBP10 in self._wanted:
            books = self.books if self._deep is None else self._deep
            made = [Made(_MBP10, each.records) for each in books.events(batch, 10)]
            if self._deep is None:
                return made
        sampled: list[Made] = []
        for part in self._up_to_samples(batch, sampled):
            for quotes in self.books.events(part, 1):
                if _TBBO in self._wanted:
                    made.append(Made(_TBBO, quotes.records[is_trade(quotes.records)]))
                if _MBP1 in self._wanted:
                    made.append(Made(_MBP1, quotes.records))
                for samples in self._samples.values():
                    samples.add(quotes)
        return made + sampled

    def _up_to_samples(self, batch: Batch, sampled: list[Made]) -> Iterator[Batch]:
        """Yield parts of a batch between the ends of sampled intervals, which are added there."""
        if not self._samples:
            yield batch
            return
        now_ns = np.maximum.accumulate(index_timestamps(batch.records))
        np.maximum(now_ns, self._time_ns, out=now_ns)
        begin = 0
        while begin < len(batch):
            end = int(np.searchsorted(now_ns, min(s.end_ns for s in self._samples.values())))
            if end > begin:
                yield batch[begin:end]
            if end < len(batch):
                for schema, samples in self._samples.items():
                    if int(now_ns[end]) >= samples.end_ns:
                        sampled += (Made(schema, *each) for each in samples.take(self.books))
                        samples.begin(int(now_ns[end]))
            begin = end

    def _pass_time(self, batch: Batch) -> Iterator[Made]:
        """Yield the bars that end with or before a batch, up to whose time all is complete."""
        times_ns = index_timestamps(batch.records)
        # Most streams are sorted, and this is the quicker pass.
        is_sorted = bool((times_ns[1:] >= times_ns[:-1]).all())
        latest_ns = int(times_ns[-1] if is_sorted else times_ns.max())
        self._time_ns = max(self._time_ns, latest_ns)
        if not self._bars:
            return
        self._instruments = batch.instruments
        traded = np.flatnonzero(is_trade(batch.records))
        # Most batches of a live stream have no trade and end no bar.
        if latest_ns < self._bar_end_ns and not len(traded):
            return
        shortest_ns = min(length_ns for length_ns, _ in _BARS.values())
        end_ns = (latest_ns // shortest_ns + 1) * shortest_ns
        self._bar_end_ns = max(self._bar_end_ns, end_ns)
        timed = TimedTrades.of(batch.taken(traded) if is_sorted else batch)
        latest_ns = max(latest_ns, timed.latest_ns)
        timed = dataclasses.replace(timed, latest_ns=latest_ns)
        for schema, bars in self._bars.items():
            ended = bars.update(timed)
            if schema in self._wanted:
                yield from self._intervals(schema, ended)

    def _intervals(self, schema: str, bars: Bars) -> Iterator[Made]:
        """Yield the bars of each interval, ordered by publisher and id."""
        if not len(bars):
            return
        length_ns, rtype = _BARS[schema]
        records = ohlcv_records(bars, rtype, self._instruments)
        order = ("instrument_id", "publisher_id", "ts_event")
        records = records[np.lexsort([records[name] for name in order])]
        starts, begins = np.unique(records["ts_event"], return_index=True)
        parts: Sequence[Records] = np.split(records, begins[1:])
        for start_ns, part in zip(starts.tolist(), parts, strict=True):
            yield Made(schema, part, start_ns + length_ns)


class _Samples:
    """The last quote of each instrument in an interval, as records of BBO at its end."""

    def __init__(self, length_ns: int, rtype: int, ts_ns: int) -> None:
        self._length_ns = length_ns
        self._rtype = rtype
        self._quotes = np.empty(0, MBP1)
        self._instrument = np.empty(0, np.uint32)
        self.begin(ts_ns)

    def begin(self, ts_ns: int) -> None:
        """Begin the interval of a time."""
        self.end_ns = (ts_ns // self._length_ns + 1) * self._length_ns

    def add(self, quotes: Batch) -> None:
        """Take records of MBP1."""
        instrument = np.concatenate([self._instrument, quotes.instrument])
        records = np.concatenate([self._quotes, quotes.records])
        _, from_end = np.unique(instrument[::-1], return_index=True)
        last = np.sort(len(instrument) - 1 - from_end)
        self._instrument, self._quotes = instrument[last], records[last]

    def take(self, books: Books) -> Iterator[tuple[Records, int]]:
        """Yield the samples of the interval with its end, if there are any, and forget them."""
        if not len(self._quotes):
            return
        rows = books.state.books[books.state.rows[self._instrument] - 1]
        samples = np.zeros(len(rows), BBO)
        for name in ("publisher_id", "instrument_id", "flags", "sequence"):
            samples[name] = self._quotes[name]
        for name in (name for name in MBP1.names or () if name.endswith("_00")):
            samples[name] = self._quotes[name]
        samples["length"] = record_length(BBO)
        samples["rtype"] = self._rtype
        samples["ts_recv"] = self.end_ns
        has_traded = rows[:, k.B_TRADES] > 0
        samples["price"] = np.where(has_traded, rows[:, k.B_LAST_PRICE], UNDEF_PRICE)
        samples["size"] = np.where(has_traded, rows[:, k.B_LAST_SIZE], 0)
        side = np.where(has_traded, rows[:, k.B_LAST_SIDE], ord("N")).astype(np.uint8)
        samples["side"] = side.view("S1")
        ts_event = rows[:, k.B_LAST_TS].view(np.uint64)
        samples["ts_event"] = np.where(has_traded, ts_event, np.uint64(UNDEF_TIMESTAMP))
        self._quotes, self._instrument = self._quotes[:0], self._instrument[:0]
        yield samples[np.lexsort([samples["instrument_id"], samples["publisher_id"]])], self.end_ns
