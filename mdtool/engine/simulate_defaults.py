"""Defaults and limits of the synthetic exchange."""

from __future__ import annotations

from typing import Final

from mdtool.core.units import parse_time

SCHEMAS: Final = ("mbo", "trades", "mbp-1")
FAULTS: Final = ("jump", "burst", "off-quote", "crossed", "spread", "stale", "gap", "band")
SYMBOLS: Final = ("AAPL", "MSFT", "GOOG", "AMZN", "TSLA")
SEED: Final = 0
RATE: Final = 1000.0
"""Events a second, over all symbols."""
START: Final = "2025-01-02T14:30:00Z"
"""A fixed moment, so that the same command always writes the same records."""
START_NS: Final = parse_time(START)

MAX_SYMBOLS: Final = 2_000
MAX_SEED: Final = 2**64 - 1
MIN_RATE: Final = 0.01
MAX_RATE: Final = 1e8
MIN_START_NS: Final = parse_time("1971-01-01")
MAX_START_NS: Final = parse_time("2200-01-01")
END_NS: Final = parse_time("2261-01-01")
"""The end of every market, a year before nanoseconds overflow int64."""

DATASET: Final = "MDTOOL.SIM"
PUBLISHER_ID: Final = 65_000
"""A number that no venue has."""
EVENTS_PER_TRADE: Final = 15.6
"""How many events come for each trade, on average."""
