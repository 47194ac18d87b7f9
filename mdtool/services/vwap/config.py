"""Settings of the VWAP feed, `[vwap]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import setting
from mdtool.services.aggregator.peer import aggregator_address, aggregator_socket
from mdtool.services.metrics import metrics_port
from mdtool.services.proxied import proxy_protocol


@dataclass(frozen=True, slots=True)
class VwapConfig:
    """The window, the source of trades, and the limits of clients."""

    window: str = setting(
        "100", "Window of each VWAP: a number of trades, or a time such as 5m.", is_common=True
    )
    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    metrics_port: int | None = metrics_port()
    port: int = setting(
        8888, "Port to listen on, 0 for any free one.", low=0, high=65535, is_common=True
    )
    aggregator: str = aggregator_address()
    aggregator_socket: str = aggregator_socket()
    bus: str = setting("", "Consume trades from kafka://HOST:PORT instead of the aggregator.")
    proxy_protocol: bool = proxy_protocol()
    store: str = setting(
        "",
        "URL of the aggregator's store, from which windows are restored at the start.",
        is_common=True,
    )
    max_trades: int = setting(
        10_000_000,
        "Trades of a symbol in a window by time, at most; beyond it the oldest are dropped.",
        low=1,
        high=1_000_000_000,
    )
    max_clients: int = setting(10_000, "Open connections at most; more are rejected.", low=1)
    slow_client_s: float = setting(
        10.0, "How long a client may stop reading before it is closed.", low=0.01, high=3_600.0
    )
