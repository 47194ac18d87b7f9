"""Small DBN streams, made record by record with databento_dbn's own classes."""

from __future__ import annotations

import databento_dbn as dbn
import numpy as np

from mdtool.core.dtypes import MBO, OHLCV, TRADE, record_length
from mdtool.wire.dbn import encode_metadata
from mdtool.wire.dbn_metadata import make_metadata

START = 1_700_000_000 * 10**9
DAY = 86_400 * 10**9
AAPL, MSFT = 1, 2
SYMBOLS = {AAPL: "AAPL", MSFT: "MSFT"}


def metadata(schema: str | None = "mbo", end_ns: int | None = START + DAY) -> dbn.Metadata:
    return make_metadata("TEST", schema, START, end_ns, SYMBOLS)


def header(schema: str | None = "mbo") -> bytes:
    return encode_metadata(metadata(schema))


def mbo(n: int, first: int = 0, step_ns: int = 1_000_000) -> np.ndarray:
    """n records of two instruments, every third a trade, `first` telling them apart."""
    records = np.zeros(n, MBO)
    number = np.arange(first, first + n)
    records["length"] = record_length(MBO)
    records["rtype"] = 160
    records["publisher_id"] = 1
    records["instrument_id"] = 1 + number % 2
    records["order_id"] = number
    records["price"] = (100 + number % 7) * 10**9
    records["size"] = 1 + number % 5
    records["action"] = np.where(number % 3 == 0, b"T", b"A")
    records["side"] = np.where(number % 2 == 0, b"B", b"A")
    records["flags"] = 128
    records["ts_recv"] = START + number * step_ns
    records["ts_event"] = records["ts_recv"] - 500
    records["sequence"] = number
    return records


def trades(n: int, first: int = 0, step_ns: int = 1_000_000) -> np.ndarray:
    orders = mbo(n, first, step_ns)
    records = np.zeros(n, TRADE)
    for name in set(TRADE.names) & set(MBO.names):
        records[name] = orders[name]
    records["length"] = record_length(TRADE)
    records["rtype"] = 0
    records["action"] = b"T"
    return records


def bars(n: int, rtype: int, first: int = 0) -> np.ndarray:
    records = np.zeros(n, OHLCV)
    number = np.arange(first, first + n)
    records["length"] = record_length(OHLCV)
    records["rtype"] = rtype
    records["publisher_id"] = 32  # stands where a rewritten rtype could be mistaken for it
    records["instrument_id"] = 32
    records["ts_event"] = START + number * 10**9
    for name in ("open", "high", "low", "close"):
        records[name] = (100 + number) * 10**9
    records["volume"] = 32
    return records


def mapping(instrument_id: int, symbol: str, ts_ns: int = START) -> bytes:
    """A symbol mapping record, as a live stream has it."""
    return bytes(
        dbn.SymbolMappingMsg(
            publisher_id=1,
            instrument_id=instrument_id,
            ts_event=ts_ns,
            stype_in=dbn.SType.RAW_SYMBOL,
            stype_in_symbol=symbol,
            stype_out=dbn.SType.INSTRUMENT_ID,
            stype_out_symbol=str(instrument_id),
            start_ts=ts_ns,
            end_ts=2**64 - 1,
        )
    )
