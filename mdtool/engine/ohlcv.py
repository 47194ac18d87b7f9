"""Bars as DBN records: the OHLCV schemas and what they leave out."""

from __future__ import annotations

from typing import Final

import numpy as np

from mdtool.core.dtypes import (
    OHLCV,
    RTYPE_OHLCV,
    RTYPE_OHLCV_1D,
    RTYPE_OHLCV_1H,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    record_length,
)
from mdtool.core.records import Records
from mdtool.core.units import NS_PER_DAY, NS_PER_S
from mdtool.engine.bars import Bars

_CADENCES: Final = {
    NS_PER_S: (RTYPE_OHLCV_1S, "ohlcv-1s"),
    60 * NS_PER_S: (RTYPE_OHLCV_1M, "ohlcv-1m"),
    3_600 * NS_PER_S: (RTYPE_OHLCV_1H, "ohlcv-1h"),
    NS_PER_DAY: (RTYPE_OHLCV_1D, "ohlcv-1d"),
}


def rtype_of(interval_ns: int | None) -> int:
    """Return the rtype of bars of an interval; None means that they are not by time."""
    return _CADENCES[interval_ns][0] if interval_ns in _CADENCES else RTYPE_OHLCV


def schema_of(interval_ns: int | None) -> str | None:
    """Return the DBN schema of bars of an interval, None where DBN has none."""
    return _CADENCES[interval_ns][1] if interval_ns in _CADENCES else None


def ohlcv_records(bars: Bars, rtype: int) -> Records:
    """Return bars as DBN's OHLCV records.

    Parameters
    ----------
    bars : BAR[n]
        With instruments as `Trades` has them. Their counts have no place in DBN.
    rtype : int
        One of the OHLCV rtypes.

    Returns
    -------
    OHLCV[n]
        In the same order; `ts_event` is the bar's start.
    """
    records = np.zeros(len(bars), OHLCV)
    records["length"] = record_length(OHLCV)
    records["rtype"] = rtype
    records["publisher_id"] = bars["instrument"] >> 32
    records["instrument_id"] = bars["instrument"] & 0xFFFFFFFF
    records["ts_event"] = bars["start_ns"]
    for name in ("open", "high", "low", "close", "volume"):
        records[name] = bars[name]
    return records
