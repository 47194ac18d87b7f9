"""Reads and writes a store in PostgreSQL.

Writers lock streams before symbols, and each kind in one order, so that they wait for each other
and never in a cycle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, Self

import numpy as np
import psycopg
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreError
from mdtool.adapters.stores.port import Step, WrongTotals
from mdtool.adapters.stores.postgresql import schema
from mdtool.adapters.stores.postgresql.binary import COPY_HEADER, COPY_TRAILER, copied_rows
from mdtool.adapters.stores.postgresql.claim import MarketClaim
from mdtool.adapters.stores.postgresql.connection import Connection, Location, Session
from mdtool.adapters.stores.pruning import Pruning
from mdtool.adapters.stores.sql import (
    Dialect,
    SqlReader,
    Statements,
    StoredStream,
    new_trades,
    put_market,
    replace_market,
    symbol_numbers,
    used_symbols,
)


def _unnest(columns: int) -> str:
    return f"SELECT * FROM unnest({', '.join(['%s'] * columns)})"  # noqa: S608 - parameters only


_STATEMENTS: Final = Statements(
    Dialect(
        parameter="%s",
        time="exchange_timestamp",
        interval="interval_ns",
        start="start_ns",
        first="first_ns",
        last="last_ns",
        total="total",
        numbers=_unnest,
        totals="SELECT * FROM unnest(%s::text[], %s::bigint[])",
        begin_snapshot="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    )
)
_COPY_ROWS: Final = 50_000
"""Rows of one statement, which has a time limit."""
_COPY: Final = "COPY trades FROM STDIN (FORMAT binary)"
_STAGE: Final = "CREATE TEMPORARY TABLE staged (LIKE trades) ON COMMIT DROP"
_COPY_STAGED: Final = "COPY staged FROM STDIN (FORMAT binary)"
_INSERT_STAGED: Final = """
WITH inserted AS (
    INSERT INTO trades SELECT * FROM staged
    ORDER BY symbol, exchange_timestamp, stream, sequence
    ON CONFLICT DO NOTHING RETURNING symbol, exchange_timestamp
)
SELECT symbol, count(*), max(exchange_timestamp) FROM inserted GROUP BY symbol
"""
_INSERT_STREAMS: Final = """
INSERT INTO streams (stream_id)
SELECT stream_id FROM unnest(%s::text[]) AS added (stream_id) ORDER BY stream_id COLLATE "C"
ON CONFLICT DO NOTHING
"""
_OWN: Final = """
INSERT INTO streams (stream_id, owner) VALUES (%s, %s)
ON CONFLICT (stream_id) DO UPDATE SET owner = excluded.owner WHERE streams.owner IS NULL
"""
_LOCK_STREAMS: Final = """
SELECT stream_id, number, next_sequence FROM streams WHERE stream_id = ANY (%s)
ORDER BY stream_id FOR NO KEY UPDATE
"""
_MOVE_STREAMS: Final = """
UPDATE streams SET next_sequence = moved.position, heard = moved.heard
FROM (
    SELECT number, position, nextval('heard') AS heard
    FROM unnest(%s, %s) WITH ORDINALITY AS moved (number, position, place) ORDER BY place
) AS moved
WHERE streams.number = moved.number
"""
_INSERT_SYMBOLS: Final = """
INSERT INTO symbols (symbol)
SELECT symbol FROM unnest(%s::text[]) AS added (symbol) ORDER BY symbol COLLATE "C"
ON CONFLICT DO NOTHING
"""
_SYMBOLS: Final = "SELECT symbol, number FROM symbols WHERE symbol = ANY (%s)"
_LOCK_TOTALS: Final = """
SELECT FROM symbols WHERE number = ANY (%s) ORDER BY number FOR NO KEY UPDATE
"""
_ADD_TOTALS: Final = """
UPDATE symbols SET
    trade_count = trade_count + counted,
    last_trade_at = CASE trade_count WHEN 0 THEN latest ELSE greatest(last_trade_at, latest) END
FROM unnest(%s, %s, %s) AS added (number, counted, latest)
WHERE symbols.number = added.number
"""
_SET_TOTALS: Final = """
UPDATE symbols SET trade_count = counted, last_trade_at = latest
FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS found (name, counted, latest)
WHERE symbol = name
"""
_SET_LOTS: Final = """
UPDATE symbols SET lot = told.lot FROM unnest(%s, %s) AS told (number, lot)
WHERE symbols.number = told.number AND symbols.lot = 0
"""

_Totals = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Numbers of symbols, how many trades of each were inserted, and the latest time of these."""


class History(SqlReader):
    """Reads a store through a connection of its own.

    Parameters
    ----------
    url : str
        As the package documents.

    Raises
    ------
    ConfigError
        When it is not valid.
    """

    def __init__(self, url: str) -> None:
        location = Location.parse(url)
        connection = Connection(location, lambda session: schema.check(session, location))
        super().__init__(connection, _STATEMENTS)


class Store(SqlReader):
    """Writes steps, and reads, through one connection; methods as in `port.Store`.

    When a connection is lost while a step is being committed, the outcome is unknown. The step is
    then written once more: the row of its stream stays locked until the server has settled the
    first attempt, and what that committed is left out by position.

    Parameters
    ----------
    url : str
        As the package documents.

    Raises
    ------
    ConfigError
        When it is not valid.
    """

    def __init__(self, url: str) -> None:
        self._location = Location.parse(url)
        self._server = Connection(self._location, self._prepare)
        super().__init__(self._server, _STATEMENTS)
        self._claim = MarketClaim(self._location)
        self._numbers: dict[str, int] = {}
        """The numbers of symbols."""

    def __enter__(self) -> Self:
        self._server.run(lambda session: session.execute("SELECT"))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._claim.release()
        super().__exit__(*exc_info)

    def claim(self) -> None:
        """Hold the store's market until the block ends, or this process does, however it ends."""
        self._claim.hold()

    def own(self, stream_id: str, principal: str) -> str:
        """Make a stream a principal's, unless it is another's; return whose it is."""
        owner = self.owner(stream_id)
        if owner is not None:
            return owner

        def own(session: Session) -> str:
            session.execute(_OWN, (stream_id, principal))
            return str(session.rows(_STATEMENTS.owner, stream_id)[0][0])

        return self._server.run(own)

    def write(self, step: Step) -> None:
        """Write a step; when this returns, it is stored whatever happens to this process."""
        if self._claim.is_held:
            self._claim.hold()
        try:
            self._server.run(lambda session: self._write(session, step))
        except UnicodeError as error:
            raise StoreError(f"{self.address}: {error}") from error

    def repair(self) -> list[WrongTotals]:
        """Correct what `recount` finds, in one transaction, and return it."""
        return self._server.read(self._repair, takes_long=True)

    def prune(self, before_ns: int) -> int:
        """Delete trades before an exchange time, and bars that ended by then; return how many."""

        def prune(session: Session) -> int:
            return Pruning(_STATEMENTS.dialect, lambda: _writing(session)).prune(before_ns)

        return self._server.read(prune, takes_long=True)

    def replace_market(self, step: Step) -> int:
        """Write sessions and bars in place of all that the step's symbols have."""

        def replace(session: Session) -> int:
            used = used_symbols(step)
            names = list(used.values())
            known = dict(session.execute(_SYMBOLS, (names,)).fetchall())
            with _writing(session):
                return replace_market(
                    session,
                    step,
                    symbol_numbers(used, known),
                    _STATEMENTS,
                    lambda put, table: session.execute(put, tuple(table)),
                )

        return self._server.read(replace, takes_long=True)

    def used_bytes(self) -> None:
        """Return None: what PostgreSQL deletes takes space until it is vacuumed."""

    def _prepare(self, session: Session) -> None:
        schema.create(session, self._location)
        self._numbers.clear()  # another server may have replaced the one before

    def _write(self, session: Session, step: Step) -> None:
        used = used_symbols(step)
        # Apart from the transaction: a symbol without trades is shown nowhere.
        missing = [symbol for symbol in used.values() if symbol not in self._numbers]
        if missing:
            session.execute(_INSERT_SYMBOLS, (missing,))
            self._numbers.update(session.execute(_SYMBOLS, (missing,)).fetchall())
        numbers = symbol_numbers(used, self._numbers)
        is_staged = any(run.is_part for run in step.runs)
        try:
            self._transact(session, step, numbers, is_staged=is_staged)
        except psycopg.errors.UniqueViolation:
            session.execute("ROLLBACK")
            self._transact(session, step, numbers, is_staged=True)

    def _transact(
        self, session: Session, step: Step, numbers: NDArray[np.int64], *, is_staged: bool
    ) -> None:
        """Write what is new in a step.

        With `is_staged`, trades may be stored already that are new by the positions of their
        streams; without it, that raises UniqueViolation.
        """
        session.execute("BEGIN")
        if self._claim.is_held:
            self._claim.check(session)
        trades, moved = new_trades(step, _locked_streams(session, step), numbers)
        if trades.shape[1]:
            totals = _insert_staged(session, trades) if is_staged else _insert(session, trades)
            if len(totals[0]):
                session.execute(_LOCK_TOTALS, (totals[0],))
                session.execute(_ADD_TOTALS, totals)
        if moved:
            rows = [(stream.number, stream.position) for stream in moved]
            session.execute(_MOVE_STREAMS, tuple(np.array(rows, np.int64).T))
        put_market(
            step, numbers, _STATEMENTS, lambda put, table: session.execute(put, tuple(table))
        )
        if step.counts:
            counts = list(step.counts), list(step.counts.values())
            session.execute(_STATEMENTS.put_counts, counts)
        if step.lots:
            lots = numbers[list(step.lots)], np.array(list(step.lots.values()), np.int64)
            session.execute(_LOCK_TOTALS, (lots[0],))
            session.execute(_SET_LOTS, lots)
        session.execute("COMMIT")

    def _repair(self, session: Session) -> list[WrongTotals]:
        session.execute("BEGIN")
        # Writers add to totals last: those that have not yet wait here, with trades not yet seen.
        session.execute("LOCK TABLE symbols IN SHARE ROW EXCLUSIVE MODE")
        wrong = list(self._wrong_totals(session).values())
        counted = [each.counted[:3] for each in wrong]
        session.execute(_SET_TOTALS, tuple(map(list, zip(*counted, strict=True))) or ([],) * 3)
        session.execute("COMMIT")
        return wrong


@contextlib.contextmanager
def _writing(session: Session) -> Iterator[Session]:
    session.execute("BEGIN")
    yield session
    session.execute("COMMIT")


def _locked_streams(session: Session, step: Step) -> dict[str, StoredStream]:
    """Return the rows of a step's streams, which are locked until the transaction ends."""
    names = sorted({run.stream_id for run in step.runs})
    if not names:
        return {}
    rows = session.execute(_LOCK_STREAMS, (names,)).fetchall()
    if len(rows) < len(names):
        session.execute(_INSERT_STREAMS, (names,))
        rows = session.execute(_LOCK_STREAMS, (names,)).fetchall()
    return {stream_id: StoredStream(number, position) for stream_id, number, position in rows}


def _insert(session: Session, trades: NDArray[np.int64]) -> _Totals:
    """Insert trades, int64[7, n] in order of the key."""
    _copy(session, _COPY, trades)
    symbol, first, count = np.unique(trades[0], return_index=True, return_counts=True)
    return symbol, count, trades[1, first + count - 1]


def _insert_staged(session: Session, trades: NDArray[np.int64]) -> _Totals:
    """Insert trades that are not stored yet."""
    session.execute(_STAGE)
    _copy(session, _COPY_STAGED, trades)
    rows = session.execute(_INSERT_STAGED).fetchall()
    symbol, count, latest = np.array(rows, np.int64).reshape(-1, 3).T
    return symbol, count, latest


def _copy(session: Session, statement: str, trades: NDArray[np.int64]) -> None:
    for begin in range(0, trades.shape[1], _COPY_ROWS):
        with session.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(COPY_HEADER)
            copy.write(copied_rows(trades[:, begin : begin + _COPY_ROWS]))
            copy.write(COPY_TRAILER)
