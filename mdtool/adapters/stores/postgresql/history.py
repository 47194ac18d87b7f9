"""Reads a store in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

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
from mdtool.adapters.stores.postgresql import schema
from mdtool.adapters.stores.postgresql.columns import read_rows
from mdtool.adapters.stores.postgresql.link import Connection, Link
from mdtool.adapters.stores.postgresql.location import Location
from mdtool.engine.saved_bars import SAVED_BAR

PAGE_TRADES: Final = 65_536
"""Trades that are fetched at once by who wants all."""
_TRADE_COLUMNS: Final = 6
_ABOVE_ALL: Final = TradeKey(MAX_NS, 0, 0)
_BEFORE: Final = """
SELECT exchange_timestamp, stream, sequence, price, volume, ingest_timestamp FROM trades
WHERE symbol = (SELECT number FROM symbols WHERE symbol = %s)
AND (exchange_timestamp, stream, sequence) < (%s, %s, %s)
ORDER BY exchange_timestamp DESC, stream DESC, sequence DESC LIMIT %s
"""
_AFTER: Final = """
COPY (
    SELECT exchange_timestamp, stream, sequence, price, volume, ingest_timestamp FROM trades
    WHERE symbol = (SELECT number FROM symbols WHERE symbol = %s)
    AND (exchange_timestamp, stream, sequence) > (%s, %s, %s) AND exchange_timestamp < %s
    ORDER BY exchange_timestamp, stream, sequence LIMIT %s
) TO STDOUT (FORMAT binary)
"""
_RECOUNT: Final = """
SELECT symbol, trade_count, last_trade_at, coalesce(counted, 0), coalesce(latest, 0)
FROM symbols FULL JOIN (
    SELECT symbol AS number, count(*) AS counted, max(exchange_timestamp) AS latest
    FROM trades GROUP BY symbol
) AS found USING (number)
WHERE (trade_count, last_trade_at) IS DISTINCT FROM (coalesce(counted, 0), coalesce(latest, 0))
ORDER BY symbol
"""


class History:
    """Reads a store through a connection of its own.

    Parameters
    ----------
    url : str
        As the package says.

    Raises
    ------
    ConfigError
        When it is none.
    """

    def __init__(self, url: str) -> None:
        self._link = Link(Location.parse(url), self._prepare)

    @property
    def address(self) -> str:
        """What it is, for people, without secrets."""
        return self._link.location.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._link.close()

    def symbols(self) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order."""
        rows = self._rows(
            "SELECT symbol, trade_count, last_trade_at FROM symbols "
            "WHERE trade_count > 0 ORDER BY symbol"
        )
        return [SymbolTotals(*row) for row in rows]

    def has(self, symbol: str) -> bool:
        """Return whether the symbol has trades."""
        rows = self._rows("SELECT trade_count > 0 FROM symbols WHERE symbol = %s", symbol)
        return rows == [(True,)]

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        """Return at most `limit` trades whose key is below `before`, newest first."""
        rows = self._rows(_BEFORE, symbol, *(before or _ABOVE_ALL), max(0, limit))
        return TradePage(*np.array(rows, np.int64).reshape(-1, _TRADE_COLUMNS).T)

    def trades(
        self, symbol: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
    ) -> Iterator[TradePage]:
        """Yield all trades of a symbol, oldest first, in pages that are not empty."""
        # Below all keys of the first time: no stream has a number below 1.
        after = TradeKey(start_ns, 0, 0)
        while True:
            page = TradePage(*self._copied(_AFTER, symbol, *after, end_ns, PAGE_TRADES))
            if len(page):
                yield page
            if len(page) < PAGE_TRADES:
                return
            after = page.key(-1)

    def streams(self) -> list[SavedStream]:
        """Return the streams, in order of their numbers."""
        rows = self._rows("SELECT number, stream_id, next_sequence FROM streams ORDER BY number")
        return [SavedStream(*row) for row in rows]

    def recount(self) -> list[WrongTotals]:
        """Read all trades, and return the symbols whose totals are not theirs, in order."""
        return self._link.read(self._recount, takes_long=True)

    def bars(
        self, symbol: str, interval_ns: int, limit: int, before_ns: int = 0
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start before `before_ns`, newest first."""
        rows = self._rows(
            "SELECT start_ns, open, high, low, close, volume, count, first_ns, last_ns FROM bars "
            "WHERE symbol = (SELECT number FROM symbols WHERE symbol = %s) "
            "AND interval_ns = %s AND start_ns < %s ORDER BY start_ns DESC LIMIT %s",
            *(symbol, interval_ns, before_ns or MAX_NS, max(0, limit)),
        )
        return np.array([(0, interval_ns, 0, *row) for row in rows], SAVED_BAR)

    def interrupt(self) -> None:
        """End what another thread is reading at this moment, with StoreInterruptedError."""
        self._link.interrupt()

    def _prepare(self, connection: Connection) -> None:
        schema.check(connection, self._link.location)

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._link.read(lambda connection: fetched(connection, statement, *values))

    def _copied(self, statement: str, *values: Any) -> NDArray[np.int64]:
        def copied(connection: Connection) -> NDArray[np.int64]:
            with connection.cursor() as cursor, cursor.copy(statement, values) as copy:
                return read_rows(copy, _TRADE_COLUMNS)

        return self._link.read(copied)

    def _recount(self, connection: Connection) -> list[WrongTotals]:
        """Compare, for as long as it takes.

        Raises
        ------
        StoreFormatError
            When trades are of no symbol.
        """
        wrong = []
        for symbol, count, latest_ns, counted, counted_ns in fetched(connection, _RECOUNT):
            if symbol is None:
                raise StoreFormatError(f"{self.address}: has {counted:,} trades of no symbol")
            stored = SymbolTotals(symbol, count, latest_ns)
            wrong.append(WrongTotals(stored, SymbolTotals(symbol, counted, counted_ns)))
        return wrong


def fetched(connection: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return what a statement answers, with integers as they are."""
    return connection.execute(statement, values, binary=True).fetchall()
