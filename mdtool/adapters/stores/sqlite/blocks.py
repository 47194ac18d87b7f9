"""Blocks: trades of one symbol in order of their keys, each column of them in a BLOB of its own.

A column is its smallest value, 8 bytes, and then the difference of each value from that, in as many
bytes as the largest of these needs, big-endian: `trades`, a view, reads it in plain SQL.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.port import TradeKey
from mdtool.adapters.stores.sql import is_ascending

COLUMNS: Final = ("timestamp", "stream", "sequence", "price", "volume", "ingest_timestamp")
KEY_COLUMNS: Final = 3
"""The first columns are the key among the trades of a symbol."""
MAX_TRADES: Final = 2_048
"""In a block; a page of few trades reads no more than this of each layer."""
_WORD: Final = 8


class BlockDamageError(ValueError):
    """A stored block is not what was written."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stored block, whose columns are decoded when they are read.

    Attributes
    ----------
    number : int
        Of its row.
    symbol : int
        The number of its symbol.
    first, last : TradeKey
        The keys of its first and last trades.
    count : int
        How many trades it has.
    columns : sequence of bytes
        Of `COLUMNS`.
    """

    number: int
    symbol: int
    first: TradeKey
    last: TradeKey
    count: int
    columns: tuple[bytes, ...]

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> Self:
        """Return the block of a row: number, symbol, first key, last key, count, checksum, columns.

        Raises
        ------
        BlockDamageError
            When the columns do not have the checksum.
        """
        number, symbol, *numbers = row[:8]
        count, checksum, *columns = row[8:]
        if any(type(column) is not bytes for column in columns) or _checksum(columns) != checksum:
            raise BlockDamageError("a block does not have its checksum")
        first, last = TradeKey(*numbers[:3]), TradeKey(*numbers[3:])
        return cls(number, symbol, first, last, count, tuple(columns))

    def trades(self, begin: int = 0, end: int | None = None) -> NDArray[np.int64]:
        """Return the columns of some of its trades, int64[6, n], of all unless they are named."""
        end = self.count if end is None else end
        trades = np.empty((len(COLUMNS), end - begin), np.int64)
        for column, data in zip(trades, self.columns, strict=True):
            _decode(data, self.count, begin, end, column)
        return trades

    def key_columns(self) -> NDArray[np.int64]:
        """Return the columns of the keys, int64[3, n]."""
        keys = np.empty((KEY_COLUMNS, self.count), np.int64)
        for column, data in zip(keys, self.columns, strict=False):
            _decode(data, self.count, 0, self.count, column)
        return keys

    def check(self) -> None:
        """Read all trades, and see that they are in order, from the first key to the last.

        Raises
        ------
        BlockDamageError
            When they are not.
        """
        keys = self.trades()[:KEY_COLUMNS]
        bounds = TradeKey(*keys[:, 0].tolist()), TradeKey(*keys[:, -1].tolist())
        if bounds != (self.first, self.last) or not is_ascending(keys):
            raise BlockDamageError("the trades of a block are not in order")

    def below(self, key: TradeKey) -> int:
        """Return how many of its trades have keys below a key."""
        if self.last < key:
            return self.count
        return 0 if self.first >= key else count_below(self.key_columns(), key)


def row_of(trades: NDArray[np.int64]) -> tuple[Any, ...]:
    """Return the row of trades, int64[6, n]: first and last key, count, checksum, columns."""
    columns = [_encode(column) for column in trades]
    first, last = trades[:KEY_COLUMNS, 0].tolist(), trades[:KEY_COLUMNS, -1].tolist()
    return (*first, *last, trades.shape[1], _checksum(columns), *columns)


def count_below(keys: NDArray[np.int64], key: TradeKey) -> int:
    """Return how many of ascending keys, int64[3 or more, n], are below a key."""
    begin, end = 0, keys.shape[1]
    for column, value in zip(keys, key, strict=False):
        within = column[begin:end]
        low, high = np.searchsorted(within, value), np.searchsorted(within, value, "right")
        begin, end = begin + int(low), begin + int(high)
    return begin


def _checksum(columns: Any) -> int:
    checksum = 0
    for column in columns:
        checksum = zlib.crc32(column, checksum)
    return checksum


def _encode(values: NDArray[np.int64]) -> bytes:
    least = int(values.min())
    width = ((int(values.max()) - least).bit_length() + 7) // 8
    if width == _WORD:
        least = 0  # so that the sum of both is an int64 in SQL too
    differences = (values - np.int64(least)).astype(">i8").view(np.uint8).reshape(-1, _WORD)
    return least.to_bytes(_WORD, "big", signed=True) + differences[:, _WORD - width :].tobytes()


def _decode(data: bytes, count: int, begin: int, end: int, values: NDArray[np.int64]) -> None:
    """Set `values` to those of a column of `count` from `begin` to before `end`."""
    width, rest = divmod(len(data) - _WORD, count) if count else (0, 1)
    if rest or not 0 <= width <= _WORD:
        raise BlockDamageError("a column of a block is of another length")
    least = int.from_bytes(data[:_WORD], "big", signed=True)
    if not width:
        values[:] = least
        return
    words = np.zeros((end - begin, _WORD), np.uint8)
    stored = np.frombuffer(data, np.uint8, offset=_WORD).reshape(count, width)
    words[:, _WORD - width :] = stored[begin:end]
    values[:] = words.view(">i8").ravel()
    values += least
