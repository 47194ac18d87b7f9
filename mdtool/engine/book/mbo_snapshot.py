"""Books as the MBO records from which anybody can rebuild them, and go on from there."""

from __future__ import annotations

import numpy as np

from mdtool.core.dtypes import (
    F_LAST,
    F_MAYBE_BAD_BOOK,
    F_SNAPSHOT,
    F_TOB,
    MBO,
    RTYPE_MBO,
    record_length,
)
from mdtool.core.records import Records
from mdtool.core.units import UNDEF_PRICE
from mdtool.engine.book.state import Books
from mdtool.engine.book.view import BookView, Side, views


def mbo_snapshot(books: Books) -> Records:
    """Return the resting orders of all books as a snapshot in the middle of their stream.

    Parameters
    ----------
    books : Books
        They are not changed.

    Returns
    -------
    MBO[n]
        Of each book an `R`, then an `A` for each order in order of priority, all flagged
        SNAPSHOT, then an `N` with LAST, which is flagged MAYBE_BAD_BOOK where the book is partial.
        A quote without orders is an `A` with TOB. Times and sequence are those of the book's last
        record, but for the `ts_event` of orders, which is their own. Books that these records and
        then the rest of the stream are applied to become as those that the whole stream is.

    Notes
    -----
    The `N` also ends the run of snapshot adds: one of the stream's own that follows begins anew.
    Where the book stands within one, there is no `N`, so that its further adds still belong to it.
    """
    parts = [_of_book(view) for view in views(books)]
    return np.concatenate(parts) if parts else np.empty(0, MBO)


def _of_book(view: BookView) -> Records:
    clear = _blank(view, 1)
    clear["action"] = b"R"
    end = _blank(view, 0 if view.is_in_snapshot else 1)
    end["action"] = b"N"
    end["flags"] = F_LAST
    records = np.concatenate([clear, _of_side(view, "B"), _of_side(view, "A"), end])
    if view.is_partial:
        records["flags"][-1] |= F_MAYBE_BAD_BOOK
    return records


def _of_side(view: BookView, side: Side) -> Records:
    """Return the adds of a side: what is quoted there, which replaces the side, comes first."""
    levels, resting = view.levels(side), view.orders(side)
    in_orders = np.zeros(len(levels), np.int64)
    np.add.at(in_orders, np.repeat(np.arange(len(levels)), levels["count"]), resting["size"])
    quoted = levels["size"] - in_orders
    quotes = _blank(view, int(np.count_nonzero(quoted)))
    quotes["price"] = levels["price"][quoted > 0]
    quotes["size"] = quoted[quoted > 0]
    quotes["flags"] |= F_TOB
    orders = _blank(view, len(resting))
    for field in ("order_id", "price", "size", "ts_event"):
        orders[field] = resting[field]
    adds = np.concatenate([quotes, orders])
    adds["action"] = b"A"
    adds["side"] = side.encode()
    return adds


def _blank(view: BookView, n: int) -> Records:
    """Return records of a book's snapshot that are yet to be filled."""
    records = np.zeros(n, MBO)
    records["length"] = record_length(MBO)
    records["rtype"] = RTYPE_MBO
    records["publisher_id"], records["instrument_id"] = view.key
    records["price"] = UNDEF_PRICE
    records["side"] = b"N"
    records["flags"] = F_SNAPSHOT
    records["ts_event"] = view.ts_event
    records["ts_recv"] = view.ts_recv
    records["sequence"] = view.sequence
    return records
