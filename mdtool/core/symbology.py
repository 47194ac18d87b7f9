"""The names of instrument ids: by date from the headers of files, from then on in live streams.

DBN's `instrument_id` is valid within one dataset and one day, and one id may have several names.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import databento_dbn as dbn
import numpy as np

from mdtool.core.errors import InputError

FIRST_DAY: Final = -(2**31)
"""A day before every date."""

_INSTRUMENT_ID: Final = "instrument_id"
_PARENT: Final = "parent"
_CONTINUOUS: Final = "continuous"
_GROUPS: Final = frozenset({_CONTINUOUS, _PARENT, "smart"})
"""Symbology types whose names stand for another contract on another day, or for several."""
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


class Interval(NamedTuple):
    """A name of an instrument id for some days, the last one exclusive, counted from the epoch."""

    first_day: int
    end_day: int
    instrument_id: int
    name: str
    stype: str

    @property
    def first_date(self) -> dt.date:
        """The first day."""
        return dt.date.fromordinal(self.first_day + _EPOCH)

    @property
    def end_date(self) -> dt.date:
        """The day after the last."""
        return dt.date.fromordinal(self.end_day + _EPOCH)

    @property
    def is_raw(self) -> bool:
        """Whether the name is that of a single instrument."""
        return self.stype not in _GROUPS

    def overlaps(self, other: Interval) -> bool:
        """Return whether there is a day on which both hold."""
        return self.first_day < other.end_day and other.first_day < self.end_day


def dated_mappings(metadata: dbn.Metadata) -> Iterator[Interval]:
    """Yield the mappings of a header between names and instrument ids, in either direction.

    Mappings between other symbology types, and days on which a name had no id, give nothing. The
    names come in the order in which they were requested, those of a request's parts in their own.
    """
    stype_in, stype_out = str(metadata.stype_in), str(metadata.stype_out)
    to_ids = stype_out == _INSTRUMENT_ID
    if not to_ids and stype_in != _INSTRUMENT_ID:
        return
    stype = stype_in if to_ids else stype_out
    requested = {name: place for place, name in enumerate(metadata.symbols)}
    # As a dict they come in another order each time.
    mappings = sorted(
        metadata.mappings.items(),
        key=lambda entry: (requested.get(entry[0], len(requested)), entry),
    )
    for key, intervals in mappings:
        of_key = _stype_of(key, stype)
        for interval in intervals:
            digits, name = (interval["symbol"], key) if to_ids else (key, interval["symbol"])
            if digits.isdigit() and name:
                yield Interval(
                    interval["start_date"].toordinal() - _EPOCH,
                    interval["end_date"].toordinal() - _EPOCH,
                    int(digits),
                    name,
                    of_key if to_ids else _stype_of(name, stype),
                )


def parent_names(metadata: dbn.Metadata, mappings: Sequence[Interval]) -> Iterator[Interval]:
    """Yield the parents that were requested as names of what they resolved to.

    A header of a parent's request maps the raw symbols alone. Of several parents, a raw symbol's is
    the one with the longest root that it begins with.

    Parameters
    ----------
    metadata : databento_dbn.Metadata
    mappings : sequence of Interval
        What `dated_mappings` yields.
    """
    if str(metadata.stype_in) != _PARENT:
        return
    parents = sorted(set(metadata.symbols) - set(metadata.mappings), key=len, reverse=True)
    for interval in mappings:
        if interval.is_raw:
            for parent in parents:
                root = parent.partition(".")[0]
                if len(metadata.symbols) == 1 or interval.name.startswith(root):
                    yield interval._replace(name=parent, stype=_PARENT)
                    break


def _stype_of(name: str, requested: str) -> str:
    """Return a name's own symbology type, whatever else was requested with it.

    What a parent or continuous name resolved to is raw. Headers of merged streams have names of
    several types.
    """
    root, _, kind = name.partition(".")
    if root and kind in {"FUT", "OPT", "SPOT"}:
        group = _PARENT
    elif root and kind[1:2] == "." and kind[2:].isdigit():
        group = _CONTINUOUS
    else:
        return "raw_symbol" if requested in _GROUPS else requested
    return requested if requested in _GROUPS else group


class Names(NamedTuple):
    """What is known of an id at a time: which instrument it is, and all its names."""

    identity: Hashable
    """Its raw symbol, or the id and when that began to mean this; apart from the publisher."""
    names: tuple[str, ...]
    """The raw symbol first, then those that hold as long as the instrument, then the others."""
    is_first: bool = False
    """Whether nothing was known of the id before."""


@dataclass(slots=True)
class DatasetNames:
    """The dated names of the ids of a dataset, from all its headers."""

    name: str
    raw: dict[int, list[Interval]] = field(default_factory=dict)
    """The raw symbols by id, in order of time, without overlaps."""
    others: dict[int, list[Interval]] = field(default_factory=dict)
    by_name: dict[str, list[Interval]] = field(default_factory=dict)
    """Raw symbols only."""
    headers: list[tuple[str, list[Interval]]] = field(default_factory=list)

    def add(self, source: str, intervals: list[Interval]) -> None:
        """Add the mappings of a header.

        Raises
        ------
        InputError
            When it contradicts another one.
        """
        in_order = sorted(intervals, key=lambda interval: interval.first_day)
        for interval in in_order if self.headers else ():
            if clash := self._clash(interval):
                self._refuse(source, interval, clash)
        for interval in in_order:
            self._insert(interval)
        self.headers.append((source, intervals))

    def _clash(self, new: Interval) -> Interval | None:
        """Return an interval of another header that cannot hold beside `new`."""
        for known in _overlapping(self.raw.get(new.instrument_id, []), new):
            if known.name != new.name and known.stype == new.stype:
                return known
        for known in self.others.get(new.instrument_id, []):
            if (
                known.overlaps(new)
                and not (known.is_raw or new.is_raw)
                and _root(known) != _root(new)
            ):
                return known
        if new.is_raw:
            for known in _overlapping(self.by_name.get(new.name, []), new):
                if known.instrument_id != new.instrument_id and known.stype == new.stype:
                    return known
        return None

    def _refuse(self, source: str, new: Interval, clash: Interval) -> None:
        other = next(
            name
            for name, intervals in self.headers
            for known in intervals
            if (known.instrument_id, known.name) == (clash.instrument_id, clash.name)
            and known.overlaps(new)
        )
        day = max(new.first_date, clash.first_date)
        if clash.instrument_id == new.instrument_id:
            what = f"instrument {new.instrument_id} is {clash.name} in one, {new.name} in the other"
        else:
            what = (
                f"{new.name} is instrument {clash.instrument_id} in one, {new.instrument_id} in the"
                " other"
            )
        raise InputError(f"{other} and {source} cannot be merged: on {day} {what}")

    def _insert(self, new: Interval) -> None:
        """Enter an interval; where a raw symbol has the days already, it is another name."""
        raw = self.raw.setdefault(new.instrument_id, [])
        taken = _overlapping(raw, new) if new.is_raw else ()
        if not new.is_raw or (taken and any(known.name != new.name for known in taken)):
            others = self.others.setdefault(new.instrument_id, [])
            if new not in others:
                others.append(new)
            return
        for intervals in (raw, self.by_name.setdefault(new.name, [])):
            _unite(intervals, new)

    def names_on(self, instrument_id: int, day: int) -> Names:
        """Return what an id means on a day."""
        raw = self.raw.get(instrument_id, [])
        others = self.others.get(instrument_id, [])
        place = bisect_right(raw, day, key=lambda interval: interval.first_day) - 1
        named = [raw[place]] if place >= 0 and day < raw[place].end_day else []
        aliases = [known for known in others if known.first_day <= day < known.end_day]
        if named:
            first, end = named[0].first_day, named[0].end_day
            identity: Hashable = named[0].name
        elif aliases:
            first, end = _run(aliases, others)
            identity = (instrument_id, first)
        if named or aliases:
            aliases.sort(key=lambda known: not _holds(known.name, others, first, end))
            names = tuple(dict.fromkeys(interval.name for interval in named + aliases))
            return Names(identity, names)
        before = raw[place].end_day if place >= 0 else FIRST_DAY
        ended = [known.end_day for known in others if known.end_day <= day]
        return Names((instrument_id, max(before, *ended, FIRST_DAY)), ())

    def is_known(self, instrument_id: int) -> bool:
        """Return whether a header names an id on any day."""
        return bool(self.raw.get(instrument_id) or self.others.get(instrument_id))


def _overlapping(intervals: list[Interval], new: Interval) -> list[Interval]:
    """Return those of intervals in order, which do not overlap each other, that overlap another."""
    if not intervals or intervals[-1].end_day <= new.first_day:
        return []
    end = bisect_right(intervals, new.end_day - 1, key=lambda interval: interval.first_day)
    begin = end
    while begin > 0 and intervals[begin - 1].end_day > new.first_day:
        begin -= 1
    return intervals[begin:end]


def _unite(intervals: list[Interval], new: Interval) -> None:
    """Enter an interval in order, together with those that it overlaps: of one id and name."""
    if not intervals or intervals[-1].end_day <= new.first_day:
        intervals.append(new)
        return
    same = [
        known
        for known in _overlapping(intervals, new)
        if (known.instrument_id, known.name) == (new.instrument_id, new.name)
    ]
    for known in same:
        intervals.remove(known)
    first = min([new.first_day, *(known.first_day for known in same)])
    end = max([new.end_day, *(known.end_day for known in same)])
    place = bisect_right(intervals, first, key=lambda interval: interval.first_day)
    intervals.insert(place, new._replace(first_day=first, end_day=end))


def _run(active: list[Interval], known: list[Interval]) -> tuple[int, int]:
    """Return the days, the last exclusive, on which an id means the same, by its names.

    Intervals belong together that overlap, or that follow each other and have a name in common.
    """
    run = list(active)
    while True:
        first = min(interval.first_day for interval in run)
        end = max(interval.end_day for interval in run)
        names = {interval.name for interval in run}
        further = [
            interval
            for interval in known
            if (interval.first_day < first < interval.end_day)
            or (interval.first_day < end < interval.end_day)
            or (interval.name in names and first == interval.end_day)
            or (interval.name in names and end == interval.first_day)
        ]
        if not further:
            return first, end
        run += further


def _holds(name: str, known: list[Interval], first_day: int, end_day: int) -> bool:
    """Return whether a name has intervals for all of some days."""
    day = first_day
    for interval in sorted(known):
        if interval.name == name and interval.first_day <= day:
            day = max(day, interval.end_day)
    return day >= end_day


def _root(interval: Interval) -> str:
    return interval.name.partition(".")[0]


def live_names(mapping: np.void, before: Names | None, is_known: bool) -> Names:
    """Return what an id means from a symbol mapping record on.

    An instrument that was requested by several names has a record for each: names of one raw
    symbol, or of one root, add up.

    Parameters
    ----------
    mapping : SYMBOL_MAPPING
    before : Names, optional
        The names from an earlier mapping record of the id.
    is_known : bool
        Whether a header names the id.
    """
    texts = [
        mapping[side].decode("ascii", "replace") for side in ("stype_out_symbol", "stype_in_symbol")
    ]
    names = tuple(dict.fromkeys(text for text in texts if text and not text.isdigit()))
    raw = next((name for name in names if _stype_of(name, "parent") == "raw_symbol"), None)
    if before is None or not _adds_up(before, raw, names):
        identity = raw or (int(mapping["instrument_id"]), "live", names)
        return Names(identity, names, is_first=before is None and not is_known)
    together = dict.fromkeys([*([raw] if raw else ()), *before.names, *names])
    return Names(raw or before.identity, tuple(together), before.is_first)


def _adds_up(before: Names, raw: str | None, names: Sequence[str]) -> bool:
    """Return whether an id that had names before means the same with further ones."""
    if raw is not None:
        return raw in before.names
    roots = {name.partition(".")[0] for name in names}
    is_raw = isinstance(before.identity, str)
    return any(
        known.startswith(root) if is_raw else known.partition(".")[0] == root
        for known in before.names[:1]
        for root in roots
    )


def moving(names: Names) -> list[str]:
    """Return the continuous names of an id: a later mapping moves them to another one."""
    return [name for name in names.names if _stype_of(name, "") == _CONTINUOUS]


def without(names: Names, name: str, instrument_id: int) -> Names:
    """Return what an id means once one of its names has moved to another id."""
    rest = tuple(each for each in names.names if each != name)
    return Names(names.identity if rest else (instrument_id, "live", ()), rest)
