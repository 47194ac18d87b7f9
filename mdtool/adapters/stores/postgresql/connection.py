"""A connection to PostgreSQL that opens when it is used, reopens after a loss, and never hangs."""

from __future__ import annotations

import contextlib
import hashlib
import math
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.abc import PQGen, PQGenConn
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus
from psycopg.waiting import Ready, Wait

from mdtool.adapters.stores.errors import (
    StoreError,
    StoreFormatError,
    StoreInterruptedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.postgresql.binary import ColumnDumper, read_rows
from mdtool.adapters.stores.postgresql.libpq import (
    check_names,
    check_options,
    connection_error,
    set_verbose,
)
from mdtool.core.addresses import format_address
from mdtool.core.errors import ConfigError

SCHEMA: Final = "mdtool"
_FORM: Final = "postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTIONS]"
_PORT: Final = "5432"
_DEFAULTS: Final[dict[str, str | int | None]] = {
    "connect_timeout": 5,
    "fallback_application_name": "mdtool",
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A server whose machine is gone is given up before long; a URL may set other values."""

ANSWER_S: Final = 30.0
"""How long a server may be silent, which is longer than its statements may take."""
_STATEMENT_TIMEOUT: Final = "20s"
_SESSION: Final = {
    "statement_timeout": _STATEMENT_TIMEOUT,
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "20s",
    "idle_session_timeout": "0",
    "client_connection_check_interval": "1s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "default_transaction_isolation": "read committed",
    # A page is read in the order of the key, whatever the planner assumes of a new table.
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "jit": "off",  # compiling the plan of a page takes longer than the page
}
"""Set where the server knows them: no wait is endless, and clients that are gone hold no locks."""
_DURABLE: Final = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
"""
_LOOK_S: Final = 0.05
_CANCEL_S: Final = 1.0

_EVENTS: Final = {
    Wait.R: select.POLLIN,
    Wait.W: select.POLLOUT,
    Wait.RW: select.POLLIN | select.POLLOUT,
}

_UNAVAILABLE_CLASSES: Final = (
    "08",  # connection
    "25",  # read-only transaction, among others
    "40",  # deadlock, serialization
    "53",  # disk full, out of memory, too many connections
    "55",  # lock not available, server not in the state for it
    "57",  # cancelled, by a time-out too; shut down, crashed, starting
    "58",  # input and output
)
_OTHER_TABLES: Final = (StoreFormatError, "; these are not the tables of a store of mdtool")
_DAMAGED: Final = (StoreFormatError, "; the store is damaged, restore it from a copy")
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
_POOLER_PROBES: Final = 20
"""How often two connections are compared; a pool gives each the server that is free."""
_POOLER_S: Final = 3.0
"""How long a second connection waits for one that is free in the pool."""

T = TypeVar("T")
RV = TypeVar("RV")


@dataclass(frozen=True, slots=True)
class Location:
    """A schema of a database of a server.

    Attributes
    ----------
    parameters : str
        libpq's, including the password.
    schema : str
        The schema of the tables.
    address : str
        The name of the store in messages, without secrets.
    """

    parameters: str
    schema: str
    address: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the location that a URL names.

        Raises
        ------
        ConfigError
            When it is not valid; the message is without the URL, which may contain a password.
        """
        base, _, query = url.partition("?")
        options = parse_qsl(query, keep_blank_values=True)
        schema = dict(options).get("schema", SCHEMA)
        rest = urlencode([option for option in options if option[0] != "schema"], quote_via=quote)
        try:
            urlsplit(base)
            check_names(name for name, _ in options if name != "schema")
            given = conninfo_to_dict(f"{base}?{rest}" if rest else base)
        except (ValueError, psycopg.Error):
            # Not even as a cause: libpq repeats the URL.
            raise ConfigError(
                f"the URL of the store is not a valid PostgreSQL URL; give {_FORM}, with special "
                "characters of a password escaped, such as @ as %40"
            ) from None
        host = str(given.get("host") or "")
        if "@" in host:
            raise ConfigError("the URL of the store has two @; write that of a password as %40")
        if not schema or "\0" in schema:
            raise ConfigError("the URL of the store names no schema after schema=; give its name")
        check_options(given)
        return cls(make_conninfo("", **(_DEFAULTS | given)), schema, _address(given, schema))

    @property
    def lock_key(self) -> int:
        """The number, an int64, of the advisory lock on the schema's market."""
        digest = hashlib.sha256(f"mdtool market {self.schema}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


class Session(psycopg.Connection[tuple[Any, ...]]):
    """An open connection whose waits end."""

    _is_interrupted: Callable[[], bool] = staticmethod(lambda: False)
    address = ""
    answer_s = ANSWER_S

    @classmethod
    def _connect_gen(cls, conninfo: str = "", **_options: Any) -> PQGenConn[Self]:
        """Connect as psycopg does, but so that a rejection has its SQLSTATE."""
        pgconn = PGconn.connect_start(conninfo.encode())
        set_verbose(pgconn, is_verbose=True)
        while pgconn.status != ConnStatus.BAD:
            polled = pgconn.connect_poll()
            if polled == PollingStatus.OK:
                set_verbose(pgconn, is_verbose=False)
                pgconn.nonblocking = 1
                return cls(pgconn)
            if polled == PollingStatus.FAILED:
                break
            wait = Wait.R if polled == PollingStatus.READING else Wait.W
            while not (yield pgconn.socket, wait):
                pass
        error = connection_error(pgconn)
        pgconn.finish()
        raise error

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows that a statement selects, if it selects any."""
        cursor = self.execute(statement, values, binary=True)
        return cursor.fetchall() if cursor.description else []

    def table(self, columns: int, statement: str, *values: object) -> NDArray[np.int64]:
        """Return many rows of integers as int64[columns, n]."""
        with (
            self.cursor() as cursor,
            cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT binary)", values) as copy,
        ):
            return read_rows(copy, columns)

    def watch(self, is_interrupted: Callable[[], bool]) -> None:
        """Give up a wait when `is_interrupted` returns true."""
        self._is_interrupted = is_interrupted

    def wait(
        self,
        gen: PQGen[RV],
        interval: float = _LOOK_S,  # noqa: ARG002 - interrupts are noticed as soon as promised
        timeout: float | None = None,  # noqa: ARG002 - `answer_s` holds
    ) -> RV:
        """Run one of psycopg's conversations with the server.

        Raises
        ------
        StoreInterruptedError, StoreUnavailableError
            When it was interrupted, or the server is silent.
        """
        ends_s = time.monotonic() + self.answer_s
        poll = select.poll()
        try:
            wanted = next(gen)
            while True:
                poll.register(self.pgconn.socket, _EVENTS[wanted])
                found = poll.poll(_LOOK_S * 1_000)
                if found:
                    wanted = gen.send(_ready(found[0][1], wanted))
                else:
                    self._look(ends_s)
        except StopIteration as end:
            result: RV = end.value
            return result

    def _look(self, ends_s: float) -> None:
        if self._is_interrupted():
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=_CANCEL_S)
            self.pgconn.finish()
            raise StoreInterruptedError(f"{self.address}: interrupted")
        if time.monotonic() > ends_s:
            self.pgconn.finish()
            raise StoreUnavailableError(f"{self.address}: no answer for {self.answer_s:g} s")


class Connection:
    """One session at a time with a server, opened when it is used and again after it was lost.

    Parameters
    ----------
    location : Location
    prepare : callable
        Called with each session before its first use.
    """

    def __init__(self, location: Location, prepare: Callable[[Session], None]) -> None:
        self.location = location
        self._prepare = prepare
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._is_reading = False
        self._is_interrupted = False

    @property
    def address(self) -> str:
        """The name of the store in messages, without secrets."""
        return self.location.address

    def run(self, work: Callable[[Session], T]) -> T:
        """Return the result of work; repeat it in a new session if the old one proves to be lost.

        After an error the session is closed, and its transaction rolled back.

        Raises
        ------
        StoreError, StoreFormatError
            When the work failed.
        """
        if self._session is not None:
            try:
                return self._attempt(work)
            except StoreUnavailableError as error:
                if not _is_loss(error):
                    raise
        return self._attempt(work)

    def read(self, work: Callable[[Session], T], *, takes_long: bool = False) -> T:
        """Return the result of work, which may be interrupted; it may take long if so announced."""
        with self._lock:
            self._is_reading, self._is_interrupted = True, False
        try:
            result = self.run(_without_timeouts(work) if takes_long else work)
            if self._is_interrupted:  # and ended before the interrupt was noticed
                raise StoreInterruptedError(f"{self.address}: interrupted")
            return result
        finally:
            with self._lock:
                self._is_reading = self._is_interrupted = False

    def interrupt(self) -> None:
        """End what another thread reads at this moment."""
        with self._lock:
            self._is_interrupted = self._is_reading

    def close(self) -> None:
        """Disconnect."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _attempt(self, work: Callable[[Session], T]) -> T:
        try:
            with self._translated():
                if self._session is None:
                    self._session = self._connect()
                return work(self._session)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Session:
        session = open_session(self.location)
        session.watch(lambda: self._is_interrupted)
        try:
            self._prepare(session)
        except BaseException:
            session.close()
            raise
        return session

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if self._is_reading and self._is_interrupted:
                raise StoreInterruptedError(f"{self.address}: interrupted") from error
            raise store_error(error, self.address) from error


def _ready(events: int, wanted: Wait) -> Ready:
    """Return the result of a poll; libpq notices a broken socket when it uses it."""
    if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
        return Ready(wanted)
    readable = Ready.R if events & select.POLLIN else Ready.NONE
    writable = Ready.W if events & select.POLLOUT else Ready.NONE
    return Ready(readable | writable)


def open_session(location: Location) -> Session:
    """Return a session whose statements are transactions of their own, in the schema.

    Raises
    ------
    psycopg.Error
        When the server cannot be reached or rejects the user.
    """
    session = _open(location)
    try:
        _reject_pooler(session, location)
        session.adapters.register_dumper(np.ndarray, ColumnDumper)
        settings = {**_SESSION, "search_path": _quoted(location.schema)}
        session.execute(
            "SELECT set_config(name, wanted, false) "
            "FROM unnest(%s::text[], %s::text[]) AS session (name, wanted) "
            "JOIN pg_settings USING (name)",
            (list(settings), list(settings.values())),
        )
        session.execute(_DURABLE)
    except BaseException:
        session.close()
        raise
    return session


def _reject_pooler(session: Session, location: Location) -> None:
    """Check that the session keeps its server process, before anything is set there.

    A pooler such as PgBouncer gives each transaction the process that is free: locks and settings
    would stay with processes that other clients get. It does so if two connections, both open,
    were at the same process.

    Raises
    ------
    StoreRefusedError
        When the session does not.
    """
    own = {_process_of(session)}
    if own == {session.pgconn.backend_pid}:
        return
    with contextlib.suppress(StoreUnavailableError), _open(location) as other:
        other.answer_s = _POOLER_S  # a pool of sessions may have no process left
        others: set[int] = set()
        for _ in range(_POOLER_PROBES):
            others.add(_process_of(other))
            if own & others or len(own) > 1 or len(others) > 1:
                raise StoreRefusedError(
                    f"{location.address}: is a pool that shares connections between transactions, "
                    "which a store cannot use; connect to the server itself, or to a pool with "
                    "pool_mode = session"
                )
            own.add(_process_of(session))


def _process_of(session: Session) -> int:
    ((process,),) = session.execute("SELECT pg_backend_pid()", prepare=False).fetchall()
    return int(process)


def _open(location: Location) -> Session:
    session = Session.connect(location.parameters, autocommit=True)
    session.address = location.address
    return session


def _without_timeouts(work: Callable[[Session], T]) -> Callable[[Session], T]:
    def patient(session: Session) -> T:
        set_timeout = "SELECT set_config('statement_timeout', %s, false)"
        session.execute(set_timeout, ("0",))
        session.answer_s = math.inf
        result = work(session)
        session.answer_s = ANSWER_S
        session.execute(set_timeout, (_STATEMENT_TIMEOUT,))
        return result

    return patient


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_loss(error: StoreUnavailableError) -> bool:
    """Return whether the connection was lost, and the server did not reject a statement."""
    cause = error.__cause__
    return isinstance(cause, psycopg.OperationalError) and (
        cause.sqlstate is None or cause.sqlstate.startswith(("08", "57P"))
    )


def _address(given: Mapping[str, object], schema: str) -> str:
    hosts = str(given.get("host") or "").split(",")
    ports = str(given.get("port") or _PORT).split(",")
    ports += ports[-1:] * (len(hosts) - len(ports))
    places = [
        host if host.startswith("/") or not host else format_address(host, int(port or _PORT))
        for host, port in zip(hosts, ports, strict=False)
    ]
    place = f"{','.join(places)}/{given.get('dbname') or ''}".removesuffix("/")
    return f"postgresql {place}" + (f" schema {schema}" if schema != SCHEMA else "")


def store_error(error: psycopg.Error, address: str) -> StoreError:
    """Return the store's error for what PostgreSQL raised."""
    text = f"{address}: {_first_line(error)}"
    code = error.sqlstate
    if code is None:
        return _kind_without_code(error)(text)
    if code.startswith(_UNAVAILABLE_CLASSES):
        return StoreUnavailableError(text)
    kind, advice = _BY_CODE.get(code, (StoreError, f" ({code})"))
    return kind(text + advice)


def _kind_without_code(error: psycopg.Error) -> type[StoreError]:
    """Return the kind of an error while connecting, or of a value that cannot be sent."""
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return StoreUnavailableError
    return StoreError


def _first_line(error: psycopg.Error) -> str:
    """Return the error alone, without the statement and libpq's list of attempts."""
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines()]
    return next(filter(None, lines), type(error).__name__)
