"""Settings of the TCP ingest server, `[serve-tcp]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import setting
from mdtool.core.units import PRICES
from mdtool.services.aggregator.peer import aggregator_address, aggregator_socket
from mdtool.services.metrics import metrics_port
from mdtool.services.proxied import proxy_protocol


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """Where the server listens, where it hands ticks to, and what bounds its memory."""

    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    metrics_port: int | None = metrics_port()
    port: int = setting(
        50050, "Port to listen on, 0 for any free one.", low=0, high=65535, is_common=True
    )
    aggregator: str = aggregator_address()
    aggregator_socket: str = aggregator_socket()
    bus: str = setting("", "Produce ticks to kafka://HOST:PORT instead of an aggregator.")
    prices: str = setting(
        PRICES[0],
        "Prices that ticks may have: spreads also trade at 0 and below.",
        choices=PRICES,
        is_common=True,
    )
    proxy_protocol: bool = proxy_protocol()
    max_uncommitted: int = setting(
        262_144, "Uncommitted ticks at which clients are blocked by backpressure.", low=1
    )
    max_symbols: int = setting(
        20_000, "Symbols at most; ticks of further ones are refused.", low=1, high=1_000_000
    )
