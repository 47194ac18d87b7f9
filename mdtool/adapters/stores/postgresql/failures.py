"""What errors of PostgreSQL mean to those who use a store."""

from __future__ import annotations

from typing import Final

import psycopg

from mdtool.adapters.stores.errors import (
    StoreError,
    StoreFormatError,
    StoreRefusedError,
    StoreUnavailableError,
)

_UNAVAILABLE_CLASSES: Final = (
    "08",  # connection
    "25",  # read-only transaction, among others
    "40",  # deadlock, serialization
    "53",  # disk full, out of memory, too many connections
    "55",  # lock not available, server not in the state for it
    "57",  # cancelled, by a time-out too; shut down, crashed, starting
    "58",  # input and output
)
_OTHER_TABLES: Final = (StoreFormatError, "; this is no store of mdtool")
_DAMAGED: Final = (StoreFormatError, "; what is stored is damaged, restore it from a copy")
_BY_CODE: Final[dict[str, tuple[type[StoreError], str]]] = {
    "28000": (StoreRefusedError, ""),
    "28P01": (StoreRefusedError, ""),
    "3D000": (StoreRefusedError, ""),
    "42501": (StoreRefusedError, ""),
    "3F000": _OTHER_TABLES,
    "42P01": _OTHER_TABLES,
    "42703": _OTHER_TABLES,
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
_REFUSALS: Final = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied for database",
)
"""A connection that fails has no code but only a text, which is the server's."""


def store_error(error: psycopg.Error, address: str) -> StoreError:
    """Return the store's error for what PostgreSQL raised."""
    text = f"{address}: {_first_line(error)}"
    code = error.sqlstate
    if code is None:
        return _kind_without_code(error, text)(text)
    if code.startswith(_UNAVAILABLE_CLASSES):
        return StoreUnavailableError(text)
    kind, advice = _BY_CODE.get(code, (StoreError, f" ({code})"))
    return kind(text + advice)


def _kind_without_code(error: psycopg.Error, text: str) -> type[StoreError]:
    """Return what it means that a connection failed, or that a value cannot be sent."""
    if any(refusal in text for refusal in _REFUSALS):
        return StoreRefusedError
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreUnavailableError
    return StoreError


def _first_line(error: psycopg.Error) -> str:
    """Return what happened, without the statement and without what libpq says of each try."""
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines()]
    return next(filter(None, lines), type(error).__name__)
