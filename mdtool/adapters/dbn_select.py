"""Part of a source's records: one schema, some symbols, a range of time."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.adapters.dbn_source import DerivedSource, RecordSource
from mdtool.core.errors import InputError, UsageError
from mdtool.core.records import Records, has_trades, index_timestamps, trades_of
from mdtool.wire.dbn_metadata import with_schema
from mdtool.wire.dbn_records import CONTROL_RTYPES, DTYPES, RTYPES

log = logging.getLogger(__name__)

_TRADES: Final = "trades"
_NAMED_AT_MOST: Final = 10


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records are wanted.

    Attributes
    ----------
    symbols : frozenset of str, optional
        As the stream's symbology names them.
    start_ns, end_ns : int, optional
        The first index timestamp wanted, and the first one not wanted any more.
    """

    symbols: frozenset[str] | None = None
    start_ns: int | None = None
    end_ns: int | None = None


class SchemaSource(DerivedSource):
    """The records of one schema, and what a live stream says about itself.

    Trades are also taken out of MBO and MBP, whose `T` records they are; the metadata then says
    trades.

    Parameters
    ----------
    source : RecordSource
        Closed together with this one.
    schema : str

    Raises
    ------
    UsageError
        When there is no such schema.
    InputError
        When the source cannot have records of it.
    """

    def __init__(self, source: RecordSource, schema: str) -> None:
        super().__init__(source)
        if schema not in RTYPES:
            close = difflib.get_close_matches(schema, RTYPES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(RTYPES)}"
            raise UsageError(f"no schema {schema!r}; {hint}")
        held = source.metadata.schema and str(source.metadata.schema)
        self._rtype = RTYPES[schema]
        self._is_derived = (
            schema == _TRADES and held is not None and has_trades(DTYPES[RTYPES[held]])
        )
        if held not in (None, schema) and not self._is_derived:
            raise InputError(f"{source.name}: holds {held}, from which {schema} cannot be taken")
        self._metadata = with_schema(source.metadata, schema)

    @property
    def metadata(self) -> dbn.Metadata:
        """The source's own, but for the schema."""
        return self._metadata

    def __iter__(self) -> Iterator[Records]:
        for records in self._source:
            rtype = int(records["rtype"][0])
            if rtype == self._rtype or rtype in CONTROL_RTYPES:
                yield records
            elif self._is_derived and has_trades(records.dtype):
                trades = trades_of(records)
                if len(trades):
                    yield trades


class SelectedSource(DerivedSource):
    """The records that a selection wants, and what a live stream says about itself.

    It ends with the first array of which every record is from the end of the range or later.
    Symbols of which there was no record are named on the log when the source has ended.

    Parameters
    ----------
    source : RecordSource
        Closed together with this one.
    selection : Selection
    """

    def __init__(self, source: RecordSource, selection: Selection) -> None:
        super().__init__(source)
        self._selection = selection
        self._is_wanted = np.empty(0, np.bool_)
        self._is_met = np.empty(0, np.bool_)

    def __iter__(self) -> Iterator[Records]:
        for records in self._source:
            if records["rtype"][0] in CONTROL_RTYPES:
                yield records
                continue
            ts_ns = index_timestamps(records)
            if self._selection.end_ns is not None and (ts_ns >= self._selection.end_ns).all():
                break
            wanted = self._in_range(ts_ns)
            if self._selection.symbols is not None:
                wanted &= self._has_symbol(records)
            if wanted.all():
                yield records
            elif wanted.any():
                yield records[wanted]
        self._name_missing()

    def _in_range(self, ts_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        wanted = np.ones(len(ts_ns), np.bool_)
        if self._selection.start_ns is not None:
            wanted &= ts_ns >= self._selection.start_ns
        if self._selection.end_ns is not None:
            wanted &= ts_ns < self._selection.end_ns
        return wanted

    def _has_symbol(self, records: Records) -> npt.NDArray[np.bool_]:
        assert self._selection.symbols is not None
        indices, table = self.symbology.symbols_of(records)
        new = table.since(len(self._is_wanted))
        if new:
            wanted = [symbol in self._selection.symbols for symbol in new]
            self._is_wanted = np.append(self._is_wanted, wanted)
            self._is_met = np.append(self._is_met, np.zeros(len(new), np.bool_))
        self._is_met[indices] = True
        return self._is_wanted[indices]

    def _name_missing(self) -> None:
        if self._selection.symbols is None:
            return
        table = self.symbology.symbols
        met = {table[int(index)] for index in np.flatnonzero(self._is_met)}
        missing = sorted(self._selection.symbols - met)
        if missing:
            there = sorted(met)[:_NAMED_AT_MOST]
            more = ", ..." if len(met) > _NAMED_AT_MOST else ""
            log.warning(
                "%s: no records of %s; there are %s%s",
                self.name,
                ", ".join(missing),
                ", ".join(there) or "none at all",
                more,
            )


def selected(source: RecordSource, selection: Selection | None) -> RecordSource:
    """Return a source of what a selection wants of another one: that itself where there is none."""
    return source if selection is None else SelectedSource(source, selection)
