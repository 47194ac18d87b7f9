"""Who holds the market of a store in PostgreSQL: one process at a time, by a lock and an epoch."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from typing import Final

import psycopg

from mdtool.adapters.stores.errors import StoreClaimedError, StoreUnavailableError
from mdtool.adapters.stores.postgresql import schema
from mdtool.adapters.stores.postgresql.failures import store_error
from mdtool.adapters.stores.postgresql.link import Connection, open_connection
from mdtool.adapters.stores.postgresql.location import Location

_HOLDER: Final = """
SELECT coalesce(nullif(application_name, ''), 'a process') || ' on '
    || coalesce(host(client_addr), 'the same machine')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND database = (
    SELECT oid FROM pg_database WHERE datname = current_database()
) AND ((classid::bigint << 32) | objid::bigint) = %s
"""


class MarketClaim:
    """An advisory lock on a connection of its own, which the server frees when that ends.

    The connection may be lost while the process lives. Then the lock is taken again, unless
    another process did meanwhile: each holder has an epoch of its own, which it checks in every
    transaction that writes of the market, so that two never write at once.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._connection: Connection | None = None
        self._epoch: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether the market was claimed."""
        return self._epoch is not None

    def hold(self) -> None:
        """Take the lock, or see to it that it is still held.

        Raises
        ------
        StoreClaimedError
            When another process has it, or had it since.
        StoreError
            When the server cannot be asked.
        """
        if self._connection is not None and not _has_ended(self._connection):
            return
        self._disconnect()
        with self._translated():
            connection = open_connection(self._location)
            try:
                self._take(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection

    def check(self, connection: Connection) -> None:
        """Keep others from taking the market over until the transaction on a connection ends.

        Raises
        ------
        StoreClaimedError
            When one has.
        """
        row = connection.execute("SELECT epoch FROM market FOR SHARE").fetchone()
        if row != (self._epoch,):
            raise self._taken_over()

    def release(self) -> None:
        """Let others claim the market."""
        self._disconnect()
        self._epoch = None

    def _take(self, connection: Connection) -> None:
        schema.create(connection, self._location)
        key = self._location.lock_key
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
        epoch = connection.execute("SELECT epoch FROM market").fetchone()
        if self.is_held and epoch != (self._epoch,):
            raise self._taken_over()
        if row != (True,):
            if self.is_held:
                # The server has not noticed yet that the connection of before is gone.
                raise StoreUnavailableError(f"{self._location.address}: its lock is not free yet")
            holder = connection.execute(_HOLDER, (key,)).fetchone()
            raise StoreClaimedError(
                f"{self._location.address}: its market is held by "
                f"{holder[0] if holder else 'another process'}; stop that, or take another "
                "schema by ?schema=NAME"
            )
        if not self.is_held:
            taken = connection.execute("UPDATE market SET epoch = epoch + 1 RETURNING epoch")
            (self._epoch,) = taken.fetchone() or (None,)

    def _taken_over(self) -> StoreClaimedError:
        return StoreClaimedError(
            f"{self._location.address}: another process has taken its market over meanwhile"
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise store_error(error, self._location.address) from error


def _has_ended(connection: Connection) -> bool:
    """Tell, without asking the server, whether an idle connection was closed by it."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
