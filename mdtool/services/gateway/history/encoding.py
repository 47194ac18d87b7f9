"""How trades and what is known of symbols look in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdtool.adapters.stores.port import SymbolTotals, TradePage
from mdtool.core.units import format_price, format_time


class Trade(NamedTuple):
    """A trade: its exchange time in ISO-8601 with ns, its price at 1e-9."""

    timestamp: str
    price: int
    volume: int


class TradesPage(NamedTuple):
    """Trades of a symbol, newest first, and the cursor of those behind them, None at the end."""

    trades: list[Trade]
    next_cursor: str | None


def trade_rows(page: TradePage, most: int) -> list[Trade]:
    """Return the first trades of a page one by one."""
    trades = page.trades[:most]
    return list(map(Trade, _times(trades.ts_event), trades.price.tolist(), trades.size.tolist()))


def encode_trades(page: TradesPage) -> bytes:
    """Return the envelope of `/api/v1/trades`, in which prices and volumes are strings."""
    trades = ",".join(
        [
            f'{{"timestamp":"{time}","price":"{format_price(price)}","volume":"{volume}"}}'
            for time, price, volume in page.trades
        ]
    )
    cursor = json.dumps(page.next_cursor)
    return _envelope(f'{{"data":[{trades}],"pagination":{{"next_cursor":{cursor}}}}}')


def encode_symbols(symbols: Iterable[SymbolTotals]) -> bytes:
    """Return the envelope of `/api/v1/symbols`."""
    available = [
        {
            "symbol": symbol,
            "trade_count": trade_count,
            "last_trade_at": format_time(last_trade_at_ns),
        }
        for symbol, trade_count, last_trade_at_ns in symbols
    ]
    return _envelope(json.dumps({"available": available}, separators=(",", ":")))


def _envelope(data: str) -> bytes:
    return f'{{"data":{data},"error":null,"message":null}}'.encode()


def _times(ts_ns: NDArray[np.int64]) -> list[str]:
    """Return times as `format_time` does, which takes five times as long for a hundred."""
    texts: list[str] = np.datetime_as_string(
        ts_ns.astype("M8[ns]"), unit="ns", timezone="UTC"
    ).tolist()
    return texts
