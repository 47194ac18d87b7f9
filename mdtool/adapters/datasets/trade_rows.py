"""The rows of a dataset: trades with the names of their symbols and streams."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable

COLUMNS: Final = (
    "symbol",
    "exchange_timestamp",
    "price",
    "volume",
    "ingest_timestamp",
    "stream_id",
    "sequence",
)
"""The columns of a dataset, in this order."""


@dataclass(frozen=True, slots=True)
class TradeRows:
    """Trades of any symbols and streams.

    Attributes
    ----------
    symbols, streams : SymbolTable
        The names of the indices `symbol` and `stream`; they may have more than the rows need.
    symbol, stream : uint32[n]
    sequence : int64[n]
        The sequence of each trade in its stream.
    price : int64[n]
        In units of 1e-9, above 0.
    volume : int64[n]
        Above 0.
    exchange_timestamp, ingest_timestamp : int64[n]
        Nanoseconds since the epoch.
    """

    symbols: SymbolTable
    streams: SymbolTable
    symbol: NDArray[np.uint32]
    stream: NDArray[np.uint32]
    sequence: NDArray[np.int64]
    price: NDArray[np.int64]
    volume: NDArray[np.int64]
    exchange_timestamp: NDArray[np.int64]
    ingest_timestamp: NDArray[np.int64]

    def __len__(self) -> int:
        """Return how many trades there are."""
        return len(self.price)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> TradeRows:
        """Return the rows that a mask, indices or a slice select."""
        columns: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return dataclasses.replace(self, **columns)

    @staticmethod
    def concatenate(parts: Sequence[TradeRows]) -> TradeRows:
        """Return the rows of all parts, at least one, which share their tables."""
        if len(parts) == 1:
            return parts[0]
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS
        }
        return dataclasses.replace(parts[0], **columns)


_ARRAYS: Final = tuple(
    field.name
    for field in dataclasses.fields(TradeRows)
    if field.name not in {"symbols", "streams"}
)


class RowGroups:
    """Splits and joins rows into groups of one size.

    Parameters
    ----------
    size : int
        Rows in a group; the last one may have fewer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[TradeRows] = []
        self._held = 0

    def add(self, rows: TradeRows) -> Iterator[TradeRows]:
        """Add rows; yield the groups that they complete."""
        while self._held + len(rows) >= self._size:
            missing = self._size - self._held
            self._parts.append(rows.take(slice(0, missing)))
            yield from self.rest()
            rows = rows.take(slice(missing, None))
        if len(rows):
            self._parts.append(rows)
            self._held += len(rows)

    def rest(self) -> Iterator[TradeRows]:
        """Yield the last, incomplete group, unless it is empty."""
        if self._parts:
            rows = TradeRows.concatenate(self._parts)
            self._parts, self._held = [], 0
            yield rows
