"""Digests of trades and of book states that depend on what they are, not on how they came.

A row is hashed to 128 bits, and the hashes of a symbol's rows are added: batches, the order of
rows, and what came between them do not count. How often a row comes does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mdtool.core.batch import Batch, LabelMap
from mdtool.core.dtypes import MBP10
from mdtool.core.symbols import SymbolMap, SymbolTable, normal_symbol
from mdtool.core.trades import NamedTrades

_Words: TypeAlias = NDArray[np.uint64]

_SEEDS: Final = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
"""The first value of each half of a hash."""
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
"""Of the finalizer of SplitMix64, Steele et al., 2014."""
_DIGEST_BYTES: Final = 16
_LEVELS: Final = 10


class SymbolDigest(NamedTuple):
    """The digest of a symbol's rows: 32 hexadecimal digits, and how many rows there are."""

    symbol: str
    digest: str
    rows: int


class RowDigest:
    """Adds up the hashes of rows by symbol.

    Parameters
    ----------
    kind : str
        What the rows are; digests of different kinds differ.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.symbols = SymbolTable()
        self._counts = np.zeros(0, np.int64)
        self._sums = np.zeros((0, len(_SEEDS)), np.uint64)

    def add(self, symbol: NDArray[np.uint32], columns: Sequence[NDArray[np.int64]]) -> None:
        """Add rows.

        Parameters
        ----------
        symbol : uint32[n]
            Indices into `symbols`.
        columns : sequence of int64[n]
        """
        if missing := len(self.symbols) - len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(missing, np.int64)])
            none = np.zeros((missing, len(_SEEDS)), np.uint64)
            self._sums = np.concatenate([self._sums, none])
        self._counts += np.bincount(symbol, minlength=len(self._counts))
        for half, seed in enumerate(_SEEDS):
            hashes = np.full(len(symbol), seed, np.uint64)
            for column in columns:
                _mix(hashes, column)
            np.add.at(self._sums[:, half], symbol, hashes)

    def by_symbol(self) -> list[SymbolDigest]:
        """Return the digest of each symbol, in order of the symbols."""
        found = []
        for symbol, sums, rows in zip(self.symbols, self._sums, self._counts, strict=False):
            if rows:
                text = f"{self._kind} {symbol} {rows} {sums[0]:016x}{sums[1]:016x}"
                found.append(SymbolDigest(symbol, _hash(text), int(rows)))
        return sorted(found)

    def total(self) -> SymbolDigest:
        """Return the digest of all symbols together, whose symbol is empty."""
        parts = self.by_symbol()
        text = "\n".join([self._kind, *(f"{each.symbol} {each.digest}" for each in parts)])
        return SymbolDigest("", _hash(text), sum(each.rows for each in parts))


class TradeDigest(RowDigest):
    """The digest of trades: their symbols, as ticks have them, prices, sizes and exchange times."""

    def __init__(self) -> None:
        super().__init__("trades")
        self._map: SymbolMap | None = None

    def take(self, batch: NamedTrades) -> None:
        """Add trades."""
        if self._map is None or self._map.source is not batch.symbols:
            self._map = SymbolMap(batch.symbols, self._intern)
        trades = batch.trades
        self.add(self._map.map(trades.symbol), (trades.price, trades.size, trades.ts_event))

    def _intern(self, symbol: str) -> int:
        return self.symbols.intern(normal_symbol(symbol) or symbol)


class BookDigest(RowDigest):
    """The digest of book states: the ten best levels of a symbol, and when they were so."""

    def __init__(self) -> None:
        super().__init__("books")
        self._map = LabelMap(self.symbols.intern)

    def take(self, batch: Batch) -> None:
        """Add records of MBP-10."""
        records = batch.records
        assert records.dtype == MBP10
        columns = [records["ts_event"].view(np.int64)]
        for level in range(_LEVELS):
            for side in ("bid", "ask"):
                columns += [
                    records[f"{side}_{field}_{level:02}"].astype(np.int64)
                    for field in ("px", "sz", "ct")
                ]
        self.add(self._map.map(batch), columns)


def differences(ours: Iterable[SymbolDigest], theirs: Iterable[SymbolDigest]) -> list[str]:
    """Return in words how two lists of digests by symbol differ, a line for each symbol."""
    first = {each.symbol: each for each in ours}
    second = {each.symbol: each for each in theirs}
    lines = []
    for symbol in sorted(first.keys() | second.keys()):
        a, b = first.get(symbol), second.get(symbol)
        if a != b:
            rows = (a.rows if a else 0, b.rows if b else 0)
            but = ", of other values" if rows[0] == rows[1] else ""
            lines.append(f"{symbol}: {rows[0]:,} and {rows[1]:,} rows{but}")
    return lines


def _mix(hashes: _Words, column: NDArray[np.int64]) -> None:
    """Mix a column into hashes, in place."""
    hashes ^= column.view(np.uint64)
    hashes ^= hashes >> _SHIFTS[0]
    hashes *= _FACTORS[0]
    hashes ^= hashes >> _SHIFTS[1]
    hashes *= _FACTORS[1]
    hashes ^= hashes >> _SHIFTS[2]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
