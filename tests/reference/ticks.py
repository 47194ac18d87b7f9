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
    refused: list[tuple[int, str]] = field(default_factory=list)
    frames: int = 0
    broken: str | None = None
    rest: bytes = b""


def reason_for(payload: bytes, known: set[str], max_symbols: int) -> tuple[str | None, tuple]:
    """Return why a payload is refused (None when it is not), and the tick when it is not."""
    tick = tick_pb2.Tick()
    try:
        tick.ParseFromString(payload)
    except DecodeError:
        return "malformed", ()
    symbol = tick.symbol.strip().upper() if tick.symbol.isascii() else ""
    if not 1 <= len(symbol) <= 70 or not symbol.isprintable():
        return "symbol", ()
    if symbol not in known and len(known) >= max_symbols:
        return "symbol", ()
    if not math.isfinite(tick.price) or not 1e-10 < tick.price < 1e10:
        return "price", ()
    price = round(tick.price * 1e9)
    if not 1 <= price < 2**63 - 1:
        return "price", ()
    if tick.volume <= 0:
        return "volume", ()
    if tick.exchange_timestamp < 10**17:
        return "timestamp", ()
    known.add(symbol)
    return None, (symbol, price, tick.volume, tick.exchange_timestamp)


def decode(
    data: bytes,
    known: set[str] | None = None,
    max_symbols: int = 1_000_000,
    max_frame_bytes: int = 1_000_000,
) -> Expected:
    """Return the outcome of the frames in `data`, up to the first that breaks the stream."""
    known = set() if known is None else known
    outcome = Expected()
    while len(data) >= 4:
        length = int.from_bytes(data[:4], "big")
        if length == 0 or length > max_frame_bytes:
            outcome.broken = "control" if length >= 2**31 else "length"
            break
        if len(data) < 4 + length:
            break
        reason, tick = reason_for(data[4 : 4 + length], known, max_symbols)
        if reason is None:
            outcome.accepted.append((outcome.frames, *tick))
        else:
            outcome.refused.append((outcome.frames, reason))
        outcome.frames += 1
        data = data[4 + length :]
    outcome.rest = data
    return outcome
