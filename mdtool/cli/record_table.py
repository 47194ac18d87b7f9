"""Records as a table on the terminal, row by row as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from mdtool.core.records import Records
from mdtool.core.symbology import Symbology
from mdtool.core.units import format_price, format_time
from mdtool.wire.dbn_records import CONTROL_RTYPES, RECORD_TYPES

_SLICE_RECORDS: Final = 1000
_WIDTHS: Final = {"time": 30, "price": 14, "symbol": 12, "text": 6, "number": 10}
_HIDDEN: Final = frozenset({"rtype", "publisher_id", "instrument_id", "ts_in_delta", "channel_id"})

Show = Callable[[Any], str]


class RecordTable:
    """An `Output` for people: aligned columns under a header that is repeated when they change.

    Parameters
    ----------
    symbology : Symbology
        Every row begins with its symbol.
    """

    def __init__(self, symbology: Symbology) -> None:
        self._symbology = symbology
        self._console = Console(highlight=False, soft_wrap=True)
        self._columns: list[_Column] = []
        self._rtype: int | None = None

    def write(self, records: Records) -> None:
        """Show a row for each record; what a stream says about itself is not shown."""
        rtype = int(records["rtype"][0])
        if rtype in CONTROL_RTYPES:
            return
        if rtype != self._rtype:
            self._rtype = rtype
            self._columns = list(_columns(rtype))
            names = "  ".join(column.title for column in self._columns)
            self._console.print(Text(names, style="bold"))
        for start in range(0, len(records), _SLICE_RECORDS):
            self._console.out(self._rows(records[start : start + _SLICE_RECORDS]), end="")

    def flush(self) -> None:
        """Do nothing: rows are shown at once."""

    def close(self) -> None:
        """Do nothing: the terminal stays open."""

    def _rows(self, records: Records) -> str:
        indices, symbols = self._symbology.symbols_of(records)
        cells = [[symbols[index] for index in indices.tolist()]]
        cells += [records[column.field].tolist() for column in self._columns[1:]]
        shown = [
            map(column.cell, values) for column, values in zip(self._columns, cells, strict=True)
        ]
        return "".join("  ".join(row) + "\n" for row in zip(*shown, strict=True))


class _Column:
    def __init__(self, field: str, kind: str, show: Show) -> None:
        self.field = field
        self._show = show
        self._width = max(_WIDTHS[kind], len(field))
        self._is_text = kind in ("symbol", "text", "time")
        self.title = self._aligned(field)

    def cell(self, value: Any) -> str:
        return self._aligned(self._show(value))

    def _aligned(self, text: str) -> str:
        return text.ljust(self._width) if self._is_text else text.rjust(self._width)


def _columns(rtype: int) -> Iterator[_Column]:
    record_type = RECORD_TYPES[rtype]
    kinds = dict(record_type._dtypes)  # noqa: SLF001 - databento_dbn has no public name for these
    yield _Column("symbol", "symbol", str)
    for field in record_type._ordered_fields:  # noqa: SLF001
        if field in _HIDDEN:
            continue
        if field in record_type._timestamp_fields:  # noqa: SLF001
            yield _Column(field, "time", format_time)
        elif field in record_type._price_fields:  # noqa: SLF001
            yield _Column(field, "price", format_price)
        elif kinds[field].startswith("S"):
            yield _Column(field, "text", _decoded)
        else:
            yield _Column(field, "number", str)


def _decoded(value: bytes) -> str:
    return value.decode("ascii", "replace")
