"""Care of a SQLite store: a copy of it while it is written, the copy put back, less space."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from mdtool.adapters.stores.errors import (
    StoreClaimedError,
    StoreFormatError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.port import Compacted
from mdtool.adapters.stores.sqlite import layers
from mdtool.adapters.stores.sqlite.connection import (
    BUSY_S,
    Connection,
    Location,
    Session,
    store_error,
)
from mdtool.adapters.stores.sqlite.schema import used_bytes
from mdtool.adapters.stores.sqlite.store import MarketClaim, insert_blocks, insert_rows
from mdtool.core.errors import InputError, OutputError

Progress = Callable[[int, int], None]
"""Called now and then with how many bytes are done, of how many."""

_STEP_PAGES: Final = 4_096
_BATCH_ROWS: Final = 8 * 2_048
"""Rows that become blocks in one transaction: 50 ms, for which other writers wait."""
_KEY: Final = "timestamp, stream, sequence"
_ROWS: Final = (
    f"SELECT symbol, {_KEY}, price, volume, ingest_timestamp FROM trade_rows "  # noqa: S608
    f"WHERE symbol = ? AND ({_KEY}) > (?, ?, ?) ORDER BY {_KEY} LIMIT ?"
)
_DELETE_ROWS: Final = (
    f"DELETE FROM trade_rows WHERE symbol = ? "  # noqa: S608
    f"AND ({_KEY}) >= (?, ?, ?) AND ({_KEY}) <= (?, ?, ?)"
)


class Care:
    """Copies, restores and compacts a store; methods block.

    Parameters
    ----------
    url : str
        `sqlite:///PATH`.

    Raises
    ------
    ConfigError
        When the URL names no file.
    """

    def __init__(self, url: str) -> None:
        self._location = Location.parse(url)

    @property
    def address(self) -> str:
        """The name of the store in messages."""
        return self._location.address

    def back_up(self, path: Path, progress: Progress) -> None:
        """Write what the store has at this moment into a new file, which is a store too.

        Writers go on meanwhile; what they write is in the write-ahead log until the copy is done.

        Parameters
        ----------
        path : Path
            It is complete when this returns; after an error it has to be removed.
        progress : callable

        Raises
        ------
        StoreError
            When the store cannot be read.
        OutputError
            When the file cannot be written.
        """

        def copy(session: Session) -> None:
            try:
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as target:
                    # Nothing of an incomplete copy is ever used.
                    target.execute("PRAGMA synchronous = OFF")
                    _copy(session, target, progress)
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF in _OF_TARGET:
                    reason = store_error(error, Location(path, "full"))
                    raise OutputError(str(reason).removeprefix("sqlite ")) from error
                raise

        with _opened(self._location, writes=False) as connection:
            connection.read(copy)

    def restore(self, path: Path, progress: Progress, *, replaces: bool = False) -> None:
        """Put a copy in place of the store, all of it or, after an error, nothing.

        Parameters
        ----------
        path : Path
            What `back_up` wrote. It is checked first.
        progress : callable
        replaces : bool
            Whether the store may have trades, which are lost.

        Raises
        ------
        StoreClaimedError
            When a service or another command has the store.
        InputError
            When the copy cannot be read, or is no store or damaged.
        OutputError
            When the store has trades and may not be replaced.
        StoreError
            When the store cannot be written.
        """
        source = _opened(Location(path.absolute(), "full"), writes=False)
        with source as copy, _opened(self._location, writes=True) as connection:
            try:
                copy.read(_check)
            except (StoreFormatError, StoreUnavailableError) as error:
                raise InputError(str(error).removeprefix("sqlite ")) from error
            with _claimed(self._location):
                if not replaces and connection.read(_has_trades):
                    raise OutputError(f"{self.address}: has trades; -f replaces them by the copy's")
                # The copy was read as a whole: what fails now is the store's.
                copy.read(
                    lambda source: connection.read(lambda target: _copy(source, target, progress))
                )

    def compact(self, progress: Progress) -> Compacted:
        """Join trades that came one by one into blocks, and give free space back.

        The first is done in short transactions beside other writers. The second rewrites the file,
        for which it needs as much space again, and is left out while a service has the store.

        Raises
        ------
        StoreError
            When the store cannot be read or written.
        """
        with _opened(self._location, writes=True) as connection:
            before, moved = connection.read(used_bytes), 0
            size = self._location.path.stat().st_size
            numbers = connection.read(lambda session: session.rows("SELECT number FROM symbols"))
            for place, (number,) in enumerate(numbers):
                moved += _join_rows(connection, number)
                progress(place + 1, len(numbers))
            after = connection.read(used_bytes)
            try:
                with _claimed(self._location):
                    connection.read(lambda session: session.execute("VACUUM"))
                    connection.read(lambda session: session.rows("PRAGMA wal_checkpoint(TRUNCATE)"))
            except StoreClaimedError:
                return Compacted(moved, before, after, given_back=None)
            given_back = max(0, size - self._location.path.stat().st_size)
            return Compacted(moved, before, connection.read(used_bytes), given_back)


_OF_TARGET: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
    }
)
"""What goes wrong where a file is written, and not where one is read."""


@contextlib.contextmanager
def _opened(location: Location, *, writes: bool) -> Iterator[Connection]:
    connection = Connection(location, BUSY_S, writes=writes)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def _claimed(location: Location) -> Iterator[None]:
    claim = MarketClaim(location)
    claim.hold()
    try:
        yield
    finally:
        claim.release()


def _check(session: Session) -> None:
    ((problem,),) = session.rows("PRAGMA quick_check(1)")
    if problem != "ok":
        damage = sqlite3.DatabaseError(problem)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _has_trades(session: Session) -> bool:
    return bool(session.rows("SELECT 1 FROM symbols WHERE trade_count > 0 LIMIT 1"))


def _copy(source: Session, target: sqlite3.Connection, progress: Progress) -> None:
    """Copy one state of a file, whatever is written to it meanwhile."""
    ((page_bytes,),) = source.rows("PRAGMA page_size")

    def show(status: int, remaining: int, total: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:  # else it would be tried forever
            raise StoreUnavailableError("the store is locked by another process")
        progress((total - remaining) * page_bytes, total * page_bytes)

    source.execute("BEGIN")
    source.rows("SELECT steps FROM store")  # from here on, the state is that of this moment
    try:
        source.backup(target, pages=_STEP_PAGES, progress=show)
    finally:
        source.execute("COMMIT")


def _join_rows(connection: Connection, symbol: int) -> int:
    """Turn the rows of a symbol into blocks; return how many."""
    after, moved = (-(2**63), 0, 0), 0
    while True:
        with connection.writing() as session:
            trades = session.table(7, _ROWS, symbol, *after, _BATCH_ROWS)
            if trades.shape[1] < layers.MIN_TRADES:
                return moved
            first, last = (tuple(trades[1:4, place].tolist()) for place in (0, -1))
            session.execute(_DELETE_ROWS, (symbol, *first, *last))
            rest = insert_blocks(session, symbol, trades)
            if rest:
                insert_rows(session, np.concatenate(rest, axis=1).T)
            moved += trades.shape[1] - sum(part.shape[1] for part in rest)
            after = last
