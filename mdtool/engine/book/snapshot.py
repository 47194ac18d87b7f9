"""Order books at one moment: as values, as depth records, and as the MBO records they are of."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.dtypes import (
    F_LAST,
    F_MAYBE_BAD_BOOK,
    F_SNAPSHOT,
    F_TOB,
    MBO,
    MBP1,
    MBP10,
    RTYPE_MBO,
    RTYPE_MBP1,
    RTYPE_MBP10,
    record_length,
)
from mdtool.core.instruments import Instruments
from mdtool.core.publishers import publisher_name
from mdtool.core.records import Records
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, format_price, format_time
from mdtool.engine.book.joined import JoinedView
from mdtool.engine.book.state import Books, Depth
from mdtool.engine.book.view import BookView, Side, views

Levels = npt.NDArray[np.void]
Orders = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One order book at one moment.

    Attributes
    ----------
    instrument : int
        The index of its instrument.
    publisher_id, instrument_id : int
        As the last record that is in it has them; the publisher is 0 where several are joined.
    ts_ns : int
        Of when it was taken, nanoseconds since the epoch.
    ts_event, ts_recv, sequence : int
        Of the last record that is in it.
    bids, asks : LEVEL[n]
        Best first, as many as were requested.
    total_orders, bid_levels, ask_levels : int
        Of the whole book.
    is_partial : bool
        Whether older orders may be missing: see `BookView.is_partial`.
    anomalies : dict
        How many of each kind there were until then; see `engine.book.view.ANOMALIES`.
    orders : pair of ORDER[n], optional
        The orders of the bids and the asks, best level first, each level in queue order.
    """

    instrument: int
    publisher_id: int
    instrument_id: int
    ts_ns: int
    ts_event: int
    ts_recv: int
    sequence: int
    bids: Levels
    asks: Levels
    total_orders: int
    bid_levels: int
    ask_levels: int
    is_partial: bool
    anomalies: dict[str, int]
    orders: tuple[Orders, Orders] | None = None

    @classmethod
    def of(
        cls,
        view: BookView | JoinedView,
        depth: int | None = None,
        ts_ns: int | None = None,
        has_orders: bool = False,
    ) -> Snapshot:
        """Take a snapshot.

        Parameters
        ----------
        view : BookView or JoinedView
        depth : int, optional
            At most so many levels of a side, else all.
        ts_ns : int, optional
            Of when it is taken, else of when its last record was received.
        has_orders : bool
            Whether it has the orders of its levels, which are of one publisher.
        """
        orders = None
        if has_orders and isinstance(view, BookView):
            orders = view.orders("B"), view.orders("A")
        return cls(
            instrument=view.instrument,
            publisher_id=view.publisher_id,
            instrument_id=view.instrument_id,
            ts_ns=view.ts_recv if ts_ns is None else ts_ns,
            ts_event=view.ts_event,
            ts_recv=view.ts_recv,
            sequence=view.sequence,
            bids=view.levels("B", depth),
            asks=view.levels("A", depth),
            total_orders=view.total_orders,
            bid_levels=view.level_count("B"),
            ask_levels=view.level_count("A"),
            is_partial=view.is_partial,
            anomalies=view.anomalies,
            orders=orders,
        )

    def as_dict(self, symbol: str) -> dict[str, Any]:
        """Return the snapshot as JSON takes it: prices are decimal strings, 64-bit times too.

        A side without levels has no best one: None. Levels have their orders if the snapshot has.
        """
        bids, asks = _level_dicts(self.bids), _level_dicts(self.asks)
        levels = {"bids": bids, "asks": asks}
        if self.orders is not None:
            levels = {
                "bids": _with_orders(bids, self.orders[0]),
                "asks": _with_orders(asks, self.orders[1]),
            }
        return {
            "symbol": symbol,
            "publisher": publisher_name(self.publisher_id),
            "publisher_id": self.publisher_id,
            "timestamp": format_time(self.ts_ns),
            "timestamp_ns": str(self.ts_ns),
            "bbo": {
                "bid": bids[0] if bids else None,
                "ask": asks[0] if asks else None,
            },
            "levels": levels,
            "stats": {
                "total_orders": self.total_orders,
                "bid_levels": self.bid_levels,
                "ask_levels": self.ask_levels,
            },
            "partial": self.is_partial,
            "anomalies": self.anomalies,
        }


def snapshot_records(snapshots: Sequence[Snapshot], depth: Depth) -> Records:
    """Return snapshots as depth records, which describe no event.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Each with at least `depth` levels of a side, where its book has them.
    depth : {1, 10}

    Returns
    -------
    MBP1[n] or MBP10[n]
        Action and side are `N`, price and size undefined and 0. `ts_recv` is of when each
        was taken, `ts_event` and `sequence` are the last record's. Flags are LAST and SNAPSHOT, and
        MAYBE_BAD_BOOK where the book is partial.
    """
    dtype = MBP10 if depth == 10 else MBP1
    records = np.zeros(len(snapshots), dtype)
    records["length"] = record_length(dtype)
    records["rtype"] = RTYPE_MBP10 if depth == 10 else RTYPE_MBP1
    records["price"] = UNDEF_PRICE
    records["action"] = records["side"] = b"N"
    records["flags"] = F_LAST | F_SNAPSHOT
    for level in range(depth):
        records[f"bid_px_{level:02}"] = records[f"ask_px_{level:02}"] = UNDEF_PRICE
    for record, snapshot in zip(records, snapshots, strict=True):
        record["publisher_id"] = snapshot.publisher_id
        record["instrument_id"] = snapshot.instrument_id
        record["ts_recv"] = snapshot.ts_ns
        record["ts_event"] = snapshot.ts_event
        record["sequence"] = snapshot.sequence
        if snapshot.is_partial:
            record["flags"] |= F_MAYBE_BAD_BOOK
        for side, levels in (("bid", snapshot.bids), ("ask", snapshot.asks)):
            for at, level in enumerate(levels[:depth].tolist()):
                price, size, count = level
                record[f"{side}_px_{at:02}"] = price
                record[f"{side}_sz_{at:02}"] = min(size, UNDEF_ORDER_SIZE)
                record[f"{side}_ct_{at:02}"] = count
    return records


def _level_dicts(levels: Levels) -> list[dict[str, Any]]:
    return [
        {"price": format_price(price), "size": size, "count": count}
        for price, size, count in levels.tolist()
    ]


def _with_orders(levels: list[dict[str, Any]], orders: Orders) -> list[dict[str, Any]]:
    """Return levels with the orders of each; deeper levels may have more orders."""
    ends = np.cumsum([0, *(level["count"] for level in levels)]).tolist()
    return [
        level
        | {
            "orders": [
                {"order_id": str(order_id), "size": size, "ts_event": str(ts_event)}
                for order_id, _, size, ts_event, _ in orders[begin:end].tolist()
            ]
        }
        for level, (begin, end) in zip(levels, pairwise(ends), strict=True)
    ]


def mbo_snapshot(
    books: Books, instruments: Instruments, ids: Container[int] | None = None
) -> Batch:
    """Return the resting orders of books as a snapshot in the middle of their stream.

    Parameters
    ----------
    books : Books
        They are not changed.
    instruments : Instruments
        Those of the books.
    ids : container of int, optional
        The ids of the instruments whose books are in it; by default all books are.

    Returns
    -------
    Batch
        MBO records: of each book an `R`, then an `A` for each order in order of priority, all
        flagged SNAPSHOT, then an `N` with LAST, which is flagged MAYBE_BAD_BOOK where the book is
        partial. A quote without orders is an `A` with TOB. Times and sequence are those of the
        book's last record, but for the `ts_event` of orders, which is their own. A reader of these
        records and then of the rest of the stream has the same books as one of the whole stream.

    Notes
    -----
    The `N` also ends the run of snapshot adds: a snapshot of the stream that follows is another.
    Within a snapshot there is no `N`, so that its further adds still belong to it.
    """
    chosen = [view for view in views(books) if ids is None or view.instrument_id in ids]
    parts = [np.empty(0, MBO), *map(_of_book, chosen)]
    lengths = np.array([len(part) for part in parts[1:]], np.int64)
    instrument = np.repeat(np.array([view.instrument for view in chosen], np.uint32), lengths)
    return Batch(np.concatenate(parts), instruments, instrument)


def empty_books(ids: Sequence[int], publisher_id: int, ts_ns: int) -> Records:
    """Return snapshots of books without orders: an `R` each, flagged SNAPSHOT and LAST.

    Parameters
    ----------
    ids : sequence of int
        Those of their instruments.
    publisher_id : int
        0 where it is not known.
    ts_ns : int
        When they are empty.

    Returns
    -------
    MBO[n]
    """
    records = _unfilled(len(ids))
    records["publisher_id"] = publisher_id
    records["instrument_id"] = ids
    records["flags"] |= F_LAST
    records["ts_event"] = records["ts_recv"] = ts_ns
    records["action"] = b"R"
    return records


def with_empty_ended(records: Records) -> Records:
    """Return snapshots as of `mbo_snapshot` in which books without orders are as `empty_books`.

    Parameters
    ----------
    records : MBO[n]
        Whole snapshots of books.
    """
    action = records["action"]
    is_empty = np.zeros(len(records), np.bool_)
    is_empty[:-1] = (action[:-1] == b"R") & (action[1:] == b"N")
    ends = np.flatnonzero(is_empty) + 1
    ended = records.copy()
    ended["flags"][ends - 1] |= records["flags"][ends]
    return np.delete(ended, ends)


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
    """Return the adds of a side, first a top-of-book quote, which replaces the side."""
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
    records = _unfilled(n)
    records["publisher_id"] = view.publisher_id
    records["instrument_id"] = view.instrument_id
    records["ts_event"] = view.ts_event
    records["ts_recv"] = view.ts_recv
    records["sequence"] = view.sequence
    return records


def _unfilled(n: int) -> Records:
    """Return records of a snapshot without a book, an action and times."""
    records = np.zeros(n, MBO)
    records["length"] = record_length(MBO)
    records["rtype"] = RTYPE_MBO
    records["price"] = UNDEF_PRICE
    records["side"] = b"N"
    records["flags"] = F_SNAPSHOT
    return records
