"""Writes a store in PostgreSQL."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
import psycopg
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreError
from mdtool.adapters.stores.port import SavedState, Step, WrongTotals
from mdtool.adapters.stores.postgresql import schema
from mdtool.adapters.stores.postgresql.claim import MarketClaim
from mdtool.adapters.stores.postgresql.history import History, fetched
from mdtool.adapters.stores.postgresql.link import Connection
from mdtool.adapters.stores.postgresql.writing import symbol_numbers, write_step
from mdtool.engine.saved_bars import SAVED_BAR
from mdtool.engine.sessions import SESSION

_SESSIONS: Final = """
SELECT number, symbols.symbol, open, high, low, close, volume, count, "timestamp",
    ingest_timestamp
FROM sessions JOIN symbols ON number = sessions.symbol ORDER BY number
"""
_OPEN_BARS: Final = """
SELECT symbol, interval_ns, 1, start_ns, open, high, low, close, volume, count, first_ns, last_ns
FROM open_bars
"""
_AMENDABLE: Final = """
SELECT bars.symbol, bars.interval_ns, 0, start_ns, open, high, low, close, volume, count, first_ns,
    last_ns
FROM (
    SELECT symbol, interval_ns, max(start_ns) OVER (PARTITION BY symbol) AS latest
    FROM open_bars
) AS series
CROSS JOIN LATERAL (
    SELECT * FROM bars WHERE bars.symbol = series.symbol
    AND bars.interval_ns = series.interval_ns
    AND start_ns > latest - %s - series.interval_ns
) AS bars
"""
_POSITIONS: Final = """
SELECT stream_id, next_sequence FROM streams WHERE next_sequence IS NOT NULL
ORDER BY heard DESC LIMIT %s
"""
_SET_TOTALS: Final = """
UPDATE symbols SET trade_count = counted, last_trade_at = latest
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS found (name, counted, latest)
WHERE symbol = name
"""


class Store(History):
    """Writes steps, and reads what is stored, through one connection.

    When a connection breaks while a step is being committed, nobody knows whether it was. The
    step is then written once more: the row of its stream stays locked until the server has
    settled the first try, and what was committed is left out by position.

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
        super().__init__(url)
        self._claim = MarketClaim(self._link.location)
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._link.run(lambda connection: connection.execute("SELECT"))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._claim.release()
        super().__exit__(*exc_info)

    def claim(self) -> None:
        """Hold the store's market until the block ends, or this process does, however it ends."""
        self._claim.hold()

    def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return what a market takes up again, at a cost that does not depend on the trades."""
        return self._link.read(lambda connection: _load(connection, max_streams, lateness_ns))

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream, None when the store knows none."""
        rows = self._rows("SELECT next_sequence FROM streams WHERE stream_id = %s", stream_id)
        return rows[0][0] if rows else None

    def write(self, step: Step) -> None:
        """Write a step; when it returns, the step is kept whatever happens to this process."""
        if self._claim.is_held:
            self._claim.hold()
        try:
            self._link.run(lambda connection: self._write(connection, step))
        except UnicodeError as error:
            raise StoreError(f"{self.address}: {error}") from error

    def repair(self) -> list[WrongTotals]:
        """Set right what `recount` finds, in one transaction, and return it."""
        return self._link.read(self._repair, takes_long=True)

    def _prepare(self, connection: Connection) -> None:
        schema.create(connection, self._link.location)
        self._numbers.clear()  # another server may have taken the place of the one before

    def _write(self, connection: Connection, step: Step) -> None:
        numbers = symbol_numbers(connection, step, self._numbers)
        is_staged = any(run.is_part for run in step.runs)
        try:
            self._transact(connection, step, numbers, is_staged=is_staged)
        except psycopg.errors.UniqueViolation:
            connection.execute("ROLLBACK")
            self._transact(connection, step, numbers, is_staged=True)

    def _transact(
        self, connection: Connection, step: Step, numbers: NDArray[np.int64], *, is_staged: bool
    ) -> None:
        connection.execute("BEGIN")
        if self._claim.is_held:
            self._claim.check(connection)
        write_step(connection, step, numbers, is_staged=is_staged)
        connection.execute("COMMIT")

    def _repair(self, connection: Connection) -> list[WrongTotals]:
        connection.execute("BEGIN")
        # Writers add to totals last: whoever has not yet waits here, with trades not yet seen.
        connection.execute("LOCK TABLE symbols IN SHARE ROW EXCLUSIVE MODE")
        wrong = self._recount(connection)
        counted = [each.counted for each in wrong]
        connection.execute(_SET_TOTALS, tuple(map(list, zip(*counted, strict=True))) or ([],) * 3)
        connection.execute("COMMIT")
        return wrong


def _load(connection: Connection, max_streams: int, lateness_ns: int) -> SavedState:
    """Read the state of the market as of one moment."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    sessions = fetched(connection, _SESSIONS)
    open_ = fetched(connection, _OPEN_BARS)
    closed = fetched(connection, _AMENDABLE, lateness_ns)
    positions = fetched(connection, _POSITIONS, max_streams)
    counts = fetched(connection, "SELECT name, total FROM counts")
    connection.execute("COMMIT")
    place = {number: index for index, (number, *_) in enumerate(sessions)}
    bars = [
        (place[number], *row)
        for number, *row in sorted(open_ + closed, key=_series)
        if number in place
    ]
    return SavedState(
        symbols=[symbol for _, symbol, *_ in sessions],
        sessions=np.array([tuple(row) for _, _, *row in sessions], SESSION),
        bars=np.array(bars, SAVED_BAR),
        positions=dict(reversed(positions)),
        counts=dict(counts),
    )


def _series(bar: tuple[Any, ...]) -> tuple[int, int, int]:
    """Return what bars come in order of: symbol, interval and start."""
    symbol, interval_ns, _, start_ns, *_ = bar
    return symbol, interval_ns, start_ns
