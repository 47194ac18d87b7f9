"""DBN files of a dataset: the trades schema, with the symbols of each file in its metadata.

Where sizes of a symbol are lots, its definition record comes first, and the header names no schema.

`ts_event` is the exchange's time, `ts_recv` that of the ingest server. DBN has neither streams nor
volumes of 64 bits: streams are omitted, so that a reader takes each file for a stream of its own,
and larger volumes are rejected.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import databento_dbn as dbn
import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.core.dtypes import F_LAST, RTYPE_TRADE, TRADE, record_length
from mdtool.core.errors import OutputError
from mdtool.core.records import Records
from mdtool.core.trades import Trades
from mdtool.core.units import PRICE_SCALE, UNDEF_ORDER_SIZE, format_time
from mdtool.wire.dbn import encode_metadata, encode_records
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.lot_definitions import lot_definition

DATASET: Final = "MDTOOL.STORE"
TRADES: Final = "trades"
_RECORDS: Final = ".records"
_NOTHING: Final = np.iinfo(np.int64)


class DbnWriter:
    """Writes records into a temporary file until the metadata, which precedes them, is complete."""

    def __init__(self, path: Path, has_symbol: bool) -> None:  # noqa: ARG002 - DBN always has symbols
        self._path = path
        self._records_path = path.with_name(path.name + _RECORDS)
        self._records = self._records_path.open("wb")
        self._ids = np.zeros(0, np.uint32)
        self._instruments: dict[int, str] = {}
        self._lots: dict[int, int] = {}
        self._first_ns, self._last_ns = _NOTHING.max, _NOTHING.min

    def write(self, rows: TradeRows) -> None:
        """Write rows as records."""
        check_volumes(self._path.name, rows, "export parquet or csv; nothing was written")
        for times in (rows.trades.ts_event, rows.trades.ts_recv):
            self._first_ns = min(self._first_ns, int(times.min()))
            self._last_ns = max(self._last_ns, int(times.max()))
        ids = self._instrument_ids(rows)
        self._records.write(encode_records(trade_records(rows.trades, ids)))

    def close(self) -> None:
        """Join metadata and records."""
        self._records.close()
        with self._path.open("wb") as file, self._records_path.open("rb") as records:
            file.write(encode_metadata(self._metadata()))
            for number, lot in self._lots.items():
                symbol = self._instruments[number]
                file.write(lot_definition(number, symbol, lot, self._first_ns).tobytes())
            shutil.copyfileobj(records, file, 1 << 20)
        self._records_path.unlink()

    def _metadata(self) -> dbn.Metadata:
        if not self._instruments:
            return make_metadata(DATASET, TRADES, 0, None)
        schema = None if self._lots else TRADES
        end_ns = self._last_ns + 1
        return make_metadata(DATASET, schema, self._first_ns, end_ns, self._instruments)

    def _instrument_ids(self, rows: TradeRows) -> NDArray[np.uint32]:
        """Return the rows' instruments, numbered from 1 in order of appearance in the file."""
        if len(rows.symbols) > len(self._ids):
            more = np.zeros(len(rows.symbols) - len(self._ids), np.uint32)
            self._ids = np.concatenate([self._ids, more])
        used, first = np.unique(rows.trades.symbol, return_index=True)
        for index in used[np.argsort(first)].tolist():
            if self._ids[index] == 0:
                number = self._ids[index] = len(self._instruments) + 1
                self._instruments[number] = rows.symbols[index]
                lot = rows.symbols.lot(index) or PRICE_SCALE
                if lot != PRICE_SCALE:
                    self._lots[number] = lot
        return self._ids[rows.trades.symbol]


def trade_records(trades: Trades, instrument_ids: NDArray[np.uint32]) -> Records:
    """Return trades as records, whose volumes must fit: see `check_volumes`."""
    records = np.zeros(len(trades), TRADE)
    records["length"] = record_length(TRADE)
    records["rtype"] = RTYPE_TRADE
    records["instrument_id"] = instrument_ids
    records["ts_event"] = trades.ts_event
    records["ts_recv"] = trades.ts_recv
    records["price"] = trades.price
    records["size"] = trades.size
    records["action"] = b"T"
    records["side"] = b"N"
    records["flags"] = F_LAST
    return records


def check_volumes(name: str, rows: TradeRows, advice: str) -> None:
    """Check that the volumes of rows fit DBN.

    Parameters
    ----------
    name : str
        Of what is written, for the message.
    rows : TradeRows
    advice : str
        What to do instead.

    Raises
    ------
    OutputError
        When one does not.
    """
    trades = rows.trades
    too_large = np.flatnonzero(trades.size >= UNDEF_ORDER_SIZE)
    if len(too_large):
        row = int(too_large[0])
        raise OutputError(
            f"{name}: {rows.symbols[int(trades.symbol[row])]} at "
            f"{format_time(int(trades.ts_event[row]))}: a volume of "
            f"{int(trades.size[row]):,} does not fit DBN, at most {UNDEF_ORDER_SIZE - 1:,}; "
            f"{advice}"
        )
