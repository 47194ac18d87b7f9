"""The rows of a dataset: trades with the names of their symbols and streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable
from mdtool.core.trades import Rows, Trades

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
        The names of symbols and streams by index; they may have more than the rows need.
    stream : uint32[n]
        The stream of each trade.
    sequence : int64[n]
        The sequence of each trade in its stream.
    trades : Trades
        With prices, of any sign, and sizes above 0.
    """

    symbols: SymbolTable
    streams: SymbolTable
    stream: NDArray[np.uint32]
    sequence: NDArray[np.int64]
    trades: Trades

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.trades)

    def __getitem__(self, rows: Rows) -> Self:
        """Return some of the rows; those of a slice are views."""
        return replace(
            self, stream=self.stream[rows], sequence=self.sequence[rows], trades=self.trades[rows]
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, at least one, which share their tables."""
        if len(parts) == 1:
            return parts[0]
        return replace(
            parts[0],
            stream=np.concatenate([part.stream for part in parts]),
            sequence=np.concatenate([part.sequence for part in parts]),
            trades=Trades.concatenate([part.trades for part in parts]),
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
            self._parts.append(rows[:missing])
            yield from self.rest()
            rows = rows[missing:]
        if len(rows):
            self._parts.append(rows)
            self._held += len(rows)

    def rest(self) -> Iterator[TradeRows]:
        """Yield the last, incomplete group, unless it is empty."""
        if self._parts:
            rows = TradeRows.concatenate(self._parts)
            self._parts, self._held = [], 0
            yield rows
