"""Quotes as JSON, of `/v1/quotes`, `WS /ws` and a shared hub.

    {"symbol":"MSFT","bid":415.25,"ask":415.27,"last":415.26,"ts":1735201234567}

An unknown price is null. `"partial":true` says that better prices may be missing from the book.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Final, NamedTuple, NoReturn

from mdtool.core.errors import PeerError
from mdtool.core.symbols import normal_symbol
from mdtool.core.units import NS_PER_MS, UNDEF_PRICE, format_price

MAX_QUOTE_BYTES: Final = 1_024
"""Other programs may add fields of their own."""
_MAX_TS_MS: Final = (2**63 - 1) // NS_PER_MS
_PRICE: Final = re.compile(r"-?\d{1,10}(\.\d{1,30})?([eE][+-]?\d\d?)?")


class Quote(NamedTuple):
    """The best prices of a symbol and its last trade, at 1e-9, as of a time in ms.

    Those of a partial book are the best that are known.
    """

    symbol: str
    bid: int | None
    ask: int | None
    last: int | None
    ts_ms: int
    is_partial: bool = False


class QuoteError(PeerError):
    """A message is not a valid quote."""


class _Number(str):
    """A number as it is written, distinct from a string."""

    __slots__ = ()


def encode_quote(quote: Quote, mark: str = "") -> bytes:
    """Return a quote as JSON, with `mark` behind its fields."""
    symbol, bid, ask, last, ts_ms, is_partial = quote
    partial = ',"partial":true' if is_partial else ""
    return (
        f'{{"symbol":{json.dumps(symbol)},"bid":{_text(bid)},"ask":{_text(ask)}'
        f',"last":{_text(last)},"ts":{ts_ms}{partial}{mark}}}'
    ).encode()


def decode_quote(data: bytes) -> Quote:
    """Return the quote that `encode_quote` wrote, or another program in the same form.

    Prices are rounded to 1e-9, and symbols made upper-case.

    Raises
    ------
    QuoteError
        When it is not valid.
    """
    if len(data) > MAX_QUOTE_BYTES:
        raise QuoteError(f"a quote of {len(data):,} bytes, more than {MAX_QUOTE_BYTES:,}")
    try:
        fields = json.loads(data, parse_float=_Number, parse_int=_Number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise QuoteError(f"not JSON: {data[:80]!r}") from error
    if not isinstance(fields, dict):
        raise QuoteError(f"not an object: {data[:80]!r}")
    return Quote(
        symbol=_symbol(fields.get("symbol")),
        bid=_price("bid", fields.get("bid")),
        ask=_price("ask", fields.get("ask")),
        last=_price("last", fields.get("last")),
        ts_ms=_time(fields.get("ts")),
        is_partial=fields.get("partial") is True,
    )


def _text(price: int | None) -> str:
    return "null" if price is None else format_price(price)


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _symbol(value: Any) -> str:
    if isinstance(value, str) and not isinstance(value, _Number):
        symbol = normal_symbol(value)
        if symbol is not None:
            return symbol
    raise QuoteError(f"symbol: {value!r:.80} is not valid")


def _price(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, _Number) and _PRICE.fullmatch(value):
        price = int(Decimal(value).scaleb(9).to_integral_value())
        if -UNDEF_PRICE < price < UNDEF_PRICE:
            return price
    raise QuoteError(f"{name}: {value!r:.80} is not a price")


def _time(value: Any) -> int:
    if isinstance(value, _Number) and value.isdigit() and len(value) <= 20:
        ts_ms = int(value)
        if ts_ms <= _MAX_TS_MS:
            return ts_ms
    raise QuoteError(f"ts: {value!r:.80} is not a time in ms")
