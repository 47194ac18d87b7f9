"""What a session has subscribed to: which records and symbol mappings it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import (
    RTYPE_BBO_1M,
    RTYPE_BBO_1S,
    RTYPE_SYMBOL_MAPPING,
    RTYPE_SYSTEM,
)
from mdtool.core.permissions import Reader
from mdtool.core.records import Records, index_timestamps, pacing_timestamps
from mdtool.core.units import NS_PER_DAY
from mdtool.engine.derived import Made
from mdtool.services.live_gateway.directory import Directory
from mdtool.services.live_gateway.inputs import Input
from mdtool.wire.dbn_records import RTYPE_CBBO_1M, RTYPE_CBBO_1S, RTYPES
from mdtool.wire.live import ALL_SYMBOLS, STYPES, Subscribe, Unsubscribe

SKIPPABLE: Final = frozenset(
    {"mbp-1", "mbp-10", "bbo-1s", "bbo-1m", "cmbp-1", "cbbo-1s", "cbbo-1m"}
)
"""The schemas of states: a slow reader of these may miss records."""
_BY_TS_RECV: Final = frozenset({RTYPE_BBO_1S, RTYPE_BBO_1M, RTYPE_CBBO_1S, RTYPE_CBBO_1M})

Mask = npt.NDArray[np.bool_]
Ids = frozenset[int] | None
"""Of instruments; None stands for all."""


class Mapping(NamedTuple):
    """A symbol, as it was subscribed, and an instrument that it stands for."""

    stype_in: str
    symbol: str
    instrument_id: int
    raw_symbol: str


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscription.

    Attributes
    ----------
    request : Subscribe
    number : int
        What acknowledgements call it.
    symbols : dict of str
        Those that have not been unsubscribed.
    reader : Reader or None
        What its client may read; None for everything. Other symbols stand for nothing.
    begin : int
        The position from which on it gets records: that of its snapshot, else 0.
    """

    request: Subscribe
    number: int
    symbols: dict[str, None]
    reader: Reader | None = None
    begin: int = 0
    _day: int = 0
    _ids_on: dict[int, npt.NDArray[np.uint32]] = field(default_factory=dict)
    _told: set[Mapping] = field(default_factory=set)

    @property
    def schema(self) -> str:
        """Its schema."""
        return self.request.schema

    @property
    def is_replay(self) -> bool:
        """Whether it begins before the live records."""
        return self.request.start_ns is not None

    def resolve(self, directory: Directory, day: int) -> tuple[list[Mapping], list[str]]:
        """Resolve its symbols on a day; return what is new, and the symbols without instrument."""
        ids: set[int] = set()
        new: list[Mapping] = []
        unresolved = []
        for symbol in self.symbols:
            found = self._shown(directory.resolve(self.request.stype_in, symbol, day))
            ids.update(found)
            if not found and symbol != ALL_SYMBOLS:
                unresolved.append(symbol)
            for number, raw_symbol in found.items():
                mapping = self._mapping(symbol, number, raw_symbol)
                if mapping not in self._told:
                    self._told.add(mapping)
                    new.append(mapping)
        if day < self._day:  # the stream has begun again, or was sought
            self._ids_on.clear()
        self._ids_on[day] = np.array(sorted(ids), np.uint32)
        self._day = day
        # What ends with a day is made when the next one begins, after a weekend perhaps.
        for old in sorted(self._ids_on)[:-2]:
            del self._ids_on[old]
        return new, unresolved

    def can_resolve(self, directory: Directory, symbol: str) -> bool:
        """Return whether one of its symbols has an instrument on any day."""
        stype_in = self.request.stype_in
        return any(
            self._shown(directory.resolve(stype_in, symbol, day))
            for day in directory.days(stype_in, symbol)
        )

    def selects(self, records: Records, day: int | None = None) -> Mask:
        """Return which records of its rtype it gets, shape (n,).

        Their ids are those of a day, by default of the latest one.
        """
        if not len(records):
            return np.zeros(0, np.bool_)
        known = [each for each in self._ids_on if day is not None and each <= day]
        ids = self._ids_on[max(known, default=self._day)]
        if self.has_all:
            chosen = np.ones(len(records), np.bool_)
        elif len(ids) == 1:
            chosen = records["instrument_id"] == ids[0]
        else:
            chosen = _among(records["instrument_id"], ids)
        if self.request.start_ns:
            is_state = int(records["rtype"][0]) in _BY_TS_RECV
            clock = "ts_recv" if is_state else "ts_event"
            chosen &= pacing_timestamps(records, clock) >= self.request.start_ns
        return chosen

    @property
    def has_all(self) -> bool:
        """Whether it gets every instrument, those without a name too."""
        return ALL_SYMBOLS in self.symbols and self.reader is None

    @property
    def ids(self) -> Ids:
        """The ids of its instruments on the latest day; None for all."""
        return None if self.has_all else self.named

    @property
    def named(self) -> frozenset[int]:
        """The ids of its instruments that have a name on the latest day."""
        return frozenset(self._ids_on[self._day].tolist())

    def _shown(self, found: dict[int, str]) -> dict[int, str]:
        """Return those of some ids that the client may read, by their raw symbols."""
        if self.reader is None:
            return found
        return {number: raw for number, raw in found.items() if self.reader.can_read(raw)}

    def _mapping(self, symbol: str, number: int, raw_symbol: str) -> Mapping:
        if symbol == ALL_SYMBOLS:
            return Mapping(STYPES[0], raw_symbol, number, raw_symbol)
        return Mapping(self.request.stype_in, symbol, number, raw_symbol)


class Subscriptions:
    """The subscriptions of one session, and the symbols as they are at its place in the stream.

    Parameters
    ----------
    directory : Directory
    played : Input

    Attributes
    ----------
    offset_ns : int
        How far the times of records are ahead of those for which symbols hold.
    """

    def __init__(self, directory: Directory, played: Input) -> None:
        self.offset_ns = 0
        self._directory = directory
        self._input = played
        self._active: list[Subscription] = []
        self._day = 0
        self._ids: dict[tuple[int, str | None], tuple[bool, Ids]] = {}
        self._start_ns = 0
        self._reached_ns = 0
        self._renamed_ns: dict[int, int] = {}
        """Up to when an id stood for another symbol, which the client may not read."""

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self._active)

    def begin(self, directory: Directory, ts_ns: int) -> None:
        """Continue at another place, of another pass over the stream perhaps."""
        self._directory = directory
        self._ids.clear()
        self._reached_ns = ts_ns
        self._renamed_ns = dict.fromkeys(directory.renamed, ts_ns)
        self._day = directory.day_near(self._day_of(ts_ns))
        for each in self._active:
            each.begin = 0
            each.resolve(directory, self._day)

    def add(self, subscription: Subscription) -> tuple[list[Mapping], list[str]]:
        """Add one; return its mappings, and the symbols that have no instrument on any day.

        Others are resolved when their day comes, and of a capture when their mapping record does.
        """
        self._active.append(subscription)
        self._ids.clear()
        self._start_ns = max(self._start_ns, subscription.request.start_ns or 0)
        mappings, unresolved = subscription.resolve(self._directory, self._day)
        if not self._directory.is_dated:
            return mappings, []
        never = [each for each in unresolved if not subscription.can_resolve(self._directory, each)]
        return mappings, never

    def remove(self, request: Unsubscribe) -> list[str]:
        """End subscriptions; return the symbols that are not subscribed."""
        missing = dict.fromkeys(request.symbols)
        for each in self._active:
            if (each.schema, each.request.stype_in) == (request.schema, request.stype_in):
                for symbol in each.symbols.keys() & set(request.symbols):
                    del each.symbols[symbol]
                    missing.pop(symbol, None)
                each.resolve(self._directory, self._day)
        self._active = [each for each in self._active if each.symbols]
        self._ids.clear()
        return list(missing)

    def parts(self, records: Records, latest_ns: int) -> Iterator[tuple[Records, list[Mapping]]]:
        """Cut records where symbols get another meaning; yield what is new before each part.

        Parameters
        ----------
        records : structured array, shape (n,)
            The next ones of the stream, of one rtype.
        latest_ns : int
            The latest of their index timestamps.
        """
        if int(records["rtype"][0]) == RTYPE_SYMBOL_MAPPING:
            if self._directory.learn(records):
                numbers = self._directory.renamed.intersection(records["instrument_id"].tolist())
                self._renamed_ns.update(dict.fromkeys(numbers, self._reached_ns))
                yield records[:0], self._resolve()
            return
        self._reached_ns = max(self._reached_ns, latest_ns)
        if self._day_of(latest_ns) <= self._day:
            yield records, []
            return
        ts_ns = index_timestamps(records)
        days = np.maximum.accumulate((ts_ns - self.offset_ns) // NS_PER_DAY)
        begin = int(np.searchsorted(days, self._day, side="right"))
        if begin:
            yield records[:begin], []
        while begin < len(records):
            self._day = int(days[begin])
            end = int(np.searchsorted(days, self._day, side="right"))
            yield records[begin:end], self._resolve()
            begin = end

    @property
    def schemas(self) -> frozenset[str]:
        """The schemas of all subscriptions."""
        return frozenset(each.schema for each in self._active)

    def are_settled(self, first_ns: int, latest_ns: int) -> bool:
        """Return whether symbols have one meaning, which is known, from a time to another."""
        is_of_day = self._day_of(first_ns) == self._day == self._day_of(latest_ns)
        return is_of_day and not self._has_hidden_past

    @property
    def start_ns(self) -> int:
        """The latest time at which a subscription starts, 0 where none has a start."""
        return self._start_ns

    def ids(self, rtype: int, schema: str | None) -> tuple[bool, Ids]:
        """Return whether records are subscribed, and the ids of their instruments; None for all.

        Parameters
        ----------
        rtype : int
            Theirs.
        schema : str or None
            That for which they were made; None for records of the input.
        """
        found = self._ids.get((rtype, schema))
        if found is None:
            found = self._ids[rtype, schema] = self._find_ids(rtype, schema)
        return found

    def _find_ids(self, rtype: int, schema: str | None) -> tuple[bool, Ids]:
        wanted = self._of_rtype(rtype) if schema is None else self.of_schema(schema)
        ids = [each.ids for each in wanted]
        some = [each for each in ids if each is not None]
        return bool(wanted), frozenset().union(*some) if len(some) == len(ids) else None

    def _of_rtype(
        self, rtype: int, left_out: frozenset[Subscription] = frozenset()
    ) -> list[Subscription]:
        """Return the subscriptions that get records of the input of an rtype."""
        return [
            each
            for each in self._active
            if RTYPES[each.schema] == rtype
            and each not in left_out
            and self._input.has(each.schema)
        ]

    def select(self, records: Records, left_out: frozenset[Subscription] = frozenset()) -> Mask:
        """Return which records of the input the session gets, shape (n,).

        The warnings of a recorded stream are for every session.

        Parameters
        ----------
        records : structured array, shape (n,)
            One of `parts`.
        left_out : frozenset of Subscription
            Subscriptions that get none of them.
        """
        if not len(records):
            return np.zeros(0, np.bool_)
        rtype = int(records["rtype"][0])
        if rtype == RTYPE_SYSTEM:
            return np.ones(len(records), np.bool_)
        return _any_of(records, self._of_rtype(rtype, left_out))

    def select_made(self, made: Made, left_out: frozenset[Subscription] = frozenset()) -> Mask:
        """Return which records that were made of the input the session gets, shape (n,)."""
        wanted = self.of_schema(made.schema, left_out)
        chosen = self._select_made(made, wanted)
        if self._has_hidden_past and len(chosen):
            # A bar or a sample may have begun before its id got another symbol.
            for number, ts_ns in self._renamed_ns.items():
                is_of_id = made.records["instrument_id"] == number
                chosen &= ~(is_of_id & (made.records["ts_event"] <= ts_ns))
        return chosen

    def _select_made(self, made: Made, wanted: Sequence[Subscription]) -> Mask:
        if made.end_ns is not None:
            return _any_of(made.records, wanted, self._day_of(made.end_ns - 1))
        ts_ns = index_timestamps(made.records)
        first = self._day_of(int(ts_ns.min()))
        if first == self._day_of(int(ts_ns.max())):
            return _any_of(made.records, wanted, first)
        chosen = np.zeros(len(made.records), np.bool_)
        days = (ts_ns - self.offset_ns) // NS_PER_DAY
        for day in np.unique(days).tolist():
            is_of_day = days == day
            chosen[is_of_day] = _any_of(made.records[is_of_day], wanted, day)
        return chosen

    def of_schema(
        self, schema: str, left_out: frozenset[Subscription] = frozenset()
    ) -> list[Subscription]:
        """Return the subscriptions of a schema."""
        return [each for each in self._active if each.schema == schema and each not in left_out]

    @property
    def _has_hidden_past(self) -> bool:
        """Whether an id may have stood for a symbol that the client may not read."""
        return bool(self._renamed_ns) and any(each.reader is not None for each in self._active)

    def _day_of(self, ts_ns: int) -> int:
        return (ts_ns - self.offset_ns) // NS_PER_DAY

    def _resolve(self) -> list[Mapping]:
        self._ids.clear()
        found = [each.resolve(self._directory, self._day)[0] for each in self._active]
        return list(dict.fromkeys(mapping for mappings in found for mapping in mappings))


def _any_of(records: Records, wanted: Sequence[Subscription], day: int | None = None) -> Mask:
    """Return which records one or more subscriptions get, shape (n,)."""
    if len(wanted) == 1:
        return wanted[0].selects(records, day)
    chosen = np.zeros(len(records), np.bool_)
    for each in wanted:
        chosen |= each.selects(records, day)
    return chosen


def _among(found: npt.NDArray[np.uint32], ids: npt.NDArray[np.uint32]) -> Mask:
    """Return which ids are among some that are sorted, at a quarter of what `np.isin` costs."""
    if not len(ids):
        return np.zeros(len(found), np.bool_)
    places = ids.searchsorted(found)
    chosen: Mask = ids.take(places, mode="clip") == found
    return chosen
