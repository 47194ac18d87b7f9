"""Settings of the aggregation service, `[aggregate]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.buckets import MIDNIGHT
from mdtool.core.config import setting
from mdtool.core.units import PRICES
from mdtool.services.metrics import metrics_port

INTERVALS: Final = ("1s", "1m", "5m", "1h", "1d")
"""The durations of the time bars."""
_CALENDAR: Final = re.compile(r"\d+(w|mo)")


def calendar_advice(interval: str) -> str:
    """Return what to do for weeks and months, of which no bars are kept; nothing for others."""
    if _CALENDAR.fullmatch(interval) is None:
        return ""
    return "; mdtool aggregate INPUT --interval makes bars of 1w and 1mo"


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """Where the service listens, where it keeps its state, and what bounds that."""

    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    metrics_port: int | None = metrics_port()
    port: int = setting(
        50051, "Port to listen on, 0 for any free one.", low=0, high=65535, is_common=True
    )
    socket: str = setting(
        "",
        "Path of a Unix socket, on which services of this machine exchange ticks and updates at "
        "less cost than over gRPC.",
    )
    store: str = setting(
        "",
        "URL of the store, such as sqlite:///PATH; without one, state and trades are in memory.",
        is_common=True,
    )
    bus: str = setting(
        "",
        "Consume ticks from kafka://HOST:PORT and store state there, as a member of a group.",
        is_common=True,
    )
    session: str = setting(
        MIDNIGHT,
        "When sessions begin, HH:MM and a time zone, such as '17:00 America/Chicago'; or never. "
        "From 12:00 on, a session is that of the next day.",
        is_common=True,
    )
    session_ms: int = setting(
        10_000,
        "With --bus, the session timeout, after which a silent member's partitions are reassigned.",
        low=1_000,
        high=1_800_000,
    )
    tick_prices: str = setting(
        PRICES[0],
        "Prices that ticks of StreamTicks may have; batches have any.",
        choices=PRICES,
        is_common=True,
    )
    max_uncommitted: int = setting(
        262_144, "Uncommitted ticks at which senders are blocked by backpressure.", low=1
    )
    max_symbols: int = setting(
        20_000, "Symbols at most; ticks of further ones are refused.", low=1, high=1_000_000
    )
    max_streams: int = setting(
        100_000,
        "Ingest streams whose position is remembered; the longest idle is forgotten first.",
        low=1,
    )
    max_calls: int = setting(5_000, "Concurrent gRPC calls.", low=1)
    bars_kept: int = setting(1_440, "Bars kept of each symbol and interval.", low=1, high=1_000_000)
    bars_lateness_ms: int = setting(
        10_000, "How long after its end a 1s bar still accepts late ticks.", low=0
    )
