"""Trades as Arrow columns, and back, without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mdtool.adapters.arrow_arrays import PRICE, TIME, decimals, integers, named, numbers
from mdtool.adapters.datasets.partitions import DATE, SYMBOL
from mdtool.adapters.datasets.trade_rows import COLUMNS, TradeRows
from mdtool.core.errors import InputError
from mdtool.core.symbols import MAX_SYMBOL_CHARS, SymbolTable, is_symbol
from mdtool.core.trades import Trades
from mdtool.core.units import UNDEF_PRICE, format_price
from mdtool.wire.frames import MAX_STREAM_ID_CHARS, is_stream_id

TYPES: Final = {
    "symbol": pa.string(),
    "exchange_timestamp": TIME,
    "price": PRICE,
    "volume": pa.int64(),
    "ingest_timestamp": TIME,
    "stream_id": pa.string(),
    "sequence": pa.int64(),
}
_WORDS: Final = np.dtype([("low", "<i8"), ("high", "<i8")])
"""A decimal of 128 bits."""
_LEAST: Final = {"volume": 1, "sequence": 0}


def schema(has_symbol: bool) -> Any:
    """Return the columns of a file, with or without that of the symbol."""
    names = COLUMNS if has_symbol else COLUMNS[1:]
    return pa.schema([(name, TYPES[name]) for name in names])


def batch(rows: TradeRows, has_symbol: bool) -> Any:
    """Return rows as a record batch of `schema`."""
    trades = rows.trades
    columns = {
        "symbol": _names(rows.symbols, trades.symbol),
        "exchange_timestamp": numbers(trades.ts_event, TIME),
        "price": decimals(trades.price),
        "volume": numbers(trades.size),
        "ingest_timestamp": numbers(trades.ts_recv, TIME),
        "stream_id": _names(rows.streams, rows.stream),
        "sequence": numbers(rows.sequence),
    }
    wanted = schema(has_symbol)
    return pa.record_batch([columns[name] for name in wanted.names], schema=wanted)


def check_columns(where: str, names: list[str], folder: dict[str, str]) -> None:
    """Raise InputError unless a file's columns are those of trades.

    Parameters
    ----------
    where : str
        The name of the file in messages.
    names : list of str
        Its columns.
    folder : dict
        The values of its folders, by key.
    """
    wanted = [name for name in COLUMNS if name != SYMBOL or SYMBOL not in folder]
    if missing := [name for name in wanted if name not in names]:
        raise InputError(f"{where}: has no column {', '.join(missing)}; is this an export's file?")
    if foreign := [name for name in names if name not in (*COLUMNS, DATE)]:
        raise InputError(
            f"{where}: column {', '.join(foreign)} is not a column of trades; remove it"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{where}: has two columns of one name; remove one")


def rows_of(where: str, table: Any, folder: dict[str, str], tables: Tables) -> TradeRows:
    """Return a record batch as rows.

    Parameters
    ----------
    where : str
        The name of the file in messages.
    table : pyarrow.RecordBatch
        Columns that `check_columns` has checked.
    folder : dict
        The values of its folders, by key; a symbol there is that of all rows.
    tables : Tables
        Names are added to it.

    Raises
    ------
    InputError
        When a value is not valid for a stored trade.
    """
    columns = {
        name: _integers(where, name, table.column(name))
        for name in ("price", "volume", "sequence", "exchange_timestamp", "ingest_timestamp")
    }
    for name, least in _LEAST.items():
        column = columns[name]
        if len(column) and column.min() < least:
            raise InputError(
                f"{where}: has a {name} of {column.min()}; stored trades have {least} or more"
            )
    if (columns["price"] == UNDEF_PRICE).any():
        raise InputError(
            f"{where}: has the undefined price {UNDEF_PRICE}; stored trades have a price"
        )
    if SYMBOL in folder:
        index = tables.symbol(where, folder[SYMBOL])
        symbol = np.full(table.num_rows, index, np.uint32)
    else:
        symbol = _indices(where, SYMBOL, table.column(SYMBOL), tables.symbol)
    return TradeRows(
        symbols=tables.symbols,
        streams=tables.streams,
        stream=_indices(where, "stream_id", table.column("stream_id"), tables.stream),
        sequence=columns["sequence"],
        trades=Trades(
            symbol,
            price=columns["price"],
            size=columns["volume"],
            ts_event=columns["exchange_timestamp"],
            ts_recv=columns["ingest_timestamp"],
        ),
    )


class Tables:
    """The symbols and streams of a dataset, checked when they are added."""

    def __init__(self) -> None:
        self.symbols = SymbolTable()
        self.streams = SymbolTable()

    def symbol(self, where: str, text: str) -> int:
        """Return the index of a symbol.

        Raises
        ------
        InputError
            When it is not valid.
        """
        if not is_symbol(text):
            raise InputError(f"{where}: {text[:MAX_SYMBOL_CHARS]!r} is not a valid symbol")
        return self.symbols.intern(text)

    def give_lots(self, where: str, lots: Mapping[str, int]) -> None:
        """Give those of the symbols that are in the table their lots.

        Raises
        ------
        InputError
            When one has another lot already.
        """
        for symbol, lot in lots.items():
            index = self.symbols.find(symbol)
            if index is not None and (own := self.symbols.give_lot(index, lot)) != lot:
                raise InputError(
                    f"{where}: the lot of {symbol} is {format_price(lot)}, and {format_price(own)} "
                    "in another file; import them into stores of their own"
                )

    def stream(self, where: str, text: str) -> int:
        """Return the index of a stream.

        Raises
        ------
        InputError
            When its id is not valid.
        """
        if not is_stream_id(text):
            raise InputError(f"{where}: {text[:MAX_STREAM_ID_CHARS]!r} is not a valid stream id")
        return self.streams.intern(text)


def _names(table: SymbolTable, indices: NDArray[np.uint32]) -> Any:
    used, places = np.unique(indices, return_inverse=True)  # few of a table that may be long
    return named([table[index] for index in used.tolist()], places)


def _indices(where: str, name: str, column: Any, index_of: Any) -> NDArray[np.uint32]:
    _check_no_nulls(where, name, column)
    try:
        encoded = column.cast(pa.string()).dictionary_encode()
    except pa.ArrowException as error:
        raise InputError(f"{where}: column {name} is not text ({error})") from error
    known = np.array([index_of(where, text) for text in encoded.dictionary.to_pylist()], np.uint32)
    indices: NDArray[np.uint32] = known[integers(encoded.indices, np.int32)]
    return indices


def _integers(where: str, name: str, column: Any) -> NDArray[np.int64]:
    """Return a column as int64: prices in units of 1e-9, times in nanoseconds."""
    _check_no_nulls(where, name, column)
    wanted = TYPES[name]
    try:
        if wanted == PRICE:
            if not pa.types.is_decimal(column.type):
                raise InputError(f"{where}: column {name} is {column.type}, not an exact decimal")
            words = integers(column.cast(PRICE), _WORDS)
            prices = np.ascontiguousarray(words["low"])
            if (words["high"] != prices >> 63).any():
                raise InputError(f"{where}: column {name} has a price beyond int64 at 1e-9")
            return prices
        if wanted == TIME and not pa.types.is_integer(column.type):
            if not pa.types.is_timestamp(column.type):
                raise InputError(f"{where}: column {name} is {column.type}, not a time")
            column = column.cast(pa.timestamp("ns", column.type.tz))
        # A writable array uses kernels that are compiled already.
        return integers(column.cast(pa.int64()), np.int64).copy()
    except pa.ArrowException as error:
        raise InputError(f"{where}: column {name} cannot be read ({error})") from error


def _check_no_nulls(where: str, name: str, column: Any) -> None:
    if column.null_count:
        raise InputError(f"{where}: column {name} has {column.null_count:,} rows without a value")
