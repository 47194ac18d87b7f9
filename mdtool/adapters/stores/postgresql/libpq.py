"""What libpq provides and psycopg does not: whether options are valid, and codes of errors."""

from __future__ import annotations

import ctypes
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from mdtool.core.errors import ConfigError

_NOWHERE: Final = "/mdtool-nowhere"
"""A folder of sockets that does not exist: an attempt to connect fails at once."""
_PLACE: Final = frozenset({"host", "hostaddr", "port", "gssencmode"})
"""Options of a place, and what a local socket does not support."""
_INTEGERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_GSS_MODES: Final = ("disable", "prefer", "require")
_MAX_PORT: Final = (1 << 16) - 1
_DEFAULT_VERBOSITY, _VERBOSE = 1, 2
_CODE: Final = re.compile(r":  ([0-9A-Z]{5}): ")
"""Where a verbose message has its SQLSTATE, in any language."""
_NOT_AUTHENTICATED: Final = "28P01"
_WRONG_OPTION: Final = ("22", "42")
_FORBIDDEN: Final = "42501"


def check_names(names: Iterable[str]) -> None:
    """Check the names of options of a URL.

    Raises
    ------
    ConfigError
        When libpq has no such option.
    """
    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    for name in names:
        if name.isidentifier() and name not in known:  # others may be part of a password
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise _invalid(f"no option {name!r}{hint}")


def check_options(given: Mapping[str, Any]) -> None:
    """Check the options of a connection, which libpq otherwise does when it connects.

    Raises
    ------
    ConfigError
        When one of them is not valid.
    """
    for port in str(given.get("port") or "").split(","):
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
            raise _invalid(f"port {port!r} is not a port")
    for name in _INTEGERS:
        value = str(given.get(name) or "0")
        if not re.fullmatch(r"\s*[+-]?\d{1,9}\s*", value, re.ASCII):
            raise _invalid(f"{name} expects a whole number, not {value!r}")
    mode = str(given.get("gssencmode") or _GSS_MODES[0])
    if mode not in _GSS_MODES:
        raise _invalid(f"gssencmode {mode!r}: choose from {', '.join(_GSS_MODES)}")
    others = {name: value for name, value in given.items() if name not in _PLACE}
    reason = _failure(others)
    if reason != _failure({}):
        raise _invalid(reason)


def _failure(options: Mapping[str, Any]) -> str:
    """Return why libpq does not connect to nowhere with some options."""
    pgconn = pq.PGconn.connect_start(make_conninfo("", **options, host=_NOWHERE).encode())
    try:
        return pgconn.get_error_message().splitlines()[0]
    finally:
        pgconn.finish()


def _invalid(reason: str) -> ConfigError:
    return ConfigError(f"the URL of the store has an option that is not valid: {reason}")


def set_verbose(pgconn: PGconn, is_verbose: bool) -> None:
    """Have messages of errors contain their SQLSTATE, which errors while connecting lack."""
    library, pointer = _library(), getattr(pgconn, "pgconn_ptr", None)
    if library is not None and pointer is not None:
        level = _VERBOSE if is_verbose else _DEFAULT_VERBOSITY
        library.PQsetErrorVerbosity(ctypes.c_void_p(pointer), level)


@functools.cache
def _library() -> Any:
    """Return the libpq that psycopg has loaded, None where it is not found."""
    try:
        with Path("/proc/self/maps").open() as maps:
            paths = [line.split(maxsplit=5)[-1].strip() for line in maps if "libpq" in line]
        return ctypes.CDLL(paths[0] if paths else pq.misc.find_libpq_full_path())
    except OSError:
        return None


def connection_error(pgconn: PGconn) -> psycopg.OperationalError | ConfigError:
    """Return why a connection failed, as an error with its SQLSTATE, if the server sent one."""
    message = pgconn.get_error_message().splitlines()[0]
    found = _CODE.search(message)
    code = found.group(1) if found else _NOT_AUTHENTICATED if pgconn.needs_password else None
    text = _CODE.sub(":  ", message, count=1)
    if code is not None and code.startswith(_WRONG_OPTION) and code != _FORBIDDEN:
        return _invalid(text)
    error = psycopg.OperationalError(f"connection failed: {text}")
    error.sqlstate = code
    return error
