"""What an order book looks like at one moment, cut loose from the books that go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import (
    F_LAST,
    F_MAYBE_BAD_BOOK,
    F_SNAPSHOT,
    MBP1,
    MBP10,
    RTYPE_MBP1,
    RTYPE_MBP10,
    record_length,
)
from mdtool.core.records import Records
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, format_price, format_time
from mdtool.engine.book.state import BookKey, Depth
from mdtool.engine.book.view import BookView

Levels = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One order book at one moment.

    Attributes
    ----------
    key : BookKey
    ts_ns : int
        Of when it was taken, nanoseconds since the epoch.
    ts_event, ts_recv, sequence : int
        Of the last record that is in it.
    bids, asks : LEVEL[n]
        Best first, as many as were asked for.
    total_orders, bid_levels, ask_levels : int
        Of the whole book.
    is_partial : bool
        Whether older orders may be missing: see `BookView.is_partial`.
    anomalies : dict
        How many of each kind there were until then; see `engine.book.view.ANOMALIES`.
    """

    key: BookKey
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

    @classmethod
    def of(cls, view: BookView, depth: int | None = None, ts_ns: int | None = None) -> Snapshot:
        """Take a snapshot.

        Parameters
        ----------
        view : BookView
        depth : int, optional
            At most so many levels of a side, else all.
        ts_ns : int, optional
            Of when it is taken, else of when its last record was received.
        """
        return cls(
            key=view.key,
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
        )

    def as_dict(self, symbol: str) -> dict[str, Any]:
        """Return the snapshot as JSON takes it: prices are decimal strings, 64-bit times too.

        A side without levels has no best one: None.
        """
        bids, asks = _level_dicts(self.bids), _level_dicts(self.asks)
        return {
            "symbol": symbol,
            "timestamp": format_time(self.ts_ns),
            "timestamp_ns": str(self.ts_ns),
            "bbo": {
                "bid": bids[0] if bids else None,
                "ask": asks[0] if asks else None,
            },
            "levels": {"bids": bids, "asks": asks},
            "stats": {
                "total_orders": self.total_orders,
                "bid_levels": self.bid_levels,
                "ask_levels": self.ask_levels,
            },
            "partial": self.is_partial,
            "anomalies": self.anomalies,
        }


def snapshot_records(snapshots: Sequence[Snapshot], depth: Depth) -> Records:
    """Return snapshots as the depth records that say nothing but what the book looks like.

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
        record["publisher_id"], record["instrument_id"] = snapshot.key
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
