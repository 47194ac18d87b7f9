"""Which layout a DBN record has: by rtype in memory, by rtype and DBN version on the wire.

Source: the DBN encoding's pages on schemas, and on what changed between its versions.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import databento_dbn as dbn
import numpy as np

from mdtool.core.dtypes import (
    MBO,
    MBP1,
    MBP10,
    OHLCV,
    RTYPE_MBO,
    RTYPE_MBP1,
    RTYPE_MBP10,
    RTYPE_OHLCV,
    RTYPE_OHLCV_1D,
    RTYPE_OHLCV_1H,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    RTYPE_SYMBOL_MAPPING,
    RTYPE_TRADE,
    SYMBOL_MAPPING,
    TRADE,
)

DBN_VERSION: Final = 3
"""The version that is written, and the newest that is read."""

RTYPE_STATUS: Final = 18
RTYPE_DEFINITION: Final = 19
RTYPE_IMBALANCE: Final = 20
RTYPE_ERROR: Final = 21
RTYPE_SYSTEM: Final = 23
RTYPE_STATISTICS: Final = 24
RTYPE_OHLCV_EOD: Final = 36
RTYPE_CMBP1: Final = 177
RTYPE_CBBO_1S: Final = 192
RTYPE_CBBO_1M: Final = 193
RTYPE_TCBBO: Final = 194
RTYPE_BBO_1S: Final = 195
RTYPE_BBO_1M: Final = 196


def _layout(record: Any) -> np.dtype[np.void]:
    layout: np.dtype[np.void] = np.dtype(record._dtypes)  # noqa: SLF001 - it has no public name
    return layout


_BBO: Final = _layout(dbn.BBOMsg)
_CBBO: Final = _layout(dbn.CBBOMsg)
_CMBP1: Final = _layout(dbn.CMBP1Msg)

DTYPES: Final = MappingProxyType(
    {
        RTYPE_TRADE: TRADE,
        RTYPE_MBP1: MBP1,
        RTYPE_MBP10: MBP10,
        RTYPE_OHLCV: OHLCV,
        RTYPE_STATUS: _layout(dbn.StatusMsg),
        RTYPE_DEFINITION: _layout(dbn.InstrumentDefMsg),
        RTYPE_IMBALANCE: _layout(dbn.ImbalanceMsg),
        RTYPE_ERROR: _layout(dbn.ErrorMsg),
        RTYPE_SYMBOL_MAPPING: SYMBOL_MAPPING,
        RTYPE_SYSTEM: _layout(dbn.SystemMsg),
        RTYPE_STATISTICS: _layout(dbn.StatMsg),
        RTYPE_OHLCV_1S: OHLCV,
        RTYPE_OHLCV_1M: OHLCV,
        RTYPE_OHLCV_1H: OHLCV,
        RTYPE_OHLCV_1D: OHLCV,
        RTYPE_OHLCV_EOD: OHLCV,
        RTYPE_MBO: MBO,
        RTYPE_CMBP1: _CMBP1,
        RTYPE_CBBO_1S: _CBBO,
        RTYPE_CBBO_1M: _CBBO,
        RTYPE_TCBBO: _CMBP1,
        RTYPE_BBO_1S: _BBO,
        RTYPE_BBO_1M: _BBO,
    }
)
"""The layout of each rtype's records, in the newest version."""

_V1_BYTES: Final = {
    RTYPE_DEFINITION: dbn.InstrumentDefMsgV1.size_hint,
    RTYPE_ERROR: dbn.ErrorMsgV1.size_hint,
    RTYPE_SYMBOL_MAPPING: dbn.SymbolMappingMsgV1.size_hint,
    RTYPE_SYSTEM: dbn.SystemMsgV1.size_hint,
    RTYPE_STATISTICS: dbn.StatMsgV1.size_hint,
}
_V2_BYTES: Final = {
    RTYPE_DEFINITION: dbn.InstrumentDefMsgV2.size_hint,
    RTYPE_STATISTICS: dbn.StatMsgV1.size_hint,
}
OLDER_BYTES: Final = MappingProxyType({1: _V1_BYTES, 2: _V2_BYTES, 3: {}})
"""By version, the size of those records that a later version changed."""

CONTROL_RTYPES: Final = frozenset({RTYPE_ERROR, RTYPE_SYMBOL_MAPPING, RTYPE_SYSTEM})
"""What a live stream says about itself, between its data."""

RTYPES: Final = MappingProxyType(
    {
        "mbo": RTYPE_MBO,
        "trades": RTYPE_TRADE,
        "mbp-1": RTYPE_MBP1,
        "mbp-10": RTYPE_MBP10,
        "tbbo": RTYPE_MBP1,
        "ohlcv-1s": RTYPE_OHLCV_1S,
        "ohlcv-1m": RTYPE_OHLCV_1M,
        "ohlcv-1h": RTYPE_OHLCV_1H,
        "ohlcv-1d": RTYPE_OHLCV_1D,
        "ohlcv-eod": RTYPE_OHLCV_EOD,
        "definition": RTYPE_DEFINITION,
        "statistics": RTYPE_STATISTICS,
        "status": RTYPE_STATUS,
        "imbalance": RTYPE_IMBALANCE,
        "cmbp-1": RTYPE_CMBP1,
        "cbbo-1s": RTYPE_CBBO_1S,
        "cbbo-1m": RTYPE_CBBO_1M,
        "tcbbo": RTYPE_TCBBO,
        "bbo-1s": RTYPE_BBO_1S,
        "bbo-1m": RTYPE_BBO_1M,
    }
)
"""The rtype of each schema's records, by the schema's name."""
