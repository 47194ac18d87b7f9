"""What a batch must hold to reach the market: what its sender was to check, checked once more.

Columns of the right lengths can still carry what no ingest server takes; a peer that sends such
is in error, and its call is ended before anything of the batch counts.
"""

from __future__ import annotations

from typing import Final

from mdtool.core.symbols import MAX_SYMBOL_CHARS, is_symbol
from mdtool.core.trades import Trades
from mdtool.core.units import MIN_TIMESTAMP_NS
from mdtool.wire.batches import TRADE_COLUMNS, BatchError
from mdtool.wire.control import MAX_STREAM_ID_CHARS, is_stream_id

_MAX_SEQUENCE: Final = 2**63 - 1
"""Stores keep sequences as int64."""
_LEAST: Final = {"price": 1, "size": 1, "ts_event": MIN_TIMESTAMP_NS}


def check_stream(stream_id: str, first_sequence: int, frames: int) -> None:
    """Raise BatchError where a batch has no proper stream, or leaves its sequences."""
    if not is_stream_id(stream_id):
        raise BatchError(f"stream id is not 1 to {MAX_STREAM_ID_CHARS} printable characters")
    if first_sequence + frames > _MAX_SEQUENCE:
        raise BatchError(f"stream {stream_id!r} ends before sequence {first_sequence} + {frames}")


def check_trades(trades: Trades) -> None:
    """Raise BatchError where a trade has a value that no accepted tick has."""
    for name, least in _LEAST.items():
        column = getattr(trades, name)
        if len(column) and column.min() < least:
            raise BatchError(f"batch has a tick with a {TRADE_COLUMNS[name]} of {column.min()}")


def check_symbol(symbol: str) -> None:
    """Raise BatchError where a symbol is not as accepted ticks have it."""
    if not is_symbol(symbol):
        raise BatchError(f"symbol {symbol[:MAX_SYMBOL_CHARS]!r} is not as ingest servers write it")
