"""Aggregates as messages of MarketDataService, which have prices as doubles."""

from __future__ import annotations

from mdtool.core.units import PRICE_SCALE
from mdtool.wire._pb import marketdata_pb2


def encode_aggregate(
    symbol: str, opened: int, high: int, low: int, close: int, volume: int, timestamp_ns: int
) -> marketdata_pb2.Aggregate:
    """Return the message of a symbol's session, whose prices are given at 1e-9."""
    return marketdata_pb2.Aggregate(
        symbol=symbol,
        open=opened / PRICE_SCALE,
        high=high / PRICE_SCALE,
        low=low / PRICE_SCALE,
        close=close / PRICE_SCALE,
        volume=volume,
        timestamp=timestamp_ns,
    )
