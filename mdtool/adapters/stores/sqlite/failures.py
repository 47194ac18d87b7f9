"""What SQLite's errors mean for a store."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from mdtool.adapters.stores.errors import (
    StoreError,
    StoreFormatError,
    StoreInterruptedError,
    StoreUnavailableError,
)

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another process",
    sqlite3.SQLITE_PROTOCOL: "is locked by another process",
    sqlite3.SQLITE_FULL: "is full, or its disk is",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_PERM: "may not be used by this user",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_NOMEM: "wants more memory than there is",
}
"""By primary result code (https://sqlite.org/rescode.html)."""
_DAMAGED: Final = {
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a copy",
    sqlite3.SQLITE_NOTADB: "is no SQLite file; name another file",
    sqlite3.SQLITE_ERROR: "has other tables than it should; restore it from a copy",
}


def store_error(error: Exception, address: str, path: Path) -> StoreError:
    """Return the store's error for what SQLite or the system raised, or a value that is none."""
    if isinstance(error, OSError):
        return StoreUnavailableError(f"{address}: {error.strerror or error}")
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    kind, meaning = _meaning(code & 0xFF, error, path)
    return kind(f"{address}: {meaning}")


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
        return f"this user may make no files in {folder}"
    return "cannot be opened"
