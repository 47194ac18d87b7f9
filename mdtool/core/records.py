"""DBN records of any schema: their timestamps, and the trades among them."""

from __future__ import annotations

import functools
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import F_SNAPSHOT, RTYPE_TRADE, TRADE, record_length
from mdtool.core.errors import UsageError
from mdtool.core.units import UNDEF_ORDER_SIZE, UNDEF_PRICE, UNDEF_TIMESTAMP

Records: TypeAlias = npt.NDArray[np.void]
"""A structured array of records of one rtype, laid out as DBN lays them out."""

Times: TypeAlias = npt.NDArray[np.uint64]
"""Nanoseconds since the epoch, UNDEF_TIMESTAMP where a time is not known."""

CLOCKS: Final = ("ts_recv", "ts_event")
TS_OUT: Final = "ts_out"
"""When a gateway sent a record: the last field of each, in streams whose header says so."""


def index_timestamps(records: Records) -> npt.NDArray[np.int64]:
    """Return the time by which records are sorted and merged, and whose UTC date names symbols.

    Parameters
    ----------
    records : structured array, shape (n,)
        Records of one rtype.

    Returns
    -------
    int64 array, shape (n,)
        Nanoseconds since the epoch, a view: `ts_recv` where the record has one, else `ts_event`.
        UNDEF_TIMESTAMP reads as -1.
    """
    return timestamps(records, "ts_recv")


def timestamps(records: Records, clock: str) -> npt.NDArray[np.int64]:
    """Return the times of `clock`, one of `CLOCKS`; records without `ts_recv` give `ts_event`.

    Raises
    ------
    UsageError
        When there is no such clock.
    """
    if clock not in CLOCKS:
        raise UsageError(f"no clock {clock!r}; choose from {', '.join(CLOCKS)}")
    names: Any = records.dtype.names
    return records[clock if clock in names else "ts_event"].view(np.int64)


def pacing_timestamps(records: Records, clock: str) -> npt.NDArray[np.int64]:
    """Return the times of `clock` by which to replay records: as `timestamps`, but for snapshots.

    The orders of a snapshot carry the `ts_event` of when they were entered, days before; they
    are replayed by `ts_recv`, when the snapshot was taken, on either clock.
    """
    paced = timestamps(records, clock)
    names: Any = records.dtype.names
    if clock == "ts_event" and {"flags", "ts_recv"} <= set(names):
        is_snapshot = (records["flags"] & F_SNAPSHOT) != 0
        if is_snapshot.any():
            return np.where(is_snapshot, records["ts_recv"].view(np.int64), paced)
    return paced


@functools.cache
def sent_layout(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return the layout of records that have a `ts_out`."""
    return np.dtype([*dtype.descr, (TS_OUT, "<u8")])


def with_ts_out(records: Records, ts_out: Times | None) -> Records:
    """Return records that end with their `ts_out`, undefined where there is none: read-only."""
    sent = np.empty(len(records), sent_layout(records.dtype))
    words = sent.view(np.int64).reshape(len(records), sent.itemsize // 8)
    words[:, :-1] = as_words(records).reshape(len(records), records.itemsize // 8)
    sent["length"] = record_length(sent.dtype)
    sent[TS_OUT] = UNDEF_TIMESTAMP if ts_out is None else ts_out
    sent.flags.writeable = False
    return sent


_TRADED: Final = np.uint8(ord("T"))


def as_words(records: Records) -> npt.NDArray[np.int64]:
    """Return records as the 64-bit words of a DBN stream, read-only; copies only where it must.

    Every layout is of whole words.
    """
    flat = np.ascontiguousarray(records).view(np.uint8).view(np.int64)
    words = np.require(flat, requirements=["C", "A"])
    words.flags.writeable = False
    return words


@functools.cache
def coded_layout(dtype: np.dtype[np.void]) -> np.dtype[np.void]:
    """Return the layout of records with their characters as numbers, as kernels read them."""
    names: Any = dtype.names
    return np.dtype(
        [(name, "u1" if dtype[name].kind == "S" else dtype[name].str) for name in names]
    )


def coded(records: Records) -> Records:
    """Return records as `coded_layout` has them: a read-only view.

    They are always read-only, as what files hold is: for other arrays a kernel would compile again.
    """
    view = np.require(records, requirements=["C", "A"]).view(coded_layout(records.dtype))
    view.flags.writeable = False
    return view


def has_trades(dtype: np.dtype[np.void]) -> bool:
    """Return whether records of this layout can be trades: MBO, trades, and MBP of any kind."""
    return {"action", "price", "size", "ts_recv"} <= set(dtype.names or ())


def is_trade(records: Records) -> npt.NDArray[np.bool_]:
    """Return which of MBO, trades or MBP records are trades: those with action `T`, shape (n,)."""
    # As numbers, for numpy compares texts at a tenth of the speed.
    traded: npt.NDArray[np.bool_] = records["action"].view(np.uint8) == _TRADED
    return traded


def is_priced(records: Records) -> npt.NDArray[np.bool_]:
    """Return which of MBO, trades or MBP records have a price and a size, shape (n,).

    A price is whatever is not undefined: spreads and some futures trade at 0 and below. A size of 0
    is none.
    """
    size = records["size"]
    priced: npt.NDArray[np.bool_] = (records["price"] != UNDEF_PRICE) & (size != 0)
    priced &= size != UNDEF_ORDER_SIZE
    return priced


def trades_of(records: Records) -> Records:
    """Return the trades among MBO, trades or MBP records.

    Parameters
    ----------
    records : structured array, shape (n,)
        Records of one rtype for which `has_trades` holds. They are not changed.

    Returns
    -------
    array of TRADE, shape (m,)
        A record for each with action `T`, in order, with its own header but for rtype and
        length. `depth` and `sequence` are 0 where the record has none.
    """
    if records.dtype == TRADE:
        return records
    trades = records[is_trade(records)]
    derived = np.zeros(len(trades), TRADE)
    for name in set(TRADE.names or ()) & set(records.dtype.names or ()):
        derived[name] = trades[name]
    derived["rtype"] = RTYPE_TRADE
    derived["length"] = record_length(TRADE)
    return derived
