"""Parquet files of a dataset. The lots of its symbols are metadata of the file, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mdtool.adapters.arrow_arrays import LOTS, lots_text
from mdtool.adapters.datasets import arrow
from mdtool.adapters.datasets.arrow import Tables
from mdtool.adapters.datasets.partitions import values_of
from mdtool.adapters.datasets.trade_rows import RowGroups, TradeRows
from mdtool.core.errors import InputError
from mdtool.core.units import UNDEF_PRICE, fixed_point

_GROUP_ROWS: Final = 1 << 17
"""Rows in a group, which a reader decompresses at once."""


class ParquetWriter:
    """Writes prices as decimal128(19, 9), times as timestamp[ns, UTC], others as int64 or text."""

    def __init__(self, path: Path, has_symbol: bool) -> None:
        self._has_symbol = has_symbol
        self._writer: Any = pq.ParquetWriter(path, arrow.schema(has_symbol), compression="zstd")
        self._groups = RowGroups(_GROUP_ROWS)
        self._lots: dict[str, int] = {}

    def write(self, rows: TradeRows) -> None:
        """Collect rows until they fill a group."""
        if lots := rows.symbols.fractions():
            used = {rows.symbols[index] for index in np.unique(rows.trades.symbol).tolist()}
            self._lots |= {symbol: lots[symbol] for symbol in used & lots.keys()}
        for group in self._groups.add(rows):
            self._writer.write_batch(arrow.batch(group, self._has_symbol), len(group))

    def close(self) -> None:
        """Write the last group and the file's footer."""
        for group in self._groups.rest():
            self._writer.write_batch(arrow.batch(group, self._has_symbol), len(group))
        if self._lots:
            self._writer.add_key_value_metadata({LOTS: lots_text(self._lots)})
        self._writer.close()


class ParquetFile:
    """Reads a file group by group."""

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path = path
        self._tables = tables
        self._folder = values_of(path)
        try:
            self.size_bytes = path.stat().st_size
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                self._lots = _lots(str(path), (file.metadata.metadata or {}).get(LOTS.encode()))
        except OSError as error:
            raise InputError(f"{path}: {_reason(error)}") from error
        except pa.ArrowException as error:
            raise InputError(f"{path}: is not a Parquet file, or damaged ({error})") from error
        arrow.check_columns(str(path), names, self._folder)

    def rows(self) -> Iterator[TradeRows]:
        """Yield the rows of each group, or part of one."""
        where = str(self.path)
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_GROUP_ROWS):
                    if batch.num_rows:
                        rows = arrow.rows_of(where, batch, self._folder, self._tables)
                        self._tables.give_lots(where, self._lots)
                        yield rows
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{where}: is damaged ({_reason(error)})") from error


def _lots(where: str, text: bytes | None) -> dict[str, int]:
    """Return the lots of a file's metadata, in units of 1e-9.

    Raises
    ------
    InputError
        When they are not as they are written.
    """
    try:
        found = json.loads(text) if text is not None else {}
        lots = {symbol: fixed_point(step) for symbol, step in found.items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{where}: its metadata {LOTS} is not valid") from error
    right = {symbol: lot for symbol, lot in lots.items() if lot and 0 < lot < UNDEF_PRICE}
    if len(right) < len(lots):
        raise InputError(f"{where}: its metadata {LOTS} is not valid")
    return right


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
