"""A table of symbols: text outside, dense indices inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


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
