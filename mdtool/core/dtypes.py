"""numpy dtypes of the records that mdtool handles, and the codes in their fields.

The layouts are DBN's own, taken from `databento_dbn`, field names and all; their sizes are pinned
by a test. Source: the DBN encoding's schema pages.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import databento_dbn as dbn
import numpy as np

MBO: Final = np.dtype(dbn.MBOMsg._dtypes)
TRADE: Final = np.dtype(dbn.TradeMsg._dtypes)
MBP1: Final = np.dtype(dbn.MBP1Msg._dtypes)
MBP10: Final = np.dtype(dbn.MBP10Msg._dtypes)
BBO: Final = np.dtype(dbn.BBOMsg._dtypes)
OHLCV: Final = np.dtype(dbn.OHLCVMsg._dtypes)
STATISTICS: Final = np.dtype(dbn.StatMsg._dtypes)
SYMBOL_MAPPING: Final = np.dtype(dbn.SymbolMappingMsg._dtypes)

RTYPE_TRADE: Final = 0
RTYPE_MBP1: Final = 1
RTYPE_MBP10: Final = 10
RTYPE_OHLCV: Final = 17
"""Bars of a cadence that has no rtype of its own."""
RTYPE_ERROR: Final = 21
RTYPE_SYMBOL_MAPPING: Final = 22
RTYPE_SYSTEM: Final = 23
RTYPE_STATISTICS: Final = 24
RTYPE_OHLCV_1S: Final = 32
RTYPE_OHLCV_1M: Final = 33
RTYPE_OHLCV_1H: Final = 34
RTYPE_OHLCV_1D: Final = 35
RTYPE_MBO: Final = 160
RTYPE_CMBP1: Final = 177
RTYPE_TCBBO: Final = 194
RTYPE_BBO_1S: Final = 195
RTYPE_BBO_1M: Final = 196

EXTRAS: Final = ("count", "vwap")
"""What bars can have besides DBN's fields."""
WIDE_BAR: Final = np.dtype([*OHLCV.descr, ("count", "<u8"), ("vwap", "<i8")])
"""A bar with them, of whole words as DBN's records are; it is never written as DBN."""
_RTYPE_WIDE_BAR: Final = 240

STAT_TYPE_VWAP: Final = 13
STAT_UPDATE_NEW: Final = 1

F_LAST: Final = 128
F_TOB: Final = 64
F_SNAPSHOT: Final = 32
F_MBP: Final = 16
F_BAD_TS_RECV: Final = 8
F_MAYBE_BAD_BOOK: Final = 4
F_PUBLISHER_SPECIFIC: Final = 2


def record_length(dtype: np.dtype[np.void]) -> int:
    """Return the value of DBN's `length` field: the size of a record in 32-bit words."""
    return dtype.itemsize // 4


def rtype_with(extras: Collection[str]) -> int:
    """Return the rtype of WIDE_BAR of which these of `EXTRAS` are shown, one or more.

    It is one that DBN has not.
    """
    return _RTYPE_WIDE_BAR + sum(1 << EXTRAS.index(name) for name in set(extras))
