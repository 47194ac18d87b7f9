"""A connection to a SQLite store that notices when the file at its path is another one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qsl, quote

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.errors import (
    StoreError,
    StoreFormatError,
    StoreInterruptedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.sqlite import schema
from mdtool.core.errors import ConfigError

BUSY_S: Final = 5.0
"""How long to wait for another process that locks the file."""
_CACHE_KIB: Final = 16 * 1024
_CHECKPOINT_PAGES: Final = 4_000
"""Of 4 KiB, after which the write-ahead log is copied into the file."""
_LOG_BYTES: Final = 64 << 20
"""The size to which a log that had to grow further is truncated."""

_PREFIX: Final = "sqlite:///"
_FORM: Final = f"{_PREFIX}PATH[?synchronous=full|normal]"
_SYNCHRONOUS: Final = ("full", "normal")

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another process",
    sqlite3.SQLITE_PROTOCOL: "is locked by another process",
    sqlite3.SQLITE_FULL: "is full, or its disk is",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_NOMEM: "needs more memory than is available",
}
"""By primary result code (https://sqlite.org/rescode.html)."""
_DAMAGED: Final = {
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a copy",
    sqlite3.SQLITE_NOTADB: "is not a SQLite file; name another file",
    sqlite3.SQLITE_ERROR: "has other tables than it should; restore it from a copy",
}

T = TypeVar("T")

_File = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class Location:
    """A file, and how durable a write is.

    Attributes
    ----------
    path : Path
        Absolute.
    synchronous : str
        `full`: what was written survives a loss of power. `normal`: it survives the end of any
        process, but a loss of power may take the latest writes.
    """

    path: Path
    synchronous: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the location that a URL names.

        Parameters
        ----------
        url : str
            `sqlite:///PATH`, so that an absolute path comes after four slashes; then optionally
            `?synchronous=normal`.

        Raises
        ------
        ConfigError
            When it is not valid.
        """
        place, _, query = url.partition("?")
        name = place.removeprefix(_PREFIX)
        if not place.startswith(_PREFIX) or not name:
            raise ConfigError(f"{url}: names no SQLite file; give {_FORM}")
        if name == ":memory:":
            raise ConfigError(f"{url}: a store in memory stores nothing; give {_FORM}")
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", _SYNCHRONOUS[0])
        if options or synchronous not in _SYNCHRONOUS:
            raise ConfigError(f"{url}: {query} is not an option of a SQLite store; give {_FORM}")
        return cls(Path(os.path.abspath(name)), synchronous)  # noqa: PTH100 - takes `..` out

    @property
    def address(self) -> str:
        """The name of the store in messages."""
        return f"sqlite {self.path}"


class Session(sqlite3.Connection):
    """An open file."""

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects."""
        return self.execute(statement, values).fetchall()

    def table(self, columns: int, statement: str, *values: Any) -> NDArray[np.int64]:
        """Return many rows of integers as int64[columns, n]."""
        try:
            numbers = np.fromiter(chain.from_iterable(self.execute(statement, values)), np.int64)
        except (TypeError, ValueError) as error:
            damage = sqlite3.DatabaseError("a value is not an integer")
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage from error
        return np.ascontiguousarray(numbers.reshape(-1, columns).T)


class Connection:
    """Opens a store's file when it is used, and again after a failure or when it was replaced.

    Parameters
    ----------
    location : Location
    busy_s : float
        How long to wait for a lock.
    writes : bool
        Whether it writes; a missing file is then created at the first use, but never after that.

    Attributes
    ----------
    generation : int
        How often the file was opened: numbers that were read before may not be valid.
    """

    def __init__(self, location: Location, busy_s: float, *, writes: bool) -> None:
        self.location = location
        self.generation = 0
        self._busy_s = busy_s
        self._writes = writes
        self._session: Session | None = None
        self._file: _File | None = None
        self._log: _File | None = None
        self._id: bytes | None = None
        self._steps = 0
        self._closing = threading.Lock()

    @property
    def address(self) -> str:
        """The name of the store in messages: `sqlite PATH`."""
        return self.location.address

    def read(self, work: Callable[[Session], T], *, takes_long: bool = False) -> T:  # noqa: ARG002 - no read has a time limit
        """Return what `work` reads; errors of SQLite are raised as the store's."""
        with self._guarded():
            return work(self._usable())

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield the session within a transaction, which is committed when the block has ended.

        Raises
        ------
        StoreUnavailableError
            Also when the file is not, or no longer, at its path: what was written may be lost.
        StoreError
            Also what is raised in the block; then nothing was written.
        """
        with self._guarded():
            session = self._usable()
            session.execute("BEGIN IMMEDIATE")
            yield session
            session.execute("UPDATE store SET steps = steps + 1")
            identity = schema.identity(session)
            self._check_in_place()
            session.execute("COMMIT")
            self._check_in_place()
            _, self._steps = identity

    def interrupt(self) -> None:
        """End what another thread does with the session at this moment."""
        with self._closing:
            if self._session is not None:
                self._session.interrupt()

    def close(self) -> None:
        """Close the file, which rolls back a transaction that was not committed."""
        with self._closing:
            session, self._session = self._session, None
        if session is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            if not self._is_in_place():
                # SQLite would apply the log to whatever file is at the path next.
                session.rollback()
                session.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(sqlite3.Error):
            session.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error | OSError | OverflowError | UnicodeError):
                raise store_error(error, self.location) from error
            raise

    def _usable(self) -> Session:
        """Return a session of the file that is at the path now."""
        if self._session is not None and self._file != _file(self._name):
            self.close()
        if self._session is None:
            try:
                self._session = self._opened()
                self._file, self._log = _file(self._name), _file(self._log_name)
                self.generation += 1
                self._check_same(self._session)
            except StoreError as error:
                raise type(error)(f"{self.address}: {error}") from error
        return self._session

    @property
    def _name(self) -> str:
        return str(self.location.path)

    @property
    def _log_name(self) -> str:
        return os.path.realpath(self._name) + "-wal"  # where SQLite has it

    def _opened(self) -> Session:
        may_create = self._writes and self._id is None
        if not may_create and _file(self._name) is None:
            raise StoreUnavailableError(self._whereabouts())
        self._check_log()
        session = sqlite3.connect(
            f"file:{quote(self._name)}?mode={'rwc' if may_create else 'rw'}",
            uri=True,
            timeout=self._busy_s,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time; `interrupt` comes from another
            factory=Session,
        )
        try:
            session.execute(f"PRAGMA synchronous = {self.location.synchronous}")
            session.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
            session.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            session.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            if may_create:
                schema.create(session, self._busy_s)
            else:
                schema.check(session)
            if self._writes:
                schema.migrate(session)
            else:
                session.execute("PRAGMA query_only = ON")
        except BaseException:
            session.close()
            raise
        return session

    def _check_same(self, session: Session) -> None:
        """Check that a file that was opened again is the store that was written before.

        Raises
        ------
        StoreError
            When it is not, so that what was acknowledged is not in it; the message is without the
            file's name.
        """
        id_, steps = schema.identity(session)
        if self._writes and self._id is not None:
            if id_ != self._id:
                raise StoreError("another store was put in its place")
            if steps < self._steps:
                raise StoreError("an older copy was put in its place")
        self._id, self._steps = id_, steps

    def _check_log(self) -> None:
        """Check that the log beside a file is not the log of a file before it.

        Raises
        ------
        StoreUnavailableError
            When it is, and others still use it; the message is without the file's name.
        """
        log = self._log_name
        if self._file not in {None, _file(self._name)} and self._log == _file(log):
            with contextlib.suppress(FileNotFoundError):
                if Path(log).stat().st_size:
                    raise StoreUnavailableError(
                        f"was replaced, and {log} belongs to the file before"
                    )

    def _check_in_place(self) -> None:
        """Check that the files that are written are those at the path."""
        if not self._is_in_place():
            raise StoreUnavailableError(f"{self.address}: {self._whereabouts()}")

    def _is_in_place(self) -> bool:
        return self._file == _file(self._name) and self._log == _file(self._log_name)

    def _whereabouts(self) -> str:
        """Return why the file is not the one that was opened."""
        path = self.location.path
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
        if not path.exists():
            return "there is no such file"
        return "the file was moved or replaced while it was in use"


def _file(name: str) -> _File | None:
    """Return the identity of a file, None where there is none."""
    try:
        status = os.stat(name)  # noqa: PTH116 - a third of the time of Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def store_error(error: Exception, location: Location) -> StoreError:
    """Return the store's error for what SQLite or the system raised, or a value that is invalid."""
    if isinstance(error, OSError):
        return StoreUnavailableError(f"{location.address}: {error.strerror or error}")
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    kind, meaning = _meaning(code & 0xFF, error, location.path)
    return kind(f"{location.address}: {meaning}")


def _meaning(code: int, error: Exception, path: Path) -> tuple[type[StoreError], str]:
    if code == sqlite3.SQLITE_CANTOPEN and path.is_dir():
        return StoreFormatError, "is a folder; name a file"
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreUnavailableError, f"{_obstacle(path.parent)} ({error})"
    if code in _UNAVAILABLE:
        return StoreUnavailableError, f"{_UNAVAILABLE[code]} ({error})"
    if code in _DAMAGED:
        return StoreFormatError, f"{_DAMAGED[code]} ({error})"
    if code == sqlite3.SQLITE_INTERRUPT:
        return StoreInterruptedError, str(error)
    return StoreError, str(error)


def _obstacle(folder: Path) -> str:
    """Return why a file in a folder cannot be opened."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return f"no permission to create files in {folder}"
    return "cannot be opened"
