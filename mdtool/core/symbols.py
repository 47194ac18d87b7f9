"""Symbols: which text is one, and tables of them, text outside and dense indices inside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.core.units import PRICE_SCALE

MAX_SYMBOL_CHARS: Final = 70


def normal_symbol(text: str) -> str | None:
    """Return a symbol as accepted ticks have it, None where the text is not a symbol.

    It is trimmed of white space and upper-case, and has 1 to 70 printable characters, all of
    them ASCII before anything is trimmed. The kernel that decodes Tick frames has the same rule.
    """
    symbol = text.strip() if text.isascii() else ""
    is_right = 1 <= len(symbol) <= MAX_SYMBOL_CHARS and symbol.isprintable()
    return symbol.upper() if is_right else None


def is_symbol(value: object) -> bool:
    """Return whether a value is a symbol as accepted ticks have it."""
    return isinstance(value, str) and normal_symbol(value) == value


class SymbolTable:
    """Symbols in the order of their first use, each with a dense index from 0, and their lots.

    A lot is what one unit of a symbol's sizes stands for, in units of 1e-9. The first one that is
    given to a symbol stays.
    """

    __slots__ = ("_index", "_lots", "_symbols")

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._symbols: list[str] = []
        self._index: dict[str, int] = {}
        self._lots: dict[int, int] = {}
        for symbol in symbols:
            self.intern(symbol)

    def __len__(self) -> int:
        return len(self._symbols)

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __getitem__(self, index: int) -> str:
        return self._symbols[index]

    def intern(self, symbol: str) -> int:
        """Return the index of `symbol`, a new one when it is not in the table yet."""
        index = self._index.setdefault(symbol, len(self._symbols))
        if index == len(self._symbols):
            self._symbols.append(symbol)
        return index

    def find(self, symbol: str) -> int | None:
        """Return the index of `symbol`, or None."""
        return self._index.get(symbol)

    def since(self, index: int) -> list[str]:
        """Return the symbols from `index` on, for a peer that has those before."""
        return self._symbols[index:]

    def give_lot(self, index: int, lot: int) -> int:
        """Give a symbol its lot, unless it has one, and return the one that it has."""
        return self._lots.setdefault(index, lot)

    def give_lots(self, lots: Mapping[str, int]) -> None:
        """Give those of the symbols that are in the table their lots, unless they have some."""
        for symbol, lot in lots.items():
            if (index := self._index.get(symbol)) is not None:
                self._lots.setdefault(index, lot)

    @property
    def lots(self) -> int:
        """How many symbols have a lot."""
        return len(self._lots)

    def lot(self, index: int) -> int | None:
        """Return the lot of a symbol, None where it has none."""
        return self._lots.get(index)

    def fractions(self) -> dict[str, int]:
        """Return the lots by symbol that are not 1, without which sizes would be misread."""
        return {
            self._symbols[index]: lot for index, lot in self._lots.items() if lot != PRICE_SCALE
        }

    def lots_since(self, number: int) -> list[tuple[int, int]]:
        """Return lots by the index of their symbol, for a peer that has the first `number`."""
        if number >= len(self._lots):
            return []
        return list(islice(self._lots.items(), number, None))


class SymbolMap:
    """Renumbers symbols: indices into one table become indices into another.

    A symbol is added to the other table when a batch first uses it, so that the table has only
    symbols that are used.

    Parameters
    ----------
    source : SymbolTable
        What the indices point into; it may grow.
    intern : callable
        Returns the other table's index of a symbol, such as `SymbolTable.intern`, or None for a
        symbol that it does not take. Called once for each symbol.

    Attributes
    ----------
    source : SymbolTable
    has_missing : bool
        Whether there is a symbol that the other table did not take.
    """

    MISSING: Final = 2**32 - 1
    """The index of a symbol that the other table did not take."""
    _UNSEEN: Final = 2**32 - 2

    def __init__(self, source: SymbolTable, intern: Callable[[str], int | None]) -> None:
        self.source = source
        self.has_missing = False
        self._intern = intern
        self._indices = np.empty(0, np.uint32)
        self._unseen = 0

    def map(self, symbol: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the other table's indices.

        Parameters
        ----------
        symbol : int[n]
            Indices into `source`.

        Returns
        -------
        uint32[n]
            `MISSING` for symbols that the other table did not take.
        """
        if new := len(self.source) - len(self._indices):
            unseen = np.full(new, self._UNSEEN, np.uint32)
            self._indices = np.concatenate([self._indices, unseen])
            self._unseen += new
        mapped: NDArray[np.uint32] = self._indices[symbol]
        if self._unseen and (is_unseen := mapped == self._UNSEEN).any():
            is_new = np.zeros(len(self._indices), np.bool_)
            is_new[symbol[is_unseen]] = True
            for index in np.flatnonzero(is_new).tolist():
                self._add(index)
            mapped = self._indices[symbol]
        return mapped

    def _add(self, index: int) -> None:
        other = self._intern(self.source[index])
        self._unseen -= 1
        self.has_missing |= other is None
        self._indices[index] = self.MISSING if other is None else other
