"""Why a tick was refused, in words for a log."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from mdtool.core.symbols import MAX_SYMBOL_CHARS
from mdtool.core.trades import Reason
from mdtool.core.units import MIN_TIMESTAMP_NS
from mdtool.wire._pb import tick_pb2

_SHOWN_CHARS: Final = 24
_UNITS_BELOW: Final = ((10**11, "s"), (10**14, "ms"), (MIN_TIMESTAMP_NS, "us"))
"""The unit that a time below each bound can only be in, if it is not before March 1973."""


def describe(payload: bytes, reason: Reason) -> str:
    """Return one line that says what is wrong with a Tick refused for `reason`."""
    if reason is Reason.MALFORMED:
        return f"payload of {len(payload):,} bytes is no Tick"
    try:
        tick = tick_pb2.Tick.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"a payload refused for its {reason.label} is no Tick") from error
    if reason is Reason.SYMBOL:
        return _describe_symbol(tick.symbol)
    if reason is Reason.PRICE:
        return f"price {tick.price!r} is not above 0 and within int64 at 1e-9"
    if reason is Reason.VOLUME:
        return f"volume {tick.volume} is not above 0"
    return _describe_timestamp(tick.exchange_timestamp)


def _describe_symbol(symbol: str) -> str:
    # What is not ASCII is not trimmed either, though Python knows more kinds of spaces.
    trimmed = symbol.strip() if symbol.isascii() else symbol
    if not trimmed:
        return "symbol is empty"
    shown = repr(trimmed[:_SHOWN_CHARS]) + ("..." if len(trimmed) > _SHOWN_CHARS else "")
    if not (trimmed.isascii() and trimmed.isprintable()):
        return f"symbol {shown} is not printable ASCII"
    if len(trimmed) > MAX_SYMBOL_CHARS:
        return f"symbol {shown} has {len(trimmed):,} characters, over {MAX_SYMBOL_CHARS}"
    return f"symbol {shown} is one too many: the symbol table is full"


def _describe_timestamp(timestamp: int) -> str:
    if timestamp <= 0:
        return f"timestamp {timestamp} is not above 0"
    unit = next(unit for bound, unit in _UNITS_BELOW if timestamp < bound)
    return f"timestamp {timestamp} is in {unit}, not in ns"
