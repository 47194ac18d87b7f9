"""Puts steps into the tables of a store in PostgreSQL, within a transaction that the caller holds.

Whoever writes locks streams before symbols, and each kind in one order, so that writers wait for
each other at most, and never in a ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import StoreGapError
from mdtool.adapters.stores.port import Step, StreamRun
from mdtool.adapters.stores.postgresql.columns import (
    COPY_HEADER,
    COPY_TRAILER,
    copied_rows,
    parts,
)
from mdtool.adapters.stores.postgresql.link import Connection

_COPY_ROWS: Final = 50_000
"""In one statement, so that its time-out is for so many."""
_KEY_COLUMNS: Final = 4
_COPY: Final = "COPY trades FROM STDIN (FORMAT binary)"
_STAGE: Final = "CREATE TEMPORARY TABLE staged (LIKE trades) ON COMMIT DROP"
_COPY_STAGED: Final = "COPY staged FROM STDIN (FORMAT binary)"
_UNSTAGE: Final = """
WITH news AS (
    INSERT INTO trades SELECT * FROM staged
    ORDER BY symbol, exchange_timestamp, stream, sequence
    ON CONFLICT DO NOTHING RETURNING symbol, exchange_timestamp
)
SELECT symbol, count(*), max(exchange_timestamp) FROM news GROUP BY symbol
"""
_NEW_STREAMS: Final = """
INSERT INTO streams (stream_id)
SELECT stream_id FROM unnest(%s::text[]) AS wanted (stream_id) ORDER BY stream_id COLLATE "C"
ON CONFLICT DO NOTHING
"""
_STREAMS: Final = """
SELECT stream_id, number, next_sequence FROM streams WHERE stream_id = ANY (%s)
ORDER BY stream_id FOR NO KEY UPDATE
"""
_POSITIONS: Final = """
UPDATE streams SET next_sequence = moved.position, heard = moved.heard
FROM (
    SELECT number, position, nextval('heard') AS heard
    FROM unnest(%s, %s) WITH ORDINALITY AS moved (number, position, place) ORDER BY place
) AS moved
WHERE streams.number = moved.number
"""
_NEW_SYMBOLS: Final = """
INSERT INTO symbols (symbol)
SELECT symbol FROM unnest(%s::text[]) AS wanted (symbol) ORDER BY symbol COLLATE "C"
ON CONFLICT DO NOTHING
"""
_SYMBOLS: Final = "SELECT symbol, number FROM symbols WHERE symbol = ANY (%s)"
_LOCK_TOTALS: Final = """
SELECT FROM symbols WHERE number = ANY (%s) ORDER BY number FOR NO KEY UPDATE
"""
_TOTALS: Final = """
UPDATE symbols SET
    trade_count = trade_count + counted,
    last_trade_at = CASE trade_count WHEN 0 THEN latest ELSE greatest(last_trade_at, latest) END
FROM unnest(%s, %s, %s) AS news (number, counted, latest)
WHERE symbols.number = news.number
"""
_SESSIONS: Final = """
INSERT INTO sessions SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (symbol) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, count = excluded.count, "timestamp" = excluded."timestamp",
    ingest_timestamp = excluded.ingest_timestamp
WHERE excluded.count >= sessions.count
"""
_OPEN_BARS: Final = """
INSERT INTO open_bars SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (symbol, interval_ns) DO UPDATE SET
    start_ns = excluded.start_ns,
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, count = excluded.count,
    first_ns = excluded.first_ns, last_ns = excluded.last_ns
WHERE (excluded.start_ns, excluded.count) >= (open_bars.start_ns, open_bars.count)
"""
_CLOSED_BARS: Final = """
INSERT INTO bars SELECT * FROM unnest(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (symbol, interval_ns, start_ns) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, count = excluded.count,
    first_ns = excluded.first_ns, last_ns = excluded.last_ns
WHERE excluded.count >= bars.count
"""
_COUNTS: Final = """
INSERT INTO counts SELECT * FROM unnest(%s::text[], %s::bigint[])
ON CONFLICT (name) DO UPDATE SET total = greatest(counts.total, excluded.total)
"""


@dataclass(slots=True)
class _Stream:
    number: int
    position: int | None
    """None while nothing is known of it but its number."""


def symbol_numbers(connection: Connection, step: Step, known: dict[str, int]) -> NDArray[np.int64]:
    """Return the numbers of a step's symbols by their indices, and note in `known` what is new.

    It is no part of the transaction: a symbol without trades shows nowhere.
    """
    columns = [run.symbol for run in step.runs] + [step.changed, step.bars["symbol"]]
    used = np.zeros(len(step.symbols), np.bool_)
    for column in columns:
        used[column] = True
    wanted = {index: step.symbols[index] for index in np.flatnonzero(used).tolist()}
    missing = [symbol for symbol in wanted.values() if symbol not in known]
    if missing:
        connection.execute(_NEW_SYMBOLS, (missing,))
        known.update(connection.execute(_SYMBOLS, (missing,)).fetchall())
    numbers = np.zeros(len(step.symbols), np.int64)
    numbers[list(wanted)] = [known[symbol] for symbol in wanted.values()]
    return numbers


def write_step(
    connection: Connection, step: Step, numbers: NDArray[np.int64], *, is_staged: bool
) -> None:
    """Write what is new in a step.

    Parameters
    ----------
    connection : Connection
        In a transaction of its own.
    step : Step
    numbers : int64[n]
        Of the step's symbols, by their indices.
    is_staged : bool
        Whether trades may be there already, though the positions of their streams do not say so.

    Raises
    ------
    StoreGapError
        When frames before a run are missing.
    psycopg.errors.UniqueViolation
        When trades that are new by position are there, and `is_staged` is false.
    psycopg.Error
        When it cannot be written.
    """
    streams = _locked_streams(connection, step)
    moved: dict[str, _Stream] = {}
    pieces = [_news(streams, moved, run) for run in step.runs]
    news = np.concatenate(pieces, axis=1) if pieces else np.empty((7, 0), np.int64)
    if news.shape[1]:
        news[0] = numbers[news[0]]
        news = news[:, np.lexsort(news[:_KEY_COLUMNS][::-1])]
        totals = _stage(connection, news) if is_staged else _copy(connection, news)
        if len(totals[0]):
            connection.execute(_LOCK_TOTALS, (totals[0],))
            connection.execute(_TOTALS, totals)
    if moved:
        rows = [(stream.number, stream.position or 0) for stream in moved.values()]
        connection.execute(_POSITIONS, tuple(np.array(rows, np.int64).T))
    if len(step.changed):
        sessions = step.sessions.view(np.int64).reshape(len(step.changed), -1)
        connection.execute(_SESSIONS, (numbers[step.changed], *sessions.T))
    if len(step.bars):
        _write_bars(connection, numbers, step.bars)
    if step.counts:
        connection.execute(_COUNTS, (list(step.counts), list(step.counts.values())))


def _locked_streams(connection: Connection, step: Step) -> dict[str, _Stream]:
    """Return the streams of a step's runs, which nobody else moves until the transaction ends."""
    names = sorted({run.stream_id for run in step.runs})
    if not names:
        return {}
    rows = connection.execute(_STREAMS, (names,)).fetchall()
    if len(rows) < len(names):
        connection.execute(_NEW_STREAMS, (names,))
        rows = connection.execute(_STREAMS, (names,)).fetchall()
    return {stream_id: _Stream(number, position) for stream_id, number, position in rows}


def _news(
    streams: dict[str, _Stream], moved: dict[str, _Stream], run: StreamRun
) -> NDArray[np.int64]:
    """Return the new trades of a run as columns of the table, with the step's indices of symbols.

    The stream moves, and is the last one in `moved`.
    """
    stream = streams[run.stream_id]
    begin = 0
    if not run.is_part:
        if stream.position is None:
            stream.position = run.first_sequence
        if run.first_sequence > stream.position:
            raise StoreGapError(
                f"stream {run.stream_id!r} goes on at {stream.position}, "
                f"not at {run.first_sequence}"
            )
        begin = int(np.searchsorted(run.sequence, stream.position))
        stream.position = max(stream.position, run.next_sequence)
        moved.pop(run.stream_id, None)
        moved[run.stream_id] = stream
    columns = (
        run.symbol,
        run.exchange_timestamp,
        np.full(len(run), stream.number),
        run.sequence,
        run.price,
        run.volume,
        run.ingest_timestamp,
    )
    return np.array([column[begin:] for column in columns], np.int64)


def _copy(connection: Connection, news: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Insert trades, in order of their keys; return their symbols, how many, and the latest."""
    _copy_to(connection, _COPY, news)
    symbol, first, count = np.unique(news[0], return_index=True, return_counts=True)
    return symbol, count, news[1, first + count - 1]


def _stage(connection: Connection, news: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Do as `_copy`, but leave out what is there already."""
    connection.execute(_STAGE)
    _copy_to(connection, _COPY_STAGED, news)
    rows = connection.execute(_UNSTAGE).fetchall()
    return tuple(np.array(rows, np.int64).reshape(-1, 3).T)


def _copy_to(connection: Connection, statement: str, news: NDArray[np.int64]) -> None:
    for part in parts(news.shape[1], _COPY_ROWS):
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(COPY_HEADER)
            copy.write(copied_rows(news[:, part]))
            copy.write(COPY_TRAILER)


def _write_bars(connection: Connection, numbers: NDArray[np.int64], bars: NDArray[np.void]) -> None:
    columns = bars.view(np.int64).reshape(len(bars), -1).T.copy()
    columns[0] = numbers[columns[0]]
    is_open = columns[2] == 1
    columns = np.delete(columns, 2, axis=0)
    for statement, chosen in ((_OPEN_BARS, is_open), (_CLOSED_BARS, ~is_open)):
        if chosen.any():
            connection.execute(statement, tuple(columns[:, chosen]))
