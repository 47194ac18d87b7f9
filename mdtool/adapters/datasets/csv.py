"""CSV files of a dataset.

As in the JSON lines of `mdtool send`, prices are decimals and times integer nanoseconds: readers
that infer a column's type keep these, where many truncate a formatted time to microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pc

from mdtool.adapters.datasets import arrow
from mdtool.adapters.datasets.arrow import Tables
from mdtool.adapters.datasets.partitions import values_of
from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.core.errors import InputError

_TIMES: Final = ("exchange_timestamp", "ingest_timestamp")
_BLOCK_BYTES: Final = 1 << 22


class CsvWriter:
    """Writes a line of column names, then a line for each trade."""

    def __init__(self, path: Path, has_symbol: bool) -> None:
        self._has_symbol = has_symbol
        options = pc.WriteOptions(quoting_style="needed", quoting_header="needed")
        self._writer: Any = pc.CSVWriter(path, _schema(has_symbol), write_options=options)

    def write(self, rows: TradeRows) -> None:
        """Write rows."""
        batch = arrow.batch(rows, self._has_symbol)
        self._writer.write_batch(batch.cast(_schema(self._has_symbol)))

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()


class CsvFile:
    """Reads a file block by block."""

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path = path
        self._tables = tables
        self._folder = values_of(path)
        try:
            self.size_bytes = path.stat().st_size
            with self._open({}) as file:
                names = file.schema.names
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: is not a CSV file of trades ({_reason(error)})") from error
        arrow.check_columns(str(path), names, self._folder)

    def rows(self) -> Iterator[TradeRows]:
        """Yield the rows of each block."""
        where = str(self.path)
        try:
            with self._open(_types()) as file:
                for batch in file:
                    if batch.num_rows:
                        yield arrow.rows_of(where, batch, self._folder, self._tables)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{where}: {_reason(error)}") from error

    def _open(self, types: dict[str, Any]) -> Any:
        # Only an empty field is null: NULL and NA are symbols.
        convert = pc.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return pc.open_csv(
            self.path,
            pc.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            convert_options=convert,
        )


def _types() -> dict[str, Any]:
    return {name: pa.int64() if name in _TIMES else kind for name, kind in arrow.TYPES.items()}


def _schema(has_symbol: bool) -> Any:
    types = _types()
    return pa.schema([(name, types[name]) for name in arrow.schema(has_symbol).names])


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
