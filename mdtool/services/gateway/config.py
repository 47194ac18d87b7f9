"""Settings of the gateway, `[gateway]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.core.config import setting


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the gateway listens, whom it asks, and what bounds its clients."""

    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "Port to listen on, 0 for any free one.", low=0, high=65535)
    aggregator: str = setting("127.0.0.1:50051", "HOST:PORT of the aggregation service.")
    sender: str = setting("127.0.0.1:8081", "HOST:PORT of replay-dbn --serve, its HTTP.")
    receiver: str = setting("127.0.0.1:8082", "HOST:PORT of book --serve.")
    timeout_ms: int = setting(
        2_000, "How long any of these may take to answer.", low=1, high=600_000
    )
    max_sockets: int = setting(10_000, "WebSockets open at once; more are refused.", low=0)
    slow_client_s: int = setting(
        10, "How long a WebSocket client may read nothing before it is closed.", low=1, high=3_600
    )
