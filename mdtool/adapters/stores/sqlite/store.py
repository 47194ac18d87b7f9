"""Writes a SQLite store."""

from __future__ import annotations

from typing import Self

from mdtool.adapters.stores.port import SavedState, Step, WrongTotals
from mdtool.adapters.stores.sqlite import reading
from mdtool.adapters.stores.sqlite.claim import MarketClaim
from mdtool.adapters.stores.sqlite.history import History
from mdtool.adapters.stores.sqlite.link import BUSY_S
from mdtool.adapters.stores.sqlite.writing import write_step


class Store(History):
    """Writes steps into a file, and reads what it holds.

    Methods as in `mdtool.adapters.stores.port.Store`. One thread at a time may call them, but for
    `interrupt`: hand them to one worker thread, and give readers in other threads a `History` each.

    The file is made when the store is entered and nothing is at its path. Later on it is not: when
    it was taken away, writing fails until it is back. A write that ends has reached the disk, in
    the file that is at the path.

    Parameters
    ----------
    url : str
        `sqlite:///PATH[?synchronous=normal]`.
    busy_s : float
        How long to wait for a lock on the file.

    Raises
    ------
    ConfigError
        When the URL names no file.
    """

    _writes = True

    def __init__(self, url: str, busy_s: float = BUSY_S) -> None:
        super().__init__(url, busy_s)
        self._claim = MarketClaim(self._link.location.path, self.address)
        self._written: dict[str, int] = {}
        """Numbers of symbols, with trades or without."""
        self._written_in = 0
        """The generation of the link that they are of."""

    def __enter__(self) -> Self:
        with self._link.writing():
            pass  # it can be written
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._claim.release()

    def claim(self) -> None:
        """Hold the store's market until the block ends, or this process does."""
        self._claim.hold()

    def load(self, max_streams: int, lateness_ns: int) -> SavedState:
        """Return what a market takes up again, at a cost that does not depend on the trades."""
        with self._link.reading() as connection:
            connection.execute("BEGIN")
            state = reading.state(connection, max_streams, lateness_ns)
            connection.execute("COMMIT")
            return state

    def position(self, stream_id: str) -> int | None:
        """Return the next sequence of a stream, None when the store knows none."""
        with self._link.reading() as connection:
            return reading.position(connection, stream_id)

    def write(self, step: Step) -> None:
        """Write a step; when it returns, the step is kept whatever happens to this process."""
        with self._link.writing() as connection:
            known = self._written if self._written_in == self._link.generation else {}
            learnt = write_step(connection, step, known)
        self._written = known | learnt if learnt else known
        self._written_in = self._link.generation

    def repair(self) -> list[WrongTotals]:
        """Set right what `recount` finds, in one transaction, and return it."""
        update = "UPDATE symbols SET trade_count = ?, last_trade_at = ? WHERE number = ?"
        with self._link.writing() as connection:
            self._check_pages(connection)
            wrong = self._wrong_totals(connection)
            for number, (_, (_, count, latest_ns)) in wrong.items():
                connection.execute(update, (count, latest_ns if count else None, number))
        return list(wrong.values())
