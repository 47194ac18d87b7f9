"""Selections of a source's records: one schema, some symbols, a range of time."""

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
from mdtool.adapters.dbn_trades import TradeSource
from mdtool.core.batch import Batch
from mdtool.core.dtypes import RTYPE_TRADE
from mdtool.core.errors import InputError, UsageError
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import has_trades
from mdtool.core.units import NS_PER_S
from mdtool.wire.dbn_metadata import with_schema
from mdtool.wire.dbn_records import CONTROL_RTYPES, DTYPES, RTYPES

log = logging.getLogger(__name__)

TRADES: Final = "trades"
_NAMED_AT_MOST: Final = 10
_GRACE_NS: Final = 60 * NS_PER_S
"""How far behind the end of a range a file is read for records that are late."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records to read.

    Attributes
    ----------
    symbols : tuple of str, optional
        Any names of instruments: raw symbols, continuous, parent. Each record is labelled by the
        requested name, the first one where several are of its instrument.
    start_ns, end_ns : int, optional
        The first index timestamp to read, and the first one after the range.
    """

    symbols: tuple[str, ...] | None = None
    start_ns: int | None = None
    end_ns: int | None = None


class SchemaSource(DerivedSource):
    """The records of one schema, and the control records of a live stream.

    Trades are also taken out of MBO and MBP, whose `T` records they are, each once where a stream
    has several views of them; the metadata then says trades.

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
            raise UsageError(f"schema {schema!r}: does not exist; {hint}")
        held = source.metadata.schema and str(source.metadata.schema)
        self._rtype = RTYPES[schema]
        has_some = schema == TRADES and (held is None or has_trades(DTYPES[RTYPES[held]]))
        if held not in (None, schema) and not has_some:
            raise InputError(f"{source.name}: holds {held}, from which {schema} cannot be taken")
        if schema == TRADES:
            self._source = TradeSource(source)
        self._metadata = with_schema(source.metadata, schema)

    @property
    def metadata(self) -> dbn.Metadata:
        """The source's own, but for the schema."""
        return self._metadata

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            rtype = batch.rtype
            if rtype == self._rtype or rtype in CONTROL_RTYPES:
                yield batch
            elif self._rtype == RTYPE_TRADE and has_trades(batch.records.dtype):
                trades = batch.trades()
                if len(trades):
                    yield trades


class SelectedSource(DerivedSource):
    """The records of a selection, and the control records of a live stream.

    A source in order of time is read until a minute after the end of the range, in case a record is
    late, and a stream of it until the first array behind that end. A source that is not in order,
    or in which a timestamp has fallen, is read to its own end.

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
        self._is_found = np.empty(0, np.bool_)
        self._is_ordered = source.is_ordered
        self._latest_ns = -1
        if selection.symbols is not None:
            source.instruments.select(selection.symbols)

    def __iter__(self) -> Iterator[Batch]:
        for wanted in self.whole():
            yield from wanted.runs()

    def whole(self) -> Iterator[Batch | Interleaved]:
        """Yield what is wanted of the source's own."""
        for batch in self._source.whole():
            if batch.rtypes <= CONTROL_RTYPES:
                yield batch
                continue
            ts_ns = batch.index_timestamps
            if self._is_over(ts_ns):
                break
            wanted = self._in_range(ts_ns)
            if self._selection.symbols is not None:
                wanted &= self._is_selected(batch)
            if wanted.all():
                yield batch
            elif wanted.any():
                yield batch[wanted]
        self._name_missing()

    def _is_over(self, ts_ns: npt.NDArray[np.int64]) -> bool:
        """Return whether no record of the range can follow, now that these have come."""
        if self._selection.end_ns is None or not self._is_ordered:
            return False
        first, self._latest_ns = self._latest_ns, int(ts_ns[-1])
        self._is_ordered = first <= int(ts_ns[0]) and bool((ts_ns[1:] >= ts_ns[:-1]).all())
        grace_ns = 0 if self.size_bytes is None else _GRACE_NS
        return self._is_ordered and int(ts_ns[0]) >= self._selection.end_ns + grace_ns

    def _in_range(self, ts_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        wanted = np.ones(len(ts_ns), np.bool_)
        if self._selection.start_ns is not None:
            wanted &= ts_ns >= self._selection.start_ns
        if self._selection.end_ns is not None:
            wanted &= ts_ns < self._selection.end_ns
        return wanted

    def _is_selected(self, batch: Batch | Interleaved) -> npt.NDArray[np.bool_]:
        instrument = batch.instrument
        if len(self._is_found) < len(self.instruments):
            grown = np.zeros(2 * len(self.instruments), np.bool_)
            grown[: len(self._is_found)] = self._is_found
            self._is_found = grown
        self._is_found[instrument] = True
        return batch.is_selected

    def _name_missing(self) -> None:
        if self._selection.symbols is None:
            return
        found = [self.instruments[index] for index in np.flatnonzero(self._is_found).tolist()]
        there = sorted({instrument.text for instrument in found})
        named = {name for instrument in found for name in (instrument.text, *instrument.names)}
        missing = sorted(set(self._selection.symbols) - named)
        if missing:
            more = ", ..." if len(there) > _NAMED_AT_MOST else ""
            log.warning(
                "%s: no records of %s; there are %s%s",
                self.name,
                ", ".join(missing),
                ", ".join(there[:_NAMED_AT_MOST]) or "none at all",
                more,
            )


def trades_in(source: RecordSource, schema: str | None = None) -> SchemaSource:
    """Return a source of the trades of another one, taken out of a schema where one is named.

    Raises
    ------
    UsageError, InputError
        As `SchemaSource`.
    """
    if schema not in {None, TRADES}:
        source = SchemaSource(source, schema)
    return SchemaSource(source, TRADES)


def selected(source: RecordSource, selection: Selection | None) -> RecordSource:
    """Return a source of a selection of another one, that one itself without a selection."""
    return source if selection is None else SelectedSource(source, selection)
