"""What stores in SQL databases have in common: statements, how they are read, what a step adds.

SQLite and PostgreSQL have the same tables, and call some columns by different names. A `Dialect`
says what differs; everything that follows from a step, or is read, is here. How trades are inserted
and locks are taken is each database's own.
"""

# ruff: noqa: S608 - statements consist of this module's text and the constants of a dialect

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreFormatError, StoreGapError
from mdtool.adapters.stores.port import (
    MAX_NS,
    MIN_NS,
    SavedStream,
    Step,
    StreamRun,
    SymbolTotals,
    TradeKey,
    TradePage,
    WrongTotals,
)
from mdtool.engine.saved_state import SAVED_BAR, SESSION, SESSION_LENGTH, SavedState

PAGE_TRADES: Final = 1 << 16
"""Trades that a reader of all trades fetches at once."""
KEY_COLUMNS: Final = 4
"""The first columns of trades: symbol, exchange time, stream and sequence."""
TRADE_COLUMNS: Final = 7
_PAGE_COLUMNS: Final = 6
ABOVE_ALL: Final = TradeKey(MAX_NS, 0, 0)

T = TypeVar("T")


class Session(Protocol):
    """An open connection."""

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects."""
        ...

    def table(self, columns: int, statement: str, *values: object) -> NDArray[np.int64]:
        """Return many rows of integers as int64[columns, n]."""
        ...


class Connection(Protocol):
    """A connection that opens when it is used, and again after it was lost."""

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets."""
        ...

    def read(self, work: Callable[[Any], T], *, takes_long: bool = False) -> T:
        """Return what `work` reads from a session; `interrupt` may end it.

        Raises
        ------
        StoreError
            As `TradeHistory` says.
        """
        ...

    def interrupt(self) -> None:
        """End what another thread reads at this moment."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database writes what others write differently.

    Attributes
    ----------
    parameter : str
        Stands for a value in a statement.
    time : str
        The column of trades with the exchange time.
    interval, start, first, last : str
        Columns of bars.
    total : str
        The column of counts.
    numbers : callable
        Returns the source of an insert of rows of so many integers.
    totals : str
        The source of an insert of names and totals.
    begin_snapshot : str
        Begins a transaction in which all statements read the same state.
    check : str
        Selects the first problem of the database's files, else `ok`; empty where there is no such
        statement.
    trades : str
        The table with a row a trade.
    no_time : str
        The latest time of a symbol without trades.
    """

    parameter: str
    time: str
    interval: str
    start: str
    first: str
    last: str
    total: str
    numbers: Callable[[int], str]
    totals: str
    begin_snapshot: str
    check: str = ""
    trades: str = "trades"
    no_time: str = "0"


class Statements:
    """The statements of one dialect.

    Parameters
    ----------
    dialect : Dialect
    """

    def __init__(self, dialect: Dialect) -> None:
        d, p = dialect, dialect.parameter
        number = f"(SELECT number FROM symbols WHERE symbol = {p})"
        trade = f"{d.time}, stream, sequence, price, volume, ingest_timestamp"
        key = f"({d.time}, stream, sequence)"
        prices = ("open", "high", "low", "close", "volume", "count")
        session = (*prices, '"timestamp"', "ingest_timestamp")
        bar = (*prices, d.first, d.last)
        values = ", ".join(bar)

        self.dialect = dialect
        self.begin_snapshot = d.begin_snapshot
        self.check = d.check
        self.symbols = (
            "SELECT symbol, trade_count, last_trade_at, "
            # Of a store that was not migrated yet, whose symbols have no such column, the 0.
            "(SELECT lot FROM symbols AS own WHERE own.number = known.number) FROM "
            "(SELECT number, symbol, trade_count, last_trade_at, 0 AS lot FROM symbols "
            "WHERE trade_count > 0) AS known ORDER BY symbol"
        )
        self.has = f"SELECT 1 FROM symbols WHERE symbol = {p} AND trade_count > 0"
        self.page_before = (
            f"SELECT {trade} FROM {d.trades} WHERE symbol = {number} AND {key} < ({p}, {p}, {p}) "
            f"ORDER BY {d.time} DESC, stream DESC, sequence DESC LIMIT {p}"
        )
        self.page_after = (
            f"SELECT {trade} FROM {d.trades} WHERE symbol = {number} AND {key} > ({p}, {p}, {p}) "
            f"AND {d.time} < {p} ORDER BY {d.time}, stream, sequence LIMIT {p}"
        )
        self.bars = (
            f"SELECT 0, {d.interval}, 0, {d.start}, {values} FROM bars WHERE symbol = {number} "
            f"AND {d.interval} = {p} AND {d.start} < {p} ORDER BY {d.start} DESC LIMIT {p}"
        )
        self.bars_from = (
            f"SELECT 0, {d.interval}, 0, {d.start}, {values} FROM bars WHERE symbol = {number} "
            f"AND {d.interval} = {p} AND {d.start} >= {p} ORDER BY {d.start} LIMIT {p}"
        )
        self.streams = "SELECT number, stream_id, next_sequence FROM streams ORDER BY number"
        self.sequences = (
            "SELECT stream, min(sequence), max(sequence) FROM (SELECT stream, sequence, sequence "
            f"- dense_rank() OVER (PARTITION BY stream ORDER BY sequence) AS run FROM {d.trades}"
            ") AS numbered GROUP BY stream, run ORDER BY 1, 2"
        )
        self.position = f"SELECT next_sequence FROM streams WHERE stream_id = {p}"
        # Read first: most claims are of streams that have an owner.
        self.owner = f"SELECT owner FROM streams WHERE stream_id = {p} AND owner IS NOT NULL"
        self.counted = f"SELECT symbol, count(*), max({d.time}) FROM {d.trades} GROUP BY symbol"
        self.totals = (
            "SELECT number, symbol, trade_count, last_trade_at FROM symbols ORDER BY symbol"
        )
        # CROSS JOIN fixes the order for SQLite: what is few comes first.
        self.sessions = (
            f"SELECT number, symbols.symbol, {', '.join(session)} FROM sessions CROSS JOIN symbols "
            "WHERE number = sessions.symbol ORDER BY number"
        )
        self.open_bars = f"SELECT symbol, {d.interval}, 1, {d.start}, {values} FROM open_bars"
        self.amendable_bars = (
            f"SELECT bars.symbol, bars.{d.interval}, 0, bars.{d.start}, {values} FROM ("
            f"SELECT symbol, {d.interval}, max({d.start}) OVER (PARTITION BY symbol) AS latest "
            "FROM open_bars) AS series CROSS JOIN bars WHERE bars.symbol = series.symbol "
            f"AND bars.{d.interval} = series.{d.interval} "
            f"AND bars.{d.start} > latest - {p} - series.{d.interval}"
        )
        # CROSS JOIN as above.
        self.past_sessions = (
            f"SELECT bars.symbol, bars.{d.interval}, 0, bars.{d.start}, {values} FROM symbols "
            f"CROSS JOIN bars WHERE bars.symbol = number AND bars.{d.interval} = {SESSION_LENGTH} "
            f"AND bars.{d.start} = (SELECT max(past.{d.start}) FROM bars AS past "
            f"WHERE past.symbol = number AND past.{d.interval} = {SESSION_LENGTH})"
        )
        self.positions = (
            "SELECT stream_id, next_sequence FROM streams WHERE next_sequence IS NOT NULL "
            f"ORDER BY heard DESC LIMIT {p}"
        )
        self.counts = f"SELECT name, {d.total} FROM counts"
        self.put_sessions = (
            f"INSERT INTO sessions {d.numbers(9)} "
            f"ON CONFLICT (symbol) DO UPDATE SET {_excluded(session)} "
            # A session that rolled begins to count again, with later trades.
            "WHERE excluded.count >= sessions.count "
            'OR excluded."timestamp" > sessions."timestamp"'
        )
        self.put_open_bars = (
            f"INSERT INTO open_bars {d.numbers(11)} "
            f"ON CONFLICT (symbol, {d.interval}) DO UPDATE SET {_excluded((d.start, *bar))} "
            f"WHERE (excluded.{d.start}, excluded.count) >= (open_bars.{d.start}, open_bars.count)"
        )
        self.put_bars = (
            f"INSERT INTO bars {d.numbers(11)} "
            f"ON CONFLICT (symbol, {d.interval}, {d.start}) DO UPDATE SET {_excluded(bar)} "
            "WHERE excluded.count >= bars.count"
        )
        self.put_counts = (
            f"INSERT INTO counts {d.totals} ON CONFLICT (name) DO UPDATE "
            f"SET {d.total} = excluded.{d.total} WHERE excluded.{d.total} > counts.{d.total}"
        )


def _excluded(columns: Iterable[str]) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns)


class SqlReader:
    """Reads a store; methods as in `TradeHistory` and, of those that read, in `Store`.

    One thread at a time may call them, except for `interrupt`.

    Parameters
    ----------
    connection : Connection
    statements : Statements
    """

    def __init__(self, connection: Connection, statements: Statements) -> None:
        self._connection = connection
        self._statements = statements

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets."""
        return self._connection.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def symbols(self) -> list[SymbolTotals]:
        """Return the symbols that have trades, in order."""
        return [SymbolTotals(*row) for row in self._rows(self._statements.symbols)]

    def has(self, symbol: str) -> bool:
        """Return whether the symbol has trades."""
        return bool(self._rows(self._statements.has, symbol))

    def page(self, symbol: str, limit: int, before: TradeKey | None = None) -> TradePage:
        """Return at most `limit` trades whose key is below `before`, newest first."""
        values = (symbol, *(before or ABOVE_ALL), max(0, limit))
        rows = self._rows(self._statements.page_before, *values)
        return TradePage.of(self._array(rows).reshape(-1, _PAGE_COLUMNS).T)

    def page_after(
        self, symbol: str, limit: int, after: TradeKey, end_ns: int = MAX_NS
    ) -> TradePage:
        """Return at most `limit` trades whose key is above `after`, oldest first."""
        statement, values = self._statements.page_after, (symbol, *after, end_ns, limit)
        return TradePage.of(
            self._connection.read(lambda each: each.table(_PAGE_COLUMNS, statement, *values))
        )

    def trades(
        self, symbol: str, start_ns: int = MIN_NS, end_ns: int = MAX_NS
    ) -> Iterator[TradePage]:
        """Yield all trades of a symbol, oldest first, in pages that are not empty."""
        after = TradeKey(start_ns, 0, 0)  # streams have numbers from 1
        while True:
            page = self.page_after(symbol, PAGE_TRADES, after, end_ns)
            if len(page):
                yield page
            if len(page) < PAGE_TRADES:
                return
            after = page.key(-1)

    def streams(self) -> list[SavedStream]:
        """Return the streams, in order of their numbers."""
        return [SavedStream(*row) for row in self._rows(self._statements.streams)]

    def sequences(self) -> NDArray[np.int64]:
        """Return the stream, the first and the last sequence of runs of trades, int64[3, n]."""
        statement = self._statements.sequences
        return self._connection.read(lambda session: session.table(3, statement), takes_long=True)

    def recount(self) -> list[WrongTotals]:
        """Read all trades, and return the symbols whose totals are not theirs, in order."""

        def recount(session: Session) -> list[WrongTotals]:
            session.rows(self._statements.begin_snapshot)
            wrong = self._wrong_totals(session)
            session.rows("COMMIT")
            return list(wrong.values())

        return self._connection.read(recount, takes_long=True)

    def bars(
        self, symbol: str, interval_ns: int, limit: int, before_ns: int = 0
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start before `before_ns`, newest first."""
        values = (symbol, interval_ns, before_ns or MAX_NS, max(0, limit))
        return self._array(self._rows(self._statements.bars, *values)).view(SAVED_BAR)

    def bars_from(
        self, symbol: str, interval_ns: int, limit: int, from_ns: int
    ) -> NDArray[np.void]:
        """Return at most `limit` closed bars that start at `from_ns` or later, oldest first."""
        values = (symbol, interval_ns, from_ns, max(0, limit))
        return self._array(self._rows(self._statements.bars_from, *values)).view(SAVED_BAR)

    def interrupt(self) -> None:
        """End what another thread is reading at this moment, with StoreInterruptedError."""
        self._connection.interrupt()

    def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return the state of the market, at a cost that does not depend on the trades."""

        def load(session: Session) -> SavedState:
            session.rows(self._statements.begin_snapshot)
            state = self._state(session, max_streams, lateness_ns)
            session.rows("COMMIT")
            return state

        return self._connection.read(load)

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream, None when the store knows none."""
        rows = self._rows(self._statements.position, stream_id)
        return rows[0][0] if rows else None

    def owner(self, stream_id: str) -> str | None:
        """Return the principal whose a stream is, None where it is nobody's."""
        rows = self._rows(self._statements.owner, stream_id)
        return rows[0][0] if rows else None

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.read(lambda session: session.rows(statement, *values))

    def _state(self, session: Session, max_streams: int, lateness_ns: int) -> SavedState:
        statements = self._statements
        sessions = session.rows(statements.sessions)
        index = {number: index for index, (number, *_) in enumerate(sessions)}
        rows = session.rows(statements.open_bars)
        rows += session.rows(statements.amendable_bars, lateness_ns)
        rows += session.rows(statements.past_sessions)
        bars = self._array([row for row in rows if row[0] in index]).view(SAVED_BAR)
        bars["symbol"] = [index[number] for number in bars["symbol"].tolist()]
        return SavedState(
            symbols=[symbol for _, symbol, *_ in sessions],
            sessions=self._array([row[2:] for row in sessions]).view(SESSION),
            bars=bars[np.lexsort((bars["start_ns"], bars["interval_ns"], bars["symbol"]))],
            positions=dict(reversed(session.rows(statements.positions, max_streams))),
            counts=dict(session.rows(statements.counts)),
            lots={symbol: lot for symbol, _, _, lot in session.rows(statements.symbols) if lot},
        )

    def _wrong_totals(self, session: Session) -> dict[int, WrongTotals]:
        """Read all trades, and return the totals that are not theirs, by number of symbol."""
        if self._statements.check:
            ((problem,),) = session.rows(self._statements.check)
            if problem != "ok":
                raise self._damaged(problem.splitlines()[-1])
        counted = self._counted(session)
        wrong = {}
        for number, symbol, count, latest_ns in session.rows(self._statements.totals):
            stored = SymbolTotals(symbol, count, latest_ns or 0)
            actual = SymbolTotals(symbol, *counted.pop(number, (0, 0)))
            if stored != actual:
                wrong[number] = WrongTotals(stored, actual)
        if counted:
            raise self._damaged("trades of no symbol")
        return wrong

    def _counted(self, session: Session) -> dict[int, tuple[int, int]]:
        """Return how many trades each symbol has and the latest time of them, by its number."""
        rows = session.rows(self._statements.counted)
        return {number: (count, latest_ns) for number, count, latest_ns in rows}

    def _array(self, rows: Iterable[tuple[int, ...]]) -> NDArray[np.int64]:
        """Return the values of rows one after the other."""
        try:
            return np.fromiter(chain.from_iterable(rows), np.int64)
        except (TypeError, ValueError) as error:
            raise self._damaged("a value is not an integer") from error

    def _damaged(self, reason: str) -> StoreFormatError:
        return StoreFormatError(f"{self.address}: is damaged; restore it from a copy ({reason})")


# What a step adds.


@dataclass(slots=True)
class StoredStream:
    """A stream's row.

    Attributes
    ----------
    number : int
        The number in the keys of its trades.
    position : int or None
        Its next sequence, None while only parts of it are stored.
    has_parts : bool
        Whether trades of it may be stored that are not before its position.
    """

    number: int
    position: int | None
    has_parts: bool = True


def used_symbols(step: Step) -> dict[int, str]:
    """Return the symbols of a step that its runs, sessions, bars and lots refer to, by index."""
    used = np.zeros(len(step.symbols), np.bool_)
    for column in (*(run.trades.symbol for run in step.runs), step.changed, step.bars["symbol"]):
        used[column] = True
    used[list(step.lots)] = True
    return {index: step.symbols[index] for index in np.flatnonzero(used).tolist()}


def symbol_numbers(used: Mapping[int, str], known: Mapping[str, int]) -> NDArray[np.int64]:
    """Return the numbers of a step's symbols by index, 0 for those that it does not use."""
    numbers = np.zeros(max(used, default=-1) + 1, np.int64)
    numbers[list(used)] = [known[symbol] for symbol in used.values()]
    return numbers


def new_trades(
    step: Step, streams: Mapping[str, StoredStream], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[StoredStream]]:
    """Return what a step adds to the table of trades, and the streams that it moves.

    Parameters
    ----------
    step : Step
    streams : mapping of str to StoredStream
        Those of its runs; mutated: moved behind the runs.
    numbers : int64[n]
        Of its symbols.

    Returns
    -------
    trades : int64[7, n]
        The columns of the table, in order of the key, without trades before the positions of
        their streams.
    moved : list of StoredStream
        In order of their latest runs.

    Raises
    ------
    StoreGapError
        When frames before a run are missing.
    """
    moved: dict[str, StoredStream] = {}
    parts = []
    for run in step.runs:
        stream = streams[run.stream_id]
        begin = 0
        if not run.is_part:
            begin = int(np.searchsorted(run.sequence, _move(stream, run)))
            moved.pop(run.stream_id, None)
            moved[run.stream_id] = stream
        parts.append(_columns(run, begin, stream.number, numbers))
    if not parts:
        return np.empty((TRADE_COLUMNS, 0), np.int64), []
    trades = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return in_order(trades, KEY_COLUMNS), list(moved.values())


def put_market(
    step: Step,
    numbers: NDArray[np.int64],
    statements: Statements,
    put: Callable[[str, NDArray[np.int64]], object],
) -> None:
    """Write the sessions and bars of a step.

    Parameters
    ----------
    step : Step
    numbers : int64[n]
        Of its symbols.
    statements : Statements
    put : callable
        Executes an insert with int64[columns, n].
    """
    if len(step.changed):
        sessions = step.sessions.view(np.int64).reshape(len(step.changed), -1)
        put(statements.put_sessions, np.vstack([numbers[step.changed], sessions.T]))
    if len(step.bars):
        bars = step.bars.view(np.int64).reshape(len(step.bars), -1).T.copy()
        bars[0] = numbers[bars[0]]
        is_open = bars[2] == 1
        bars = np.delete(bars, 2, axis=0)
        for statement, chosen in (
            (statements.put_open_bars, is_open),
            (statements.put_bars, ~is_open),
        ):
            if chosen.any():
                put(statement, bars[:, chosen])


def replace_market(
    session: Any,
    step: Step,
    numbers: NDArray[np.int64],
    statements: Statements,
    put: Callable[[str, NDArray[np.int64]], object],
) -> int:
    """Write the sessions and bars of a step in place of all that its symbols have.

    Parameters are those of `put_market`; the session is within a transaction.

    Returns
    -------
    int
        How many sessions and bars were other ones before.
    """
    p = statements.dialect.parameter
    tables = ("sessions", "open_bars", "bars")

    def rows() -> set[tuple[Any, ...]]:
        return {
            (table, *row)
            for table in tables
            for number in numbers[step.changed].tolist()
            for row in session.rows(f"SELECT * FROM {table} WHERE symbol = {p}", number)
        }

    before = rows()
    for number in numbers[step.changed].tolist():
        for table in tables:
            session.execute(f"DELETE FROM {table} WHERE symbol = {p}", (number,))
    put_market(step, numbers, statements, put)
    after = rows()
    return max(len(before - after), len(after - before))


def is_ascending(keys: NDArray[np.int64]) -> bool:
    """Return whether keys, int64[k, n], ascend, none twice."""
    up = np.zeros(max(0, keys.shape[1] - 1), np.bool_)
    for column in keys[::-1]:
        before, after = column[:-1], column[1:]
        up = (after > before) | ((after == before) & up)
    return bool(up.all())


def in_order(trades: NDArray[np.int64], key_columns: int) -> NDArray[np.int64]:
    """Return trades, int64[k, n], in order of their first columns; of equal ones, as they were.

    The last two of these, stream and sequence, are mostly in order once the others are: to sort by
    those alone takes a tenth of the time.
    """
    *before, time, _, _ = trades[:key_columns]
    order = np.argsort(time, kind="stable")
    for column in before:
        of_these = column[order]
        if of_these.max(initial=0) <= np.iinfo(np.uint16).max:
            of_these = of_these.astype(np.uint16)
        order = order[np.argsort(of_these, kind="stable")]
    found = np.take(trades, order, axis=1)
    if is_ascending(found[:key_columns]):
        return found
    return np.take(trades, np.lexsort(trades[:key_columns][::-1]), axis=1)


def _move(stream: StoredStream, run: StreamRun) -> int:
    """Move a stream behind a run, and return its position before."""
    position = run.first_sequence if stream.position is None else stream.position
    if run.first_sequence > position:
        raise StoreGapError(
            f"stream {run.stream_id!r} continues at {position}, not at {run.first_sequence}"
        )
    stream.position = max(position, run.next_sequence)
    return position


def _columns(
    run: StreamRun, begin: int, stream: int, numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the columns of a run's trades from the one at `begin` on."""
    columns = np.empty((TRADE_COLUMNS, len(run) - begin), np.int64)
    trades = run.trades[begin:]
    columns[0] = numbers[trades.symbol]
    columns[1] = trades.ts_event
    columns[2] = stream
    columns[3] = run.sequence[begin:]
    columns[4] = trades.price
    columns[5] = trades.size
    columns[6] = trades.ts_recv
    return columns
