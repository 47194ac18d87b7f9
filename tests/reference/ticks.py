"""What decoding Tick frames means, one frame at a time, with protobuf's own parser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from mdtool.wire._pb import tick_pb2


@dataclass
class Expected:
    """The outcome of a run of frames, as plain lists."""

    accepted: list[tuple[int, str, int, int, int]] = field(default_factory=list)
    """Frame number, symbol, price, volume and exchange timestamp."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    """Frame number and reason."""
    frames: int = 0
    is_broken: bool = False
    """Whether a frame has a length that it must not have."""


def decode(data: bytes, max_symbols: int, any_price: bool = False) -> Expected:
    """Return the outcome of the frames in `data`, up to the first that breaks the stream."""
    outcome = Expected()
    known: set[str] = set()
    rest = memoryview(data)
    while len(rest) >= 4 and not outcome.is_broken:
        length = int.from_bytes(rest[:4], "big")
        payload, rest = bytes(rest[4 : 4 + length]), rest[4 + length :]
        if length == 0 or length > 1_000_000:
            outcome.is_broken = True
        elif len(payload) == length:
            reason, tick = judge(payload, known, max_symbols, any_price)
            if reason is None:
                outcome.accepted.append((outcome.frames, *tick))
            else:
                outcome.refused.append((outcome.frames, reason))
            outcome.frames += 1
    return outcome


def judge(
    payload: bytes, known: set[str], max_symbols: int, any_price: bool
) -> tuple[str | None, tuple]:
    """Return why a payload is refused, or None and the tick, whose symbol joins the known."""
    tick = tick_pb2.Tick()
    try:
        tick.ParseFromString(payload)
    except DecodeError:
        return "malformed", ()
    symbol = tick.symbol.strip().upper() if tick.symbol.isascii() else ""
    is_symbol = 1 <= len(symbol) <= 70 and symbol.isprintable()
    price = round(tick.price * 1e9) if math.isfinite(tick.price * 1e9) else 2**63
    lowest = -(2**63) + 1 if any_price else 1
    rules = {
        "symbol": is_symbol and (symbol in known or len(known) < max_symbols),
        "price": lowest <= price < 2**63 - 1,
        "volume": tick.volume > 0,
        "timestamp": tick.exchange_timestamp >= 10**17,
    }
    for reason, holds in rules.items():
        if not holds:
            return reason, ()
    known.add(symbol)
    return None, (symbol, price, tick.volume, tick.exchange_timestamp)
