"""A connection to PostgreSQL, opened when needed, again when it was lost, that never hangs."""

from __future__ import annotations

import contextlib
import math
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import numpy as np
import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

from mdtool.adapters.stores.errors import (
    StoreInterruptedError,
    StoreUnavailableError,
)
from mdtool.adapters.stores.postgresql.columns import ColumnDumper
from mdtool.adapters.stores.postgresql.failures import store_error
from mdtool.adapters.stores.postgresql.location import Location

ANSWER_S: Final = 30.0
"""How long a server may say nothing, which is longer than it lets a statement take."""
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
    # A page is read in the order of the key, whatever the planner thinks of a table that is new.
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "jit": "off",  # to compile the plan of a page takes longer than the page
}
"""What is set where the server knows it: nothing waits for ever, and no client that is gone holds
what others wait for."""
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

T = TypeVar("T")
RV = TypeVar("RV")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits end."""

    _is_interrupted: Callable[[], bool] = staticmethod(lambda: False)
    address = ""
    answer_s = ANSWER_S

    def watch(self, is_interrupted: Callable[[], bool]) -> None:
        """Ask while waiting whether to go on."""
        self._is_interrupted = is_interrupted

    def wait(
        self,
        gen: PQGen[RV],
        interval: float = _LOOK_S,  # noqa: ARG002 - looked at as often as is promised
        timeout: float | None = None,  # noqa: ARG002 - the same for all
    ) -> RV:
        """Run one of psycopg's conversations with the server.

        Raises
        ------
        StoreInterruptedError, StoreUnavailableError
            When it was told to stop, or the server is silent.
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


class Link:
    """One connection at a time to a location.

    Parameters
    ----------
    location : Location
        Where to.
    prepare : callable
        What is done with each connection before its first use.
    """

    def __init__(self, location: Location, prepare: Callable[[Connection], None]) -> None:
        self.location = location
        self._prepare = prepare
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._is_reading = False
        self._is_interrupted = False

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work, and again on a new connection if one of before turns out to be lost.

        Whatever goes wrong, the connection is given up, and a transaction with it.

        Raises
        ------
        StoreError, StoreFormatError
            When it cannot be done.
        """
        if self._connection is not None:
            try:
                return self._attempt(work)
            except StoreUnavailableError as error:
                if not _is_loss(error):
                    raise
        return self._attempt(work)

    def read(self, work: Callable[[Connection], T], *, takes_long: bool = False) -> T:
        """Do some work that may be interrupted; if it takes long, for as long as it takes."""
        with self._lock:
            self._is_reading, self._is_interrupted = True, False
        try:
            result = self.run(_without_timeouts(work) if takes_long else work)
            if self._is_interrupted:  # and ended before anybody looked
                raise StoreInterruptedError(f"{self.location.address}: interrupted")
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
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _attempt(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._translated():
                if self._connection is None:
                    self._connection = self._connect()
                return work(self._connection)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Connection:
        connection = open_connection(self.location)
        connection.watch(lambda: self._is_interrupted)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if self._is_reading and self._is_interrupted:
                raise StoreInterruptedError(f"{self.location.address}: interrupted") from error
            raise store_error(error, self.location.address) from error


def _ready(events: int, wanted: Wait) -> Ready:
    """Return what a poll has found; libpq finds out about a broken socket by using it."""
    if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
        return Ready(wanted)
    readable = Ready.R if events & select.POLLIN else Ready.NONE
    writable = Ready.W if events & select.POLLOUT else Ready.NONE
    return Ready(readable | writable)


def open_connection(location: Location) -> Connection:
    """Return a connection whose statements are transactions of their own, in the schema.

    Raises
    ------
    psycopg.Error
        When there is none to be had.
    """
    connection = Connection.connect(location.parameters, autocommit=True)
    connection.address = location.address
    try:
        connection.adapters.register_dumper(np.ndarray, ColumnDumper)
        settings = {**_SESSION, "search_path": _quoted(location.schema)}
        connection.execute(
            "SELECT set_config(name, wanted, false) "
            "FROM unnest(%s::text[], %s::text[]) AS session (name, wanted) "
            "JOIN pg_settings USING (name)",
            (list(settings), list(settings.values())),
        )
        connection.execute(_DURABLE)
    except BaseException:
        connection.close()
        raise
    return connection


def _without_timeouts(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    def patient(connection: Connection) -> T:
        set_timeout = "SELECT set_config('statement_timeout', %s, false)"
        connection.execute(set_timeout, ("0",))
        connection.answer_s = math.inf
        result = work(connection)
        connection.answer_s = ANSWER_S
        connection.execute(set_timeout, (_STATEMENT_TIMEOUT,))
        return result

    return patient


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_loss(error: StoreUnavailableError) -> bool:
    """Tell whether it was the connection that broke, not the server that declined."""
    cause = error.__cause__
    return isinstance(cause, psycopg.OperationalError) and (
        cause.sqlstate is None or cause.sqlstate.startswith(("08", "57P"))
    )
