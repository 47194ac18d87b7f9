"""Which symbol an instrument id means on a date, or from now on.

A DBN file's metadata maps ids to symbols by UTC date; a live stream maps them by records that
hold from where they stand. Both are kept here, and whole arrays are looked up at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final, TypeAlias

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.core.records import Records, index_timestamps
from mdtool.core.symbols import SymbolTable
from mdtool.core.units import NS_PER_DAY

Interval: TypeAlias = tuple[dt.date, dt.date, str]
"""First date, the date after the last, and the symbol."""

_INSTRUMENT_ID: Final = "instrument_id"
_DAY_BITS: Final = 22
_EPOCH: Final = dt.date(1970, 1, 1)
_ALWAYS: Final = (_EPOCH, dt.date.max)


class Symbology:
    """Symbols by instrument id and the UTC date of the index timestamp.

    Parameters
    ----------
    metadata : databento_dbn.Metadata, optional
        Its mappings are taken where one of its symbology types is `instrument_id`.

    Attributes
    ----------
    symbols : SymbolTable
        Every symbol known so far; indices stay as they are when more come.
    version : int
        Grows with every change of a mapping.
    """

    def __init__(self, metadata: dbn.Metadata | None = None) -> None:
        self.symbols = SymbolTable()
        self.version = 0
        self._intervals: dict[int, list[Interval]] = {}
        self._ids: npt.NDArray[np.int64]
        self._keys: npt.NDArray[np.int64]
        self._ends: npt.NDArray[np.int64]
        self._indices: npt.NDArray[np.uint32]
        self._is_stale = True
        if metadata is not None:
            self.add(metadata)

    def add(self, metadata: dbn.Metadata) -> None:
        """Take over the dated mappings of a file."""
        for instrument_id, interval in dated_mappings(metadata):
            known = self._intervals.setdefault(instrument_id, [])
            if interval not in known:
                known.append(interval)
            self.symbols.intern(interval[2])
        self._changed()

    def learn(self, mappings: Records) -> None:
        """Take over symbol mapping records: each holds for its id from here on, on any date.

        Parameters
        ----------
        mappings : array of SYMBOL_MAPPING, shape (n,)
        """
        for record in mappings:
            symbol = record["stype_out_symbol"].decode("ascii", "replace")
            if symbol.isdigit():
                symbol = record["stype_in_symbol"].decode("ascii", "replace")
            self._intervals[int(record["instrument_id"])] = [(*_ALWAYS, symbol)]
            self.symbols.intern(symbol)
        self._changed()

    def intervals(self) -> dict[int, list[Interval]]:
        """Return every mapping, by instrument id."""
        return {instrument_id: list(known) for instrument_id, known in self._intervals.items()}

    def symbols_of(self, records: Records) -> tuple[npt.NDArray[np.uint32], SymbolTable]:
        """Return each record's symbol.

        Parameters
        ----------
        records : structured array, shape (n,)
            Records of one rtype.

        Returns
        -------
        indices : uint32 array, shape (n,)
        table : SymbolTable
            `symbols`; an id without a mapping on its date stands in it as its decimal digits.
        """
        return self._look_up(records["instrument_id"], index_timestamps(records)), self.symbols

    def symbol(self, instrument_id: int, ts_ns: int) -> str:
        """Return the symbol of an id at a time, its decimal digits where it has none."""
        found = self._look_up(np.array([instrument_id]), np.array([ts_ns], np.int64))
        return self.symbols[int(found[0])]

    def _look_up(
        self, instrument_ids: npt.NDArray[np.integer], ts_ns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint32]:
        if self._is_stale:
            self._sort()
        ids = instrument_ids.astype(np.int64)
        days = ts_ns // NS_PER_DAY
        position = np.searchsorted(self._keys, (ids << _DAY_BITS) + days, side="right") - 1
        indices = self._indices[position]
        unmapped = (self._ids[position] != ids) | (days >= self._ends[position])
        if unmapped.any():
            unknown, inverse = np.unique(ids[unmapped], return_inverse=True)
            named = [self.symbols.intern(str(instrument_id)) for instrument_id in unknown.tolist()]
            indices[unmapped] = np.array(named, np.uint32)[inverse]
        return indices

    def _changed(self) -> None:
        self._is_stale = True
        self.version += 1

    def _sort(self) -> None:
        """Lay the mappings out for a binary search by (instrument id, first day).

        The first row is a sentinel that no id matches.
        """
        rows = sorted(
            (instrument_id, (start - _EPOCH).days, (end - _EPOCH).days, self.symbols.intern(symbol))
            for instrument_id, known in self._intervals.items()
            for start, end, symbol in known
        )
        columns = np.array([(-1, 0, 0, 0), *rows], np.int64)
        self._ids = columns[:, 0].copy()
        self._keys = (columns[:, 0] << _DAY_BITS) + columns[:, 1]
        self._ends = columns[:, 2].copy()
        self._indices = columns[:, 3].astype(np.uint32)
        self._is_stale = False


def dated_mappings(metadata: dbn.Metadata) -> Iterable[tuple[int, Interval]]:
    """Yield the metadata's mappings as (instrument id, interval), whichever way round they stand.

    Mappings between other symbology types, and days on which a symbol had no id, give nothing.
    """
    to_ids = str(metadata.stype_out) == _INSTRUMENT_ID
    if not to_ids and str(metadata.stype_in) != _INSTRUMENT_ID:
        return
    # As a dict they come in another order each time.
    for name, intervals in sorted(metadata.mappings.items()):
        for interval in intervals:
            digits, symbol = (interval["symbol"], name) if to_ids else (name, interval["symbol"])
            if digits.isdigit() and symbol:
                yield int(digits), (interval["start_date"], interval["end_date"], symbol)
