"""The claim of one process to the market of a store in PostgreSQL: a lock and an epoch."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from typing import Final

import psycopg

from mdtool.adapters.stores.errors import StoreClaimedError, StoreUnavailableError
from mdtool.adapters.stores.postgresql import schema
from mdtool.adapters.stores.postgresql.connection import (
    Location,
    Session,
    open_session,
    store_error,
)

_HOLDER: Final = """
SELECT coalesce(nullif(application_name, ''), 'a process') || ' on '
    || coalesce(host(client_addr), 'the same machine')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND database = (
    SELECT oid FROM pg_database WHERE datname = current_database()
) AND ((classid::bigint << 32) | objid::bigint) = %s
"""


class MarketClaim:
    """An advisory lock in a session of its own, which the server releases when that ends.

    The session may be lost while the process lives. Then the lock is acquired again, unless another
    process did so meanwhile: each holder has an epoch of its own, which it checks in every
    transaction that writes the market, so that two never write at once.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._session: Session | None = None
        self._epoch: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether the market was claimed."""
        return self._epoch is not None

    def hold(self) -> None:
        """Acquire the lock, or check that it is still held.

        Raises
        ------
        StoreClaimedError
            When another process holds it, or held it since.
        StoreError
            When the server is unavailable.
        """
        if self._session is not None and not _has_ended(self._session):
            return
        self._disconnect()
        with self._translated():
            session = open_session(self._location)
            try:
                self._take(session)
            except BaseException:
                session.close()
                raise
            self._session = session

    def check(self, session: Session) -> None:
        """Keep other processes from claiming the market until the transaction of a session ends.

        Raises
        ------
        StoreClaimedError
            When one has claimed it.
        """
        row = session.execute("SELECT epoch FROM market FOR SHARE").fetchone()
        if row != (self._epoch,):
            raise self._taken_over()

    def release(self) -> None:
        """Release the lock."""
        self._disconnect()
        self._epoch = None

    def _take(self, session: Session) -> None:
        schema.create(session, self._location)
        key = self._location.lock_key
        row = session.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone()
        epoch = session.execute("SELECT epoch FROM market").fetchone()
        if self.is_held and epoch != (self._epoch,):
            raise self._taken_over()
        if row != (True,):
            if self.is_held:
                # The server has not noticed yet that the session before is gone.
                raise StoreUnavailableError(
                    f"{self._location.address}: its lock is not released yet"
                )
            holder = session.execute(_HOLDER, (key,)).fetchone()
            raise StoreClaimedError(
                f"{self._location.address}: is in use by "
                f"{holder[0] if holder else 'another process'}; stop that, or name another "
                "schema by ?schema=NAME"
            )
        if not self.is_held:
            taken = session.execute("UPDATE market SET epoch = epoch + 1 RETURNING epoch")
            (self._epoch,) = taken.fetchone() or (None,)

    def _taken_over(self) -> StoreClaimedError:
        return StoreClaimedError(
            f"{self._location.address}: another process claimed the store meanwhile"
        )

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise store_error(error, self._location.address) from error


def _has_ended(session: Session) -> bool:
    """Return, without a request, whether the server closed an idle session."""
    if session.closed:
        return True
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    return bool(poll.poll(0))
