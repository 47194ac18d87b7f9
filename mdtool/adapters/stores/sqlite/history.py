"""Reads a SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreFormatError
from mdtool.adapters.stores.port import (
    MAX_NS,
    MIN_NS,
    SavedStream,
    SymbolTotals,
    TradeKey,
    TradePage,
    WrongTotals,
)
from mdtool.adapters.stores.sqlite import reading
from mdtool.adapters.stores.sqlite.link import BUSY_S, Link
from mdtool.adapters.stores.sqlite.location import Location
from mdtool.engine.saved_bars import SAVED_BAR


class History:
    """Reads what a file holds, while others write it.

    Methods as in `TradeHistory`; a file that is not there is StoreUnavailableError.

    Parameters
    ----------
    url : str
        `sqlite:///PATH`.
    busy_s : float
        How long to wait for a lock on the file.

    Raises
    ------
    ConfigError
        When the URL names no file.
    """

    _writes = False

    def __init__(self, url: str, busy_s: float = BUSY_S) -> None:
        self._link = Link(Location.parse(url), busy_s, writes=self._writes)
        self._numbers: dict[str, int] = {}
        self._numbers_of = 0
        """The generation of the link that numbers of symbols are of."""

    @property
    def address(self) -> str:
        """What it is, for people: `sqlite PATH`."""
        return self._link.location.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._link.close()

    def symbols(self) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order."""
        with self._link.reading() as connection:
            return reading.totals(connection)

    def has(self, symbol: str) -> bool:
        """Return whether the symbol has trades."""
        with self._link.reading() as connection:
            return self._number(connection, symbol) is not None

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        """Return at most `limit` trades whose key is below `before`, newest first."""
        with self._link.reading() as connection:
            number = self._number(connection, symbol) or 0
            return reading.page_before(connection, number, limit, before)

    def trades(
        self, symbol: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
    ) -> Iterator[TradePage]:
        """Yield all trades of a symbol from a time until before another, oldest first."""
        after = TradeKey(start_ns, -1, -1)
        while True:
            with self._link.reading() as connection:
                number = self._number(connection, symbol) or 0
                page = reading.page_after(connection, number, after, end_ns)
            if not len(page):
                return
            after = page.key(-1)
            yield page

    def streams(self) -> list[SavedStream]:
        """Return the streams, in order of their numbers."""
        with self._link.reading() as connection:
            return reading.streams(connection)

    def recount(self) -> list[WrongTotals]:
        """Read all trades and return the symbols whose totals are not theirs, in order."""
        with self._link.reading() as connection:
            self._check_pages(connection)
            return list(self._wrong_totals(connection).values())

    def bars(
        self, symbol: str, interval_ns: int, limit: int, before_ns: int = 0
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start before `before_ns`, newest first."""
        with self._link.reading() as connection:
            number = self._number(connection, symbol)
            if number is None:
                return np.empty(0, SAVED_BAR)
            return reading.closed_bars(connection, number, interval_ns, limit, before_ns)

    def interrupt(self) -> None:
        """End what another thread is reading at this moment, with StoreInterruptedError."""
        self._link.interrupt()

    def _number(self, connection: sqlite3.Connection, symbol: str) -> int | None:
        """Return the number of a symbol that has trades."""
        if self._numbers_of != self._link.generation:
            self._numbers = {}
            self._numbers_of = self._link.generation
        number = self._numbers.get(symbol)
        if number is None:
            number = reading.symbol_number(connection, symbol)
            if number is not None:
                self._numbers[symbol] = number
        return number

    def _check_pages(self, connection: sqlite3.Connection) -> None:
        """See that the file's structure is sound."""
        (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            what = problem.splitlines()[-1]
            raise StoreFormatError(f"{self.address}: is damaged; restore it from a copy ({what})")

    def _wrong_totals(self, connection: sqlite3.Connection) -> dict[int, WrongTotals]:
        try:
            return reading.wrong_totals(connection)
        except StoreFormatError as error:
            raise StoreFormatError(f"{self.address}: {error}") from error
