"""The speed of decoding, checking and encoding Tick frames, beside protobuf's Python classes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mdtool.bench.figures import Figure, against
from mdtool.core.errors import CheckError
from mdtool.core.symbols import MAX_SYMBOL_CHARS
from mdtool.core.units import MIN_TIMESTAMP_NS, PRICE_SCALE, UNDEF_PRICE
from mdtool.wire._pb import tick_pb2
from mdtool.wire.frames import HEADER_BYTES, MAX_FRAME_BYTES, encode_frame
from mdtool.wire.symbol_index import SymbolIndex
from mdtool.wire.tick_decoder import TickDecoder
from mdtool.wire.tick_encoder import encode_frames

TICKS: Final = 1_000_000
CHUNK_BYTES: Final = 1 << 20
"""As much as a busy connection receives at once."""

_SYMBOLS: Final = ("AAPL", "MSFT", "GOOG", "AMZN", "TSLA")
_START_NS: Final = 1_735_201_234_567_000_000
_ROUNDS: Final = 5


def measure(ticks: int = TICKS) -> list[Figure]:
    """Return how many ticks are decoded and checked, and encoded, in a second of one core.

    The baselines do the same to the same ticks with protobuf's Python classes, one frame at a
    time, in rounds that alternate with those of the kernels; each figure is its median round.
    Each round has a new decoder with an empty symbol table.

    Raises
    ------
    CheckError
        When the two do not agree on the ticks, so that their speeds mean nothing.
    """
    columns = _columns(ticks)
    data = bytes(encode_frames(_SYMBOLS, *columns).data)
    if _decode(data[: len(data) // 100]) != _decode_by_protobuf(data[: len(data) // 100]):
        raise CheckError("the kernel and protobuf decode different ticks")
    if data != _encode_by_protobuf(columns):
        raise CheckError("the kernel and protobuf encode different frames")
    decoded, decoded_by_protobuf = _rates(
        ticks, lambda: _decode(data), lambda: _decode_by_protobuf(data)
    )
    encoded, encoded_by_protobuf = _rates(
        ticks, lambda: encode_frames(_SYMBOLS, *columns), lambda: _encode_by_protobuf(columns)
    )
    baseline = "protobuf's Python classes, frame by frame"
    return [
        against("decode", decoded, "ticks/s", baseline, decoded_by_protobuf),
        against("encode", encoded, "ticks/s", baseline, encoded_by_protobuf),
    ]


def _columns(ticks: int) -> tuple[NDArray[np.int64], ...]:
    """Return symbol, price, volume and timestamp of ticks like those of a market."""
    random = np.random.default_rng(seed=1)
    return (
        random.integers(0, len(_SYMBOLS), ticks),
        random.integers(15_000, 25_000, ticks) * (PRICE_SCALE // 100),
        random.integers(1, 5_000, ticks),
        _START_NS + np.cumsum(random.integers(1, 1_000_000, ticks)),
    )


def _rates(
    ticks: int, first: Callable[[], object], second: Callable[[], object]
) -> tuple[float, float]:
    """Return ticks a second of two functions, called in turns.

    Seconds are the process's own: other load of the machine is not measured.
    """
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(_ROUNDS):
        for way, taken in zip((first, second), seconds, strict=True):
            begun = time.process_time()
            way()
            taken.append(time.process_time() - begun)
    return ticks / median(seconds[0]), ticks / median(seconds[1])


def _decode(data: bytes) -> tuple[int, int]:
    """Return how many ticks were accepted and rejected."""
    decoder = TickDecoder(SymbolIndex())
    view = memoryview(data)
    accepted = rejected = 0
    for start in range(0, len(data), CHUNK_BYTES):
        frames = decoder.feed(view[start : start + CHUNK_BYTES], _START_NS).frames
        accepted += len(frames.trades)
        rejected += len(frames.refused_offset)
    return accepted, rejected


def _decode_by_protobuf(data: bytes) -> tuple[int, int]:
    """Return the same, in plain Python."""
    tick = tick_pb2.Tick()
    accepted = rejected = position = 0
    while position + HEADER_BYTES <= len(data):
        length = int.from_bytes(data[position : position + HEADER_BYTES], "big")
        start = position + HEADER_BYTES
        position = start + length
        if not 0 < length <= MAX_FRAME_BYTES or position > len(data):
            break
        try:
            tick.ParseFromString(data[start:position])
        except DecodeError:
            rejected += 1
            continue
        if _is_valid(tick):
            accepted += 1
        else:
            rejected += 1
    return accepted, rejected


def _is_valid(tick: tick_pb2.Tick) -> bool:
    symbol = tick.symbol.strip().upper()
    scaled = tick.price * PRICE_SCALE
    return (
        0 < len(symbol) <= MAX_SYMBOL_CHARS
        and symbol.isascii()
        and symbol.isprintable()
        and math.isfinite(scaled)
        and 1 <= round(scaled) < UNDEF_PRICE
        and tick.volume > 0
        and tick.exchange_timestamp >= MIN_TIMESTAMP_NS
    )


def _encode_by_protobuf(columns: tuple[NDArray[np.int64], ...]) -> bytes:
    """Return the frames of the ticks, in plain Python."""
    tick = tick_pb2.Tick()
    frames = []
    for symbol, price, volume, timestamp in zip(*(c.tolist() for c in columns), strict=True):
        tick.symbol = _SYMBOLS[symbol]
        tick.price = price / PRICE_SCALE
        tick.volume = volume
        tick.exchange_timestamp = timestamp
        frames.append(encode_frame(tick.SerializeToString()))
    return b"".join(frames)
