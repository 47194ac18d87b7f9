"""A connection to a SQLite file that notices when the file at its path is another one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from mdtool.adapters.stores.errors import StoreError, StoreUnavailableError
from mdtool.adapters.stores.sqlite import schema
from mdtool.adapters.stores.sqlite.failures import store_error
from mdtool.adapters.stores.sqlite.location import Location

BUSY_S: Final = 5.0
"""How long to wait for another process that holds the file."""
_CACHE_KIB: Final = 16 * 1024
_CHECKPOINT_PAGES: Final = 4_000
"""Of 4 KiB, after which the write-ahead log is copied into the file."""
_LOG_BYTES: Final = 64 << 20
"""What a log that had to grow further is cut back to."""

_File = tuple[int, int]
"""Device and inode."""


class Link:
    """Opens a store's file when it is used, and again after a failure or when it was replaced.

    Parameters
    ----------
    location : Location
    busy_s : float
        How long to wait for a lock.
    writes : bool
        Whether it is written through; a file that is not there is then made at the first use, but
        never after that.
    """

    def __init__(self, location: Location, busy_s: float, *, writes: bool) -> None:
        self.location = location
        self.generation = 0
        """How often the file was opened: what was learnt before may not hold."""
        self._busy_s = busy_s
        self._writes = writes
        self._connection: sqlite3.Connection | None = None
        self._file: _File | None = None
        self._log: _File | None = None
        self._id: bytes | None = None
        self._steps = 0
        self._closing = threading.Lock()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hand out the connection; what goes wrong in the block is raised as the store's error."""
        with self._guarded():
            yield self._usable()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hand out the connection within a transaction, which holds when the block has ended.

        Raises
        ------
        StoreUnavailableError
            Also when the file is not, or no longer, where it was: what was written may be lost.
        StoreError
            Also what is raised in the block; then nothing was written.
        """
        with self._guarded():
            connection = self._usable()
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("UPDATE store SET steps = steps + 1")
            identity = schema.identity(connection)
            self._check_in_place()
            connection.execute("COMMIT")
            self._check_in_place()
            _, self._steps = identity

    def interrupt(self) -> None:
        """End what another thread does with the connection at this moment."""
        with self._closing:
            if self._connection is not None:
                self._connection.interrupt()

    def close(self) -> None:
        """Close the file, which takes back a transaction that was not committed."""
        with self._closing:
            connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            if not self._is_in_place():
                # SQLite would apply the log to whatever file is at the path next.
                connection.rollback()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error | OSError | OverflowError | UnicodeError):
                location = self.location
                raise store_error(error, location.address, location.path) from error
            raise

    def _usable(self) -> sqlite3.Connection:
        """Return a connection to the file that is at the path now."""
        if self._connection is not None and self._file != _file(self._name):
            self.close()
        if self._connection is None:
            try:
                self._connection = self._opened()
                self._file, self._log = _file(self._name), _file(self._log_name)
                self.generation += 1
                self._check_same(self._connection)
            except StoreError as error:
                raise type(error)(f"{self.location.address}: {error}") from error
        return self._connection

    @property
    def _name(self) -> str:
        return str(self.location.path)

    @property
    def _log_name(self) -> str:
        return os.path.realpath(self._name) + "-wal"  # where SQLite has it

    def _opened(self) -> sqlite3.Connection:
        may_make = self._writes and self._id is None
        if not may_make and _file(self._name) is None:
            raise StoreUnavailableError(self._whereabouts())
        self._check_log()
        connection = sqlite3.connect(
            f"file:{quote(self._name)}?mode={'rwc' if may_make else 'rw'}",
            uri=True,
            timeout=self._busy_s,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time; `interrupt` comes from another
        )
        try:
            connection.execute(f"PRAGMA synchronous = {self.location.synchronous}")
            connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            if may_make:
                schema.create(connection, self._busy_s)
            else:
                schema.check(connection)
            if not self._writes:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_same(self, connection: sqlite3.Connection) -> None:
        """See that a file that was opened again is the store that was written before.

        Raises
        ------
        StoreError
            When it is not, so that what was acknowledged is not in it; the message is without the
            file's name.
        """
        id_, steps = schema.identity(connection)
        if self._writes and self._id is not None:
            if id_ != self._id:
                raise StoreError("another store was put in its place")
            if steps < self._steps:
                raise StoreError("an older copy was put in its place")
        self._id, self._steps = id_, steps

    def _check_log(self) -> None:
        """See that the log beside a file is not that of one that was there before.

        Raises
        ------
        StoreUnavailableError
            When it is, and others still hold it; the message is without the file's name.
        """
        log = self._log_name
        if self._file not in {None, _file(self._name)} and self._log == _file(log):
            with contextlib.suppress(FileNotFoundError):
                if Path(log).stat().st_size:
                    raise StoreUnavailableError(f"was replaced, and {log} is of the file before")

    def _check_in_place(self) -> None:
        """See that the files that are written are those that others would find."""
        if not self._is_in_place():
            raise StoreUnavailableError(f"{self.location.address}: {self._whereabouts()}")

    def _is_in_place(self) -> bool:
        return self._file == _file(self._name) and self._log == _file(self._log_name)

    def _whereabouts(self) -> str:
        """Return why the file is not the one that was opened."""
        path = self.location.path
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if not path.exists():
            return "there is no such file"
        return "the file was taken away or replaced while it was in use"


def _file(name: str) -> _File | None:
    """Return what tells a file from others, None where there is none."""
    try:
        status = os.stat(name)  # noqa: PTH116 - a third of the time of Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
