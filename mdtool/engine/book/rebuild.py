"""Books rebuilt from whole events, up to where a stream has come."""

from __future__ import annotations

from mdtool.core.records import Records
from mdtool.engine.book.state import Books
from mdtool.engine.book.whole_events import WholeEvents


class Rebuild:
    """The books of a stream as they are between its events.

    Parameters
    ----------
    books : Books, optional
        What they were when the stream was taken up again, with `held` and `latest_ns`; else the
        stream begins.

    Attributes
    ----------
    books : Books
    events : WholeEvents
        Holds the records of events that have not ended: they are in no book yet.
    """

    def __init__(
        self, books: Books | None = None, held: Records | None = None, latest_ns: int = 0
    ) -> None:
        self.books = Books() if books is None else books
        self.events = WholeEvents(held, latest_ns)

    @property
    def latest_ns(self) -> int:
        """The latest index timestamp of all records, 0 before the first."""
        return self.events.latest_ns

    def update(self, records: Records) -> None:
        """Take the stream's next MBO records, perhaps none."""
        for whole in self.events.feed(records):
            self.books.apply(whole)
