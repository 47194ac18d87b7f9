"""Deletes what is old from a store in SQL: trades, and the bars and sessions of that time."""

# ruff: noqa: S608 - statements consist of this module's text and the constants of a dialect

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from mdtool.adapters.stores.sql import Dialect
from mdtool.engine.saved_state import SESSION_LENGTH

_ROWS: Final = 20_000
"""Trades deleted in one transaction, for which other writers wait."""

DeleteBlocks = Callable[[Any, int, int], int]
"""Deletes some of a symbol's trades before a time that are not rows; returns how many."""


class Pruning:
    """The deletion of what is old, in short transactions beside other writers.

    Numbers of symbols and streams, positions, and counts stay: they are what makes each tick count
    once.

    Parameters
    ----------
    dialect : Dialect
    writing : callable
        Begins a transaction, which is committed when its block has ended; yields the session.
    delete_blocks : callable, optional
        For a store whose trades are not all rows.
    """

    def __init__(
        self,
        dialect: Dialect,
        writing: Callable[[], AbstractContextManager[Any]],
        delete_blocks: DeleteBlocks = lambda _session, _symbol, _before_ns: 0,
    ) -> None:
        d, p = dialect, dialect.parameter
        self._writing = writing
        self._delete_blocks = delete_blocks
        self._numbers = "SELECT number FROM symbols ORDER BY number"
        # Locks the row, so that a writer adds to its totals before or after.
        self._lock = f"UPDATE symbols SET trade_count = trade_count WHERE number = {p}"
        old = f"FROM {d.trades} WHERE symbol = {p} AND {d.time} < {p}"
        self._cut = f"SELECT {d.time} {old} ORDER BY {d.time} LIMIT 1 OFFSET {_ROWS}"
        self._delete = f"DELETE {old}"
        self._totals = (
            f"UPDATE symbols SET trade_count = trade_count - {p}, last_trade_at = "
            f"CASE WHEN trade_count = {p} THEN {d.no_time} ELSE last_trade_at END "
            f"WHERE number = {p}"
        )
        self._bars = (
            f"DELETE FROM bars WHERE symbol = {p} AND ({d.interval} < {SESSION_LENGTH} "
            f"AND {d.start} + {d.interval} <= {p} OR {d.interval} = {SESSION_LENGTH} "
            f"AND {d.start} < {p})"
        )
        gone = (
            f"WHERE symbol = {p} AND {{time}} < {p} AND NOT EXISTS "
            f"(SELECT 1 FROM symbols WHERE number = {p} AND trade_count > 0)"
        )
        self._sessions = "DELETE FROM sessions " + gone.format(time='"timestamp"')
        self._open_bars = "DELETE FROM open_bars " + gone.format(time=d.last)

    def prune(self, before_ns: int) -> int:
        """Delete trades of exchange times before that, and bars that ended by then.

        A symbol without later trades loses its session too.

        Returns
        -------
        int
            How many trades were deleted.
        """
        with self._writing() as session:
            numbers = [number for (number,) in session.execute(self._numbers).fetchall()]
        return sum(self._prune(number, before_ns) for number in numbers)

    def _prune(self, number: int, before_ns: int) -> int:
        total = 0
        while True:
            with self._writing() as session:
                session.execute(self._lock, (number,))
                found = session.execute(self._cut, (number, before_ns)).fetchone()
                cut_ns = before_ns if found is None else int(found[0]) + 1
                deleted = session.execute(self._delete, (number, cut_ns)).rowcount
                deleted += self._delete_blocks(session, number, before_ns)
                if deleted:
                    session.execute(self._totals, (deleted, deleted, number))
                    total += deleted
                    continue
                session.execute(self._bars, (number, before_ns, before_ns))
                for statement in (self._sessions, self._open_bars):
                    session.execute(statement, (number, before_ns, number))
                return total
