"""The books of a symbol at all its publishers, read as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView, Side


class JoinedView:
    """One ladder of several books, in which sizes and counts at a price are added.

    It has what a `BookView` has but for orders, whose queues are of one publisher, and shows the
    moment at which it is first read.

    Parameters
    ----------
    instrument : int
        The index of the instrument that stands for them.
    views : sequence of BookView
        At least one.
    """

    publisher_id = 0

    def __init__(self, instrument: int, views: Sequence[BookView]) -> None:
        self.instrument = instrument
        self._views = views
        self._latest = max(views, key=lambda view: view.ts_recv)
        self._sides: dict[Side, npt.NDArray[np.void]] = {}

    def __len__(self) -> int:
        return len(self._views)

    @property
    def instrument_id(self) -> int:
        """The id in the last record of all."""
        return self._latest.instrument_id

    @property
    def ts_event(self) -> int:
        """The ts_event of the last record of all, ns."""
        return self._latest.ts_event

    @property
    def ts_recv(self) -> int:
        """The ts_recv of the last record of all, ns."""
        return self._latest.ts_recv

    @property
    def sequence(self) -> int:
        """The sequence number of the last record of all."""
        return self._latest.sequence

    @property
    def is_partial(self) -> bool:
        """Whether one of the books is."""
        return any(view.is_partial for view in self._views)

    @property
    def records(self) -> int:
        """How many records were applied to all."""
        return sum(view.records for view in self._views)

    @property
    def total_orders(self) -> int:
        """How many orders rest."""
        return sum(view.total_orders for view in self._views)

    @property
    def trades(self) -> int:
        """How many trades there were."""
        return sum(view.trades for view in self._views)

    @property
    def volume(self) -> int:
        """The size of all trades."""
        return sum(view.volume for view in self._views)

    @property
    def anomalies(self) -> dict[str, int]:
        """How many of each kind of anomaly there were, kinds without any left out."""
        counts: Counter[str] = Counter()
        for view in self._views:
            counts.update(view.anomalies)
        return dict(counts)

    def level_count(self, side: Side) -> int:
        """Return how many prices of a side have orders."""
        return len(self._side(side))

    def levels(self, side: Side, depth: int | None = None) -> npt.NDArray[np.void]:
        """Return levels of a side, best first, as `BookView.levels`."""
        return self._side(side)[:depth]

    def _side(self, side: Side) -> npt.NDArray[np.void]:
        if side not in self._sides:
            levels = np.concatenate([view.levels(side) for view in self._views])
            prices, place = np.unique(levels["price"], return_inverse=True)
            joined = np.zeros(len(prices), levels.dtype)
            joined["price"] = prices
            for name in ("size", "count"):
                np.add.at(joined[name], place, levels[name])
            self._sides[side] = joined[::-1] if side == "B" else joined
        return self._sides[side]


def by_symbol(books: Books, first_of_symbol: npt.NDArray[np.int64]) -> dict[int, list[int]]:
    """Return the instruments of all books by the first one of their symbol, as first seen."""
    grouped: dict[int, list[int]] = {}
    for instrument in books.instruments().tolist():
        grouped.setdefault(int(first_of_symbol[instrument]), []).append(instrument)
    return grouped
