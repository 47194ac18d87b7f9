"""Reads the trades of a SQLite store, which are in rows and in blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.port import MAX_NS, TradeKey, TradePage
from mdtool.adapters.stores.sql import ABOVE_ALL, Dialect, SqlReader, Statements, in_order
from mdtool.adapters.stores.sqlite import layers, schema
from mdtool.adapters.stores.sqlite.blocks import COLUMNS, KEY_COLUMNS, BlockDamageError
from mdtool.adapters.stores.sqlite.connection import Session

T = TypeVar("T")

_MAX_SEQUENCES: Final = 1 << 22
"""Numbers of trades that are collected before they are joined into runs."""


def values(columns: int) -> str:
    """Return the source of an insert of rows of so many values."""
    return f"VALUES ({', '.join('?' * columns)})"


def _statements(trades: str) -> Statements:
    return Statements(
        Dialect(
            parameter="?",
            time="timestamp",
            interval="interval",
            start="start",
            first="first",
            last="last",
            total="value",
            numbers=values,
            totals=values(2),
            begin_snapshot="BEGIN",
            check="PRAGMA quick_check(1)",
            trades=trades,
            no_time="NULL",
        )
    )


STATEMENTS: Final = _statements("trade_rows")
_STATEMENTS_BEFORE: Final = _statements("trades")
"""Those of stores that were not migrated yet, whose trades are all in rows."""
_NUMBER: Final = "SELECT number FROM symbols WHERE symbol = ?"


class BlockReader(SqlReader):
    """Reads a file; methods as in `SqlReader`."""

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        """Return at most `limit` trades whose key is below `before`, newest first."""
        limit, end = max(0, limit), before or ABOVE_ALL

        def read(session: Session) -> NDArray[np.int64]:
            statements, number = _place(session, symbol)
            rows = session.table(len(COLUMNS), statements.page_before, symbol, *end, limit)
            if number is None:
                return rows
            found = layers.trades_below(session, number, limit, end)
            return _sorted(rows[:, ::-1], found)[:, ::-1]

        return TradePage.of(self._snapshot(read)[:, :limit])

    def page_after(
        self, symbol: str, limit: int, after: TradeKey, end_ns: int = MAX_NS
    ) -> TradePage:
        """Return at most `limit` trades whose key is above `after`, oldest first."""
        limit = max(0, limit)

        def read(session: Session) -> NDArray[np.int64]:
            statements, number = _place(session, symbol)
            rows = session.table(len(COLUMNS), statements.page_after, symbol, *after, end_ns, limit)
            if number is None:
                return rows
            return _sorted(rows, layers.trades_above(session, number, limit, after, end_ns))

        return TradePage.of(self._snapshot(read)[:, :limit])

    def sequences(self) -> NDArray[np.int64]:
        """Return the stream, the first and the last sequence of runs of trades, int64[3, n]."""

        def read(session: Session) -> NDArray[np.int64]:
            if _is_before(session):
                return session.table(3, _STATEMENTS_BEFORE.sequences)
            runs = session.table(3, STATEMENTS.sequences)
            single: list[NDArray[np.int64]] = []
            for block in layers.every(session):
                _, stream, sequence = block.key_columns()
                single.append(np.stack([stream, sequence, sequence]))
                if sum(each.shape[1] for each in single) > _MAX_SEQUENCES:
                    runs, single = _joined_runs([runs, *single]), []
            return _joined_runs([runs, *single])

        return self._snapshot(read, takes_long=True)

    def _counted(self, session: Any) -> dict[int, tuple[int, int]]:
        if _is_before(session):
            rows = session.rows(_STATEMENTS_BEFORE.counted)
            return {number: (count, latest_ns) for number, count, latest_ns in rows}
        counted = super()._counted(session)
        try:
            for block in layers.every(session):
                block.check()
                count, latest_ns = counted.get(block.symbol, (0, block.last.timestamp_ns))
                counted[block.symbol] = (
                    count + block.count,
                    max(latest_ns, block.last.timestamp_ns),
                )
        except BlockDamageError as error:
            raise self._damaged(str(error)) from error
        return counted

    def _snapshot(self, work: Callable[[Session], T], *, takes_long: bool = False) -> T:
        """Return what `work` reads of one state of the file."""

        def read(session: Session) -> T:
            session.execute(STATEMENTS.begin_snapshot)
            try:
                return work(session)
            except BlockDamageError as error:
                raise self._damaged(str(error)) from error
            finally:
                with contextlib.suppress(Exception):
                    session.execute("COMMIT")

        return self._connection.read(read, takes_long=takes_long)


def _place(session: Session, symbol: str) -> tuple[Statements, int | None]:
    """Return the statements for a store, and the number of a symbol that may have blocks."""
    if _is_before(session):
        return _STATEMENTS_BEFORE, None
    for (number,) in session.execute(_NUMBER, (symbol,)):
        return STATEMENTS, int(number)
    return STATEMENTS, None


def _is_before(session: Session) -> bool:
    return schema.version(session) == schema.ROWS_ONLY


def _sorted(rows: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return trades of rows, in order, and of blocks, upwards."""
    trades = np.concatenate([rows, found], axis=1) if rows.shape[1] else found
    return in_order(trades, KEY_COLUMNS)


def _joined_runs(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return runs of sequences, int64[3, n], joined where they follow or overlap each other."""
    runs = np.concatenate(parts, axis=1)
    runs = runs[:, np.lexsort(runs[:2][::-1])]
    joined = [np.empty((3, 0), np.int64)]
    for stream in np.unique(runs[0]).tolist():
        begin, end = np.searchsorted(runs[0], [stream, stream + 1])
        first, last = runs[1:, begin:end]
        last = np.maximum.accumulate(last)
        begins = np.flatnonzero(np.append(True, first[1:] > last[:-1] + 1))
        ends = np.append(begins[1:], len(first)) - 1
        joined.append(np.stack([np.full(len(begins), stream), first[begins], last[ends]]))
    return np.concatenate(joined, axis=1)
