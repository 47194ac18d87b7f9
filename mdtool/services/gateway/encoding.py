"""How market data looks in JSON: the faces of an aggregate, and bars."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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


class Bar(NamedTuple):
    """A bar of a symbol; its start in ns and inclusive, prices at 1e-9."""

    symbol: str
    start: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    trades: int


def bar_rows(symbols: Iterable[str], bars: BarColumns) -> list[Bar]:
    """Return bars one by one, in the same order, with the symbol of each."""
    columns = (bars.start, bars.open, bars.high, bars.low, bars.close, bars.volume, bars.count)
    return list(map(Bar, symbols, *(column.tolist() for column in columns)))


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


def encode_bars(bars: Sequence[Bar], limit: int, is_stale: bool) -> bytes:
    """Return the envelope of `/api/v1/bars`.

    Its cursor is the start of the oldest bar, None when there were fewer than `limit`.
    """
    mark = ',"stale":true' if is_stale else ""
    cursor = f'"{bars[-1].start // NS_PER_MS}"' if len(bars) == limit else "null"
    return (
        f'{{"data":[{",".join(map(_encode_bar, bars))}],"error":null,"message":null'
        f',"pagination":{{"next_cursor":{cursor}}}{mark}}}'
    ).encode()


def encode_bar(bar: Bar, interval: str) -> bytes:
    """Return the message of a bar by itself: what it is of, then what `/api/v1/bars` says."""
    of = f'{{"symbol":{json.dumps(bar.symbol)},"interval":{json.dumps(interval)},'
    return (of + _encode_bar(bar).removeprefix("{")).encode()


def _encode_bar(bar: Bar) -> str:
    _, start, opened, high, low, close, volume, trades = bar
    return (
        f'{{"timestamp":"{start // NS_PER_MS}"'
        f',"open":{format_price(opened)},"high":{format_price(high)}'
        f',"low":{format_price(low)},"close":{format_price(close)}'
        f',"volume":"{volume}","count":{trades}}}'
    )
