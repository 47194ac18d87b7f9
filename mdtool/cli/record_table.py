"""Records as a table on the terminal, row by row as they arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.text import Text

from mdtool.core.batch import Batch
from mdtool.core.dtypes import EXTRAS
from mdtool.core.interleaved import Interleaved
from mdtool.core.units import PRICE_SCALE, UNDEF_ORDER_SIZE, format_price, format_time
from mdtool.wire.dbn_records import CONTROL_RTYPES, SHOWN_TYPES

log = logging.getLogger(__name__)

_SLICE_RECORDS: Final = 1000
_GAP: Final = "  "
_NARROW_GAP: Final = " "
_MAX_NAMED: Final = 4
_NUMBER_WIDTH: Final = 5
_PRICE_WIDTH: Final = 8
_SYMBOL: Final = "symbol"
_PUBLISHER: Final = "publisher"
_HIDDEN: Final = frozenset(
    {"rtype", "publisher_id", "instrument_id", "channel_id", "flags", "ts_in_delta"}
)
"""Left to the other formats, and `ts_event` too where there is a `ts_recv`."""


_SIZES: Final = frozenset({"size", "volume", "quantity", "bid_sz_00", "ask_sz_00"})
"""Shown times the lot, where a live source has given that."""


class RecordTable:
    """An `Output` for people: the symbol, then columns, as many as fit the terminal's width.

    The name of the publisher is shown where there are several. What is left out is said once.
    """

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._columns: list[_Column] = []
        self._gap = _GAP
        self._rtype: int | None = None
        self._said: set[str] = set()

    def write(self, batch: Batch | Interleaved) -> None:
        """Show a row for each record, but for control records."""
        for run in batch.runs():
            self._write_run(run)

    def _write_run(self, batch: Batch) -> None:
        rtype = batch.rtype
        if rtype in CONTROL_RTYPES:
            return
        if rtype != self._rtype:
            self._rtype = rtype
            has_several = len(set(batch.instruments.publisher_ids.tolist())) > 1
            self._columns = list(_columns(rtype, has_several))
            self._cells(batch[:_SLICE_RECORDS])
            self._fit()
            header = self._gap.join(column.align(column.field) for column in self._columns)
            self._console.print(Text(header, style="bold"))
        for start in range(0, len(batch), _SLICE_RECORDS):
            rows = zip(*self._cells(batch[start : start + _SLICE_RECORDS]), strict=True)
            self._console.out("".join(self._gap.join(row) + "\n" for row in rows), end="")

    def flush(self) -> None:
        """Do nothing: rows are shown at once."""

    def close(self) -> None:
        """Do nothing: the terminal stays open."""

    def _fit(self) -> None:
        """Make the columns as narrow, and in the end as few, as the terminal requires."""
        self._gap = _GAP
        if self._width() <= self._console.width:
            return
        for column in self._columns:
            column.least = 0
        if self._width() <= self._console.width:
            return
        self._gap = _NARROW_GAP
        all_columns = list(self._columns)
        # Those that were asked for are the last to go, and the symbol stays.
        others = sorted(all_columns[1:], key=lambda column: column.field not in EXTRAS)
        while others and self._width() > self._console.width:
            self._columns.remove(others.pop())
        left_out = [column.field for column in all_columns if column not in self._columns]
        if left_out:
            self._say_left_out(left_out)

    def _width(self) -> int:
        gaps = len(self._gap) * (len(self._columns) - 1)
        return sum(column.width for column in self._columns) + gaps

    def _say_left_out(self, fields: list[str]) -> None:
        more = len(fields) - _MAX_NAMED
        names = ", ".join(fields[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        said = f"not in {self._console.width} columns: {names}; a wider terminal or --csv shows all"
        if said not in self._said:
            self._said.add(said)
            log.info(said)

    def _cells(self, batch: Batch) -> list[list[str]]:
        """Return the texts of every column, and widen those columns whose texts are longer."""
        instrument = batch.instrument
        cells = []
        for column in self._columns:
            if column.field == _SYMBOL:
                texts = batch.instruments.texts[instrument].tolist()
            elif column.field == _PUBLISHER:
                texts = [name or "" for name in batch.instruments.publishers[instrument]]
            elif batch.instruments.lots and column.field in _SIZES:
                texts = _amounts(batch, column.field)
            else:
                texts = [column.show(value) for value in batch.records[column.field].tolist()]
            column.longest = max(column.longest, *map(len, texts))
            cells.append([column.align(text) for text in texts])
        return cells


@dataclass(slots=True)
class _Column:
    field: str
    show: Callable[[Any], str]
    least: int
    """The width that rows to come will probably need."""
    is_number: bool
    longest: int = 0

    @property
    def width(self) -> int:
        return max(self.longest, len(self.field), self.least)

    def align(self, text: str) -> str:
        return text.rjust(self.width) if self.is_number else text.ljust(self.width)


def _amounts(batch: Batch, field: str) -> list[str]:
    """Return sizes times the lots of their symbols."""
    lots = batch.instruments.lots
    steps = [lots.get(text, PRICE_SCALE) for text in batch.instruments.texts]
    sizes = zip(batch.instrument.tolist(), batch.records[field].tolist(), strict=True)
    return [
        "" if size == UNDEF_ORDER_SIZE else format_price(size * steps[instrument])
        for instrument, size in sizes
    ]


def _columns(rtype: int, has_publishers: bool) -> Iterator[_Column]:
    record_type = SHOWN_TYPES[rtype]
    fields: list[str] = record_type._ordered_fields  # noqa: SLF001 - it has no public name
    prices: list[str] = record_type._price_fields  # noqa: SLF001
    times: list[str] = record_type._timestamp_fields  # noqa: SLF001
    layout = np.dtype(record_type._dtypes)  # noqa: SLF001
    hidden = _HIDDEN | {"ts_event"} if "ts_recv" in fields else _HIDDEN
    yield _Column(_SYMBOL, str, 0, is_number=False)
    if has_publishers:
        yield _Column(_PUBLISHER, str, 0, is_number=False)
    for field in fields:
        if field in hidden:
            continue
        show: Callable[[Any], str] = _count
        least, is_number = _NUMBER_WIDTH, True
        if field in times:
            show, least, is_number = _time, 0, False
        elif field in prices:
            show, least = format_price, _PRICE_WIDTH
        elif layout[field].kind == "S":
            show, least, is_number = _text, 0, False
        yield _Column(field, show, least, is_number)


def _time(value: int) -> str:
    return format_time(value).replace(".000000000Z", "Z")


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace")


def _count(value: int) -> str:
    return "" if value == UNDEF_ORDER_SIZE else str(value)
