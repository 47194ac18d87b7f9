"""Which layout a DBN record has: by rtype in memory, by rtype and DBN version on the wire.

Source: the DBN encoding's pages on schemas, and on what changed between its versions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import databento_dbn as dbn
import numpy as np

from mdtool.core.dtypes import (
    EXTRAS,
    RTYPE_BBO_1M,
    RTYPE_BBO_1S,
    RTYPE_CMBP1,
    RTYPE_ERROR,
    RTYPE_MBO,
    RTYPE_MBP1,
    RTYPE_MBP10,
    RTYPE_OHLCV,
    RTYPE_OHLCV_1D,
    RTYPE_OHLCV_1H,
    RTYPE_OHLCV_1M,
    RTYPE_OHLCV_1S,
    RTYPE_STATISTICS,
    RTYPE_SYMBOL_MAPPING,
    RTYPE_SYSTEM,
    RTYPE_TCBBO,
    RTYPE_TRADE,
    WIDE_BAR,
    rtype_with,
)
from mdtool.core.records import TS_OUT, Records, sent_layout
from mdtool.core.units import UNDEF_TIMESTAMP

DBN_VERSION: Final = 3
"""The version that is written, and the newest that is read."""

RTYPE_STATUS: Final = 18
RTYPE_DEFINITION: Final = 19
RTYPE_IMBALANCE: Final = 20
RTYPE_OHLCV_EOD: Final = 36
RTYPE_CBBO_1S: Final = 192
RTYPE_CBBO_1M: Final = 193

RECORD_TYPES: Final = MappingProxyType[int, Any](
    {
        RTYPE_TRADE: dbn.TradeMsg,
        RTYPE_MBP1: dbn.MBP1Msg,
        RTYPE_MBP10: dbn.MBP10Msg,
        RTYPE_OHLCV: dbn.OHLCVMsg,
        RTYPE_STATUS: dbn.StatusMsg,
        RTYPE_DEFINITION: dbn.InstrumentDefMsg,
        RTYPE_IMBALANCE: dbn.ImbalanceMsg,
        RTYPE_ERROR: dbn.ErrorMsg,
        RTYPE_SYMBOL_MAPPING: dbn.SymbolMappingMsg,
        RTYPE_SYSTEM: dbn.SystemMsg,
        RTYPE_STATISTICS: dbn.StatMsg,
        RTYPE_OHLCV_1S: dbn.OHLCVMsg,
        RTYPE_OHLCV_1M: dbn.OHLCVMsg,
        RTYPE_OHLCV_1H: dbn.OHLCVMsg,
        RTYPE_OHLCV_1D: dbn.OHLCVMsg,
        RTYPE_OHLCV_EOD: dbn.OHLCVMsg,
        RTYPE_MBO: dbn.MBOMsg,
        RTYPE_CMBP1: dbn.CMBP1Msg,
        RTYPE_CBBO_1S: dbn.CBBOMsg,
        RTYPE_CBBO_1M: dbn.CBBOMsg,
        RTYPE_TCBBO: dbn.CMBP1Msg,
        RTYPE_BBO_1S: dbn.BBOMsg,
        RTYPE_BBO_1M: dbn.BBOMsg,
    }
)
"""databento_dbn's class of each rtype's records, in the newest version."""

DTYPES: Final = MappingProxyType[int, np.dtype[np.void]](
    {rtype: np.dtype(record_type._dtypes) for rtype, record_type in RECORD_TYPES.items()}  # noqa: SLF001 - it has no public name
)
"""The layout of each rtype's records, in the newest version."""


class _WideBar:
    """The class of bars with more than DBN's fields, of which some are shown."""

    _dtypes = WIDE_BAR.descr
    _price_fields: Final = (*dbn.OHLCVMsg._price_fields, "vwap")  # noqa: SLF001
    _timestamp_fields = dbn.OHLCVMsg._timestamp_fields  # noqa: SLF001

    def __init__(self, extras: tuple[str, ...]) -> None:
        self._ordered_fields = (*dbn.OHLCVMsg._ordered_fields, *extras)  # noqa: SLF001


_SHOWN_EXTRAS: Final = tuple(
    extras for n in range(1, len(EXTRAS) + 1) for extras in itertools.combinations(EXTRAS, n)
)
WIDE_TYPES: Final = MappingProxyType[int, Any](
    {rtype_with(extras): _WideBar(extras) for extras in _SHOWN_EXTRAS}
)
"""What stands for a class of databento_dbn, of records that DBN has not, by rtype."""
SHOWN_TYPES: Final = MappingProxyType[int, Any]({**RECORD_TYPES, **WIDE_TYPES})
"""The class of all records that text, tables and columns are made of."""
SHOWN_DTYPES: Final = MappingProxyType[int, np.dtype[np.void]](
    {**DTYPES, **dict.fromkeys(WIDE_TYPES, WIDE_BAR)}
)
"""The layouts of these."""


class _Sent:
    """What stands for a class of databento_dbn, of records that end with their `ts_out`."""

    def __init__(self, record_type: Any) -> None:
        self._dtypes = sent_layout(np.dtype(record_type._dtypes)).descr  # noqa: SLF001
        self._ordered_fields = (*record_type._ordered_fields, TS_OUT)  # noqa: SLF001
        self._price_fields = record_type._price_fields  # noqa: SLF001
        self._timestamp_fields = (*record_type._timestamp_fields, TS_OUT)  # noqa: SLF001


SENT_TYPES: Final = MappingProxyType[int, Any](
    {rtype: _Sent(record_type) for rtype, record_type in RECORD_TYPES.items()}
)
"""The class of DBN's records in a stream with `ts_out`, by rtype."""


def shown_types(has_ts_out: bool) -> Mapping[int, Any]:
    """Return the class of all records that a stream can show, with or without `ts_out`."""
    return SENT_TYPES if has_ts_out else SHOWN_TYPES


OLDER_BYTES: Final = MappingProxyType[int, dict[int, int]](
    {
        1: {
            RTYPE_DEFINITION: dbn.InstrumentDefMsgV1.size_hint,
            RTYPE_ERROR: dbn.ErrorMsgV1.size_hint,
            RTYPE_SYMBOL_MAPPING: dbn.SymbolMappingMsgV1.size_hint,
            RTYPE_SYSTEM: dbn.SystemMsgV1.size_hint,
            RTYPE_STATISTICS: dbn.StatMsgV1.size_hint,
        },
        2: {
            RTYPE_DEFINITION: dbn.InstrumentDefMsgV2.size_hint,
            RTYPE_STATISTICS: dbn.StatMsgV1.size_hint,
        },
        3: {},
    }
)
"""The sizes of records that a later version changed, by version and rtype."""

CONTROL_RTYPES: Final = frozenset({RTYPE_ERROR, RTYPE_SYMBOL_MAPPING, RTYPE_SYSTEM})
"""Control records: what a live stream sends about itself between its data."""

RTYPES: Final = MappingProxyType[str, int](
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

SCHEMAS: Final = MappingProxyType[int, str](
    {rtype: schema for schema, rtype in RTYPES.items() if schema != "tbbo"}
)
"""The schema to which each rtype belongs; records of `tbbo` are as those of `mbp-1`."""


def shifted(records: Records, offset_ns: int) -> Records:
    """Return copies of records of one rtype, all of whose times are moved.

    Undefined times stay undefined, and those that are 0.
    """
    moved = records.copy()
    for name in RECORD_TYPES[int(records["rtype"][0])]._timestamp_fields:  # noqa: SLF001
        times = moved[name]
        is_time = (times != 0) & (times != UNDEF_TIMESTAMP)
        times[is_time] += np.int64(offset_ns).astype(np.uint64)
    return moved
