"""Symbols: which text is one, and tables of them, text outside and dense indices inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

MAX_SYMBOL_CHARS: Final = 70


def normal_symbol(text: str) -> str | None:
    """Return a symbol as accepted ticks carry it, None where the text is no symbol.

    It is trimmed of white space and upper-case, and has 1 to 70 printable characters, all of
    them ASCII before anything is trimmed. The kernel that decodes Tick frames has the same rule.
    """
    symbol = text.strip() if text.isascii() else ""
    is_right = 1 <= len(symbol) <= MAX_SYMBOL_CHARS and symbol.isprintable()
    return symbol.upper() if is_right else None


def is_symbol(value: object) -> bool:
    """Tell whether a value is a symbol as accepted ticks carry it."""
    return isinstance(value, str) and normal_symbol(value) == value


class SymbolTable:
    """Symbols in the order in which they were first met, each with a dense index from 0."""

    __slots__ = ("_index", "_symbols")

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._symbols: list[str] = []
        self._index: dict[str, int] = {}
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
        """Return the symbols from `index` on, for a peer that knows those before."""
        return self._symbols[index:]
