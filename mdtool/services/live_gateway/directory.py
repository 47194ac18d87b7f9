"""What symbols stand for: instrument ids by day, from headers, definitions and mapping records."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import databento_dbn as dbn

from mdtool.core.records import Records
from mdtool.core.symbology import Interval, dated_mappings, live_names, parent_names
from mdtool.wire.live import ALL_SYMBOLS

_RAW: Final = "raw_symbol"
_INSTRUMENT_ID: Final = "instrument_id"


class Directory:
    """The symbols of one stream.

    Mapping records of a capture hold for their id from their place in the stream on, on any day;
    mappings of the header, and definitions, hold by day.

    Parameters
    ----------
    metadata : databento_dbn.Metadata
        The stream's header.
    defined : iterable of Interval
        The names that definitions give.

    Attributes
    ----------
    is_dated : bool
        Whether these name instruments, so that a symbol that it lacks is unknown for good.
    renamed : set of int
        The ids that stood for another symbol before a mapping record of the stream.
    """

    def __init__(self, metadata: dbn.Metadata, defined: Iterable[Interval] = ()) -> None:
        self._by_name: defaultdict[str, list[Interval]] = defaultdict(list)
        self._by_id: defaultdict[int, list[Interval]] = defaultdict(list)
        self._live: dict[int, tuple[str, ...]] = {}
        self.renamed: set[int] = set()
        mappings = list(dated_mappings(metadata))
        for interval in [*mappings, *parent_names(metadata, mappings), *defined]:
            self._by_name[interval.name].append(interval)
            self._by_id[interval.instrument_id].append(interval)
        self.is_dated = bool(self._by_id)
        known = (each for intervals in self._by_id.values() for each in intervals)
        self._spans = {(each.first_day, each.end_day) for each in known}

    def copy(self) -> Directory:
        """Return one that shares the header's names, and learns by itself."""
        other = copy.copy(self)
        other._live = dict(self._live)  # noqa: SLF001 - its own
        other.renamed = set(self.renamed)
        return other

    def learn(self, mappings: Records) -> bool:
        """Apply mapping records of the stream; return whether they say anything new."""
        before = dict(self._live)
        for record in mappings:
            names = live_names(record, None, is_known=True).names
            number = int(record["instrument_id"])
            dated = {each.name for each in self._by_id.get(number, ())}
            known = set(self._live.get(number, ())) or dated
            if known and known.isdisjoint(names):
                self.renamed.add(number)
            self._live[number] = names
        return before != self._live

    def resolve(self, stype_in: str, symbol: str, day: int) -> dict[int, str]:
        """Return the ids that a symbol stands for on a day, each with its raw symbol.

        Parameters
        ----------
        stype_in : str
            One of `wire.live.STYPES`.
        symbol : str
            `ALL_SYMBOLS` stands for all that have a name.
        day : int
            Days since the epoch.
        """
        if symbol == ALL_SYMBOLS:
            held = (each for known in self._by_id.values() for each in _on(known, day))
            ids = [*(interval.instrument_id for interval in held), *self._live]
        elif stype_in == _INSTRUMENT_ID:
            number = int(symbol) if symbol.isdigit() else -1
            ids = [number] if self._has(number, day) else []
        else:
            ids = [
                interval.instrument_id
                for interval in _on(self._by_name.get(symbol, ()), day)
                if (interval.is_raw if stype_in == _RAW else interval.stype == stype_in)
            ]
            ids += [number for number, names in self._live.items() if symbol in names]
        return {number: self._raw_symbol(number, day) for number in dict.fromkeys(ids)}

    def day_near(self, day: int) -> int:
        """Return the day whose names hold on a day: where it has none, those of the next that has.

        Sessions are sent them at once, also while a market is closed; behind the last day, its own.
        """
        if not self._spans or any(first <= day < end for first, end in self._spans):
            return day
        later = [first for first, _ in self._spans if first > day]
        return min(later) if later else max(end for _, end in self._spans) - 1

    def days(self, stype_in: str, symbol: str) -> set[int]:
        """Return the days from which on a symbol stands for something, as far as is known."""
        if stype_in == _INSTRUMENT_ID:
            known = self._by_id.get(int(symbol), ()) if symbol.isdigit() else ()
        else:
            known = self._by_name.get(symbol, ())
        return {interval.first_day for interval in known}

    def _has(self, number: int, day: int) -> bool:
        if not self.is_dated:
            return number >= 0
        return number in self._live or any(_on(self._by_id.get(number, ()), day))

    def _raw_symbol(self, number: int, day: int) -> str:
        """Return the raw symbol of an id, another name or its digits where none is known."""
        if names := self._live.get(number):
            return names[0]
        known = list(_on(self._by_id.get(number, ()), day))
        raw = next((each.name for each in known if each.is_raw), None)
        return raw or (known[0].name if known else str(number))


def _on(intervals: Iterable[Interval], day: int) -> Iterable[Interval]:
    return (each for each in intervals if each.first_day <= day < each.end_day)
