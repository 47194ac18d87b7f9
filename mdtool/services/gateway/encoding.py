"""How market data looks in JSON: the faces of an aggregate, and bars."""

from __future__ import annotations

import json
from typing import NamedTuple

from mdtool.core.units import NS_PER_MS, format_price
from mdtool.wire.batches import BarColumns


class Aggregate(NamedTuple):
    """The session of a symbol so far; prices at 1e-9, the time of the latest trade in ns."""

    symbol: str
    open: int
    high: int
    low: int
    close: int
    volume: int
    timestamp: int
    is_stale: bool


def encode_rest(aggregate: Aggregate) -> bytes:
    """Return the object of `/api/v1/marketdata`, in which volume and time are strings."""
    return _encode(aggregate, quote='"')


def encode_socket(aggregate: Aggregate) -> bytes:
    """Return the message of `/ws/marketdata`, in which volume and time are numbers."""
    return _encode(aggregate, quote="")


def _encode(aggregate: Aggregate, quote: str) -> bytes:
    symbol, opened, high, low, close, volume, timestamp, is_stale = aggregate
    mark = ',"stale":true' if is_stale else ""
    # Written out, for json.dumps takes prices only as doubles, which round off long decimals.
    return (
        f'{{"symbol":{json.dumps(symbol)}'
        f',"open":{format_price(opened)},"high":{format_price(high)}'
        f',"low":{format_price(low)},"close":{format_price(close)}'
        f',"volume":{quote}{volume}{quote}'
        f',"timestamp":{quote}{timestamp // NS_PER_MS}{quote}{mark}}}'
    ).encode()


def encode_bars(bars: BarColumns, limit: int) -> bytes:
    """Return the envelope of `/api/v1/bars`.

    Its cursor is the start of the oldest bar, None when there were fewer than `limit`.
    """
    columns = (bars.start, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.count)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    cursor = f'"{int(bars.start[-1]) // NS_PER_MS}"' if len(bars.start) == limit else "null"
    return (
        f'{{"data":[{",".join(_encode_bar(*row) for row in rows)}],"error":null,"message":null'
        f',"pagination":{{"next_cursor":{cursor}}}}}'
    ).encode()


def _encode_bar(
    start: int, opened: int, high: int, low: int, close: int, volume: int, count: int
) -> str:
    return (
        f'{{"timestamp":"{start // NS_PER_MS}"'
        f',"open":{format_price(opened)},"high":{format_price(high)}'
        f',"low":{format_price(low)},"close":{format_price(close)}'
        f',"volume":"{volume}","count":{count}}}'
    )
