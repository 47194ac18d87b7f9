"""The symbols that definitions give to instruments, by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from mdtool.adapters.dbn_files import Recording
from mdtool.core.records import Records, index_timestamps
from mdtool.core.symbology import Interval
from mdtool.core.units import NS_PER_DAY
from mdtool.wire.dbn_records import RTYPE_DEFINITION

_LAST_DAY: Final = 2**31
_KINDS: Final = {
    **dict.fromkeys((b"F", b"S"), "FUT"),
    **dict.fromkeys((b"C", b"P", b"T", b"M"), "OPT"),
    b"X": "SPOT",
}
"""What a parent's name ends with, by the class of its instruments."""
_FUTURE: Final = b"F"


class _Definition(NamedTuple):
    """What an instrument is called from a day on."""

    raw_symbol: str
    parent: str
    asset: str
    expiration_ns: int
    is_future: bool


def defined_names(recording: Recording) -> list[Interval]:
    """Return the names that definitions give, each from its day to that of the next one.

    These are raw symbols; parents, such as `ES.FUT`; and continuous contracts by their expiration,
    such as `ES.c.0`. Those by volume and open interest are not to be had from definitions.

    Raises
    ------
    InputError
        When they cannot be read.
    """
    by_day: defaultdict[int, dict[int, _Definition]] = defaultdict(dict)
    with recording.open() as source:
        for batch in source:
            if batch.rtype == RTYPE_DEFINITION:
                _collect(batch.records, by_day)
    names: dict[tuple[int, str, str], Interval] = {}
    found: list[Interval] = []
    known: dict[int, _Definition] = {}
    for day in sorted(by_day):
        known |= by_day[day]
        today = dict.fromkeys(_names(known, day * NS_PER_DAY))
        ended = names.keys() - today.keys()
        found += (names.pop(key)._replace(end_day=day) for key in ended)
        for number, name, stype in today:
            interval = Interval(day, _LAST_DAY, number, name, stype)
            names.setdefault((number, name, stype), interval)
    return [*found, *names.values()]


def _collect(records: Records, by_day: defaultdict[int, dict[int, _Definition]]) -> None:
    days = (index_timestamps(records) // NS_PER_DAY).tolist()
    fields = ("instrument_id", "raw_symbol", "asset", "instrument_class", "expiration")
    columns = [records[name].tolist() for name in fields]
    for day, number, raw_symbol, asset, kind, expiration_ns in zip(days, *columns, strict=True):
        root = asset.decode("ascii", "replace")
        parent = f"{root}.{_KINDS[kind]}" if root and kind in _KINDS else ""
        by_day[day][number] = _Definition(
            raw_symbol.decode("ascii", "replace"), parent, root, expiration_ns, kind == _FUTURE
        )


def _names(known: dict[int, _Definition], now_ns: int) -> Iterator[tuple[int, str, str]]:
    """Yield the id, name and symbology type of each name at the beginning of a day."""
    chains: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, each in known.items():
        yield number, each.raw_symbol, "raw_symbol"
        if each.parent:
            yield number, each.parent, "parent"
        if each.is_future and each.asset and each.expiration_ns > now_ns:
            chains[each.asset].append((each.expiration_ns, number))
    for asset, chain in chains.items():
        for rank, (_, number) in enumerate(sorted(chain)):
            yield number, f"{asset}.c.{rank}", "continuous"
