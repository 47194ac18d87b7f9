"""The symbols of accepted ticks, in a hash table that kernels read."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.symbols import SymbolTable
from mdtool.wire.tick_kernel import SYMBOL_WORDS, add_symbol

MAX_SYMBOLS: Final = 100_000
_FIRST_SYMBOLS: Final = 256


class SymbolIndex:
    """Symbols of accepted ticks, each with a dense index from 0, shared by all connections.

    Parameters
    ----------
    max_symbols : int
        How many there may be: the bound for a client that sends random symbols.

    Attributes
    ----------
    symbols : SymbolTable
        The symbols in the order in which they were first accepted, upper-case.
    table : int64[2^k, 2]
        Key and index of each symbol by its hash; a key of 0 marks a free row.
    words : int64[capacity, 9]
        The text of each symbol by its index, as `pack_symbol` writes it.
    """

    __slots__ = ("max_symbols", "symbols", "table", "words")

    def __init__(self, max_symbols: int = MAX_SYMBOLS) -> None:
        self.max_symbols = max_symbols
        self.symbols = SymbolTable()
        self.words: NDArray[np.int64] = np.zeros((_FIRST_SYMBOLS, SYMBOL_WORDS), np.int64)
        self.table: NDArray[np.int64] = np.zeros((4 * _FIRST_SYMBOLS, 2), np.int64)

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def is_full(self) -> bool:
        """Whether a further symbol would be refused."""
        return len(self.symbols) >= self.max_symbols

    def intern(self, symbol: str) -> int:
        """Return the index of a symbol, a new one when it is not in the table yet.

        Parameters
        ----------
        symbol : str
            1 to 70 printable ASCII characters, trimmed and upper-case, such as the ones that a
            kernel found right. The bound on their number is the caller's to keep.
        """
        index = self.symbols.intern(symbol)
        if index == len(self.words):
            self._grow()
        self.words[index] = pack_symbol(symbol)
        add_symbol(self.table, self.words, index)
        return index

    def add(self, packed: NDArray[np.int64]) -> int:
        """Return the index of a symbol that a kernel wrote as words."""
        return self.intern(packed.tobytes().rstrip(b"\0").decode("ascii"))

    def _grow(self) -> None:
        capacity = len(self.words)
        self.words = np.vstack([self.words, np.zeros_like(self.words)])
        self.table = np.zeros((8 * capacity, 2), np.int64)
        for index in range(capacity):
            add_symbol(self.table, self.words, index)


def pack_symbol(symbol: str) -> NDArray[np.int64]:
    """Return the text of a symbol as little-endian words, int64[9], padded with zeros."""
    return np.frombuffer(symbol.encode("ascii").ljust(8 * SYMBOL_WORDS, b"\0"), "<i8")
