"""The JSON of the contracts of version 1, which keep their shapes; version 2 is in `fields`.

Prices are numbers, or in trades strings, with all their decimals; times are ms since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np

from mdtool.adapters.stores.port import SymbolTotals
from mdtool.core.units import NS_PER_MS, format_price, format_time
from mdtool.services.gateway.feeds.aggregates import Aggregate
from mdtool.services.gateway.feeds.bars import Bar
from mdtool.services.gateway.feeds.quotes import LatestQuote
from mdtool.services.gateway.feeds.recent_trades import Trade
from mdtool.wire.quotes import Quote, encode_quote

_STALE = ',"stale":true'


def encode_aggregate(aggregate: Aggregate) -> bytes:
    """Return the object of `/api/v1/marketdata`, in which volume and time are strings."""
    return _aggregate(aggregate, quote='"')


def encode_aggregate_message(aggregate: Aggregate) -> bytes:
    """Return the message of `/ws/marketdata`, in which volume and time are numbers."""
    return _aggregate(aggregate, quote="")


def _aggregate(aggregate: Aggregate, quote: str) -> bytes:
    symbol, opened, high, low, close, volume, _, timestamp, is_stale = aggregate
    mark = _STALE if is_stale else ""
    # Written out, for json.dumps takes prices only as doubles, which round off long decimals.
    return (
        f'{{"symbol":{json.dumps(symbol)}'
        f',"open":{format_price(opened)},"high":{format_price(high)}'
        f',"low":{format_price(low)},"close":{format_price(close)}'
        f',"volume":{quote}{volume}{quote}'
        f',"timestamp":{quote}{timestamp // NS_PER_MS}{quote}{mark}}}'
    ).encode()


def encode_bars(bars: Sequence[Bar], limit: int, is_stale: bool) -> bytes:
    """Return the envelope of `/api/v1/bars`.

    Its cursor is the start of the oldest bar, null when there are fewer than `limit`.
    """
    mark = _STALE if is_stale else ""
    cursor = f'"{bars[-1].start // NS_PER_MS}"' if len(bars) == limit else "null"
    return (
        f'{{"data":[{",".join(map(_bar, bars))}],"error":null,"message":null'
        f',"pagination":{{"next_cursor":{cursor}}}{mark}}}'
    ).encode()


def encode_bar(bar: Bar) -> bytes:
    """Return the message of a bar by itself: symbol and interval, then as in `/api/v1/bars`."""
    of = f'{{"symbol":{json.dumps(bar.symbol)},"interval":{json.dumps(bar.interval)},'
    return (of + _bar(bar).removeprefix("{")).encode()


def _bar(bar: Bar) -> str:
    return (
        f'{{"timestamp":"{bar.start // NS_PER_MS}"'
        f',"open":{format_price(bar.open)},"high":{format_price(bar.high)}'
        f',"low":{format_price(bar.low)},"close":{format_price(bar.close)}'
        f',"volume":"{bar.volume}","count":{bar.trades}}}'
    )


def encode_latest_quote(row: LatestQuote) -> bytes:
    """Return the object of `/v1/quotes` and the message of `/ws`."""
    symbol, bid, ask, last, ts_ms, is_partial, is_stale = row
    quote = Quote(symbol, bid, ask, last, ts_ms, is_partial)
    return encode_quote(quote, _STALE if is_stale else "")


def encode_trades(trades: Sequence[Trade], cursor: str | None) -> bytes:
    """Return the envelope of `/api/v1/trades`, in which prices and volumes are strings."""
    ts_ns = np.array([trade.timestamp for trade in trades], "M8[ns]")
    # Takes a fifth of the time that `format_time` does for a hundred.
    times = np.datetime_as_string(ts_ns, unit="ns", timezone="UTC").tolist()
    rows = ",".join(
        [
            f'{{"timestamp":"{time}","price":"{format_price(price)}","volume":"{size}"}}'
            for time, (_, _, price, size, *_) in zip(times, trades, strict=True)
        ]
    )
    return _envelope(f'{{"data":[{rows}],"pagination":{{"next_cursor":{json.dumps(cursor)}}}}}')


def encode_totals(symbols: Iterable[SymbolTotals]) -> bytes:
    """Return the envelope of `/api/v1/symbols`."""
    available = [
        {
            "symbol": symbol,
            "trade_count": trade_count,
            "last_trade_at": format_time(last_trade_at_ns),
        }
        for symbol, trade_count, last_trade_at_ns, _ in symbols
    ]
    return _envelope(json.dumps({"available": available}, separators=(",", ":")))


def _envelope(data: str) -> bytes:
    return f'{{"data":{data},"error":null,"message":null}}'.encode()
