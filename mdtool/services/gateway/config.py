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
    bus: str = setting(
        "", "Instead of the aggregation service: kafka://HOST:PORT, where aggregates are."
    )
    bars_kept: int = setting(
        1_440, "With --bus, bars kept of each symbol and interval.", low=1, high=1_000_000
    )
    sender: str = setting("127.0.0.1:8081", "HOST:PORT of replay-dbn --serve, its HTTP.")
    receiver: str = setting("127.0.0.1:8082", "HOST:PORT of book --serve.")
    quotes_from: str = setting(
        "",
        "HOST:PORT of a DBN stream to make quotes of, such as the data port of "
        "replay-dbn --serve; without it they are of last trades.",
    )
    vwap: str = setting("127.0.0.1:8888", "HOST:PORT of the VWAP feed.")
    quotes_hub: str = setting(
        "memory:", "Where quotes are shared: memory:, or redis://HOST:PORT for many gateways."
    )
    store: str = setting(
        "",
        "URL of the store that trades are read from, such as sqlite:///PATH; "
        "without it there is no trade history.",
    )
    timeout_ms: int = setting(
        2_000, "How long any of these may take to answer.", low=1, high=600_000
    )
    max_sockets: int = setting(10_000, "WebSockets open at once; more are refused.", low=0)
    slow_client_s: int = setting(
        10, "How long a WebSocket client may read nothing before it is closed.", low=1, high=3_600
    )
    client_sockets: int = setting(
        1_000, "WebSockets of one client open at once, 0 for any number.", low=0
    )
    client_time_percent: float = setting(
        25.0,
        "How much of the gateway's time, in percent, what one client says may take; 100 for all.",
        low=0.01,
        high=100.0,
    )
    memory_requests_per_s: int = setting(
        1_000,
        "Requests a second of one client, answered from memory; 0 for any number.",
        low=0,
        high=1_000_000_000,
    )
    upstream_requests_per_s: int = setting(
        10,
        "Requests a second of one client that reach the aggregator or the store; 0 for any number.",
        low=0,
        high=1_000_000_000,
    )
    upstream_burst: int = setting(
        20, "How many of those may come at once.", low=1, high=1_000_000_000
    )
    proxies: int = setting(
        0, "How many proxies stand before the gateway and add to X-Forwarded-For.", low=0
    )
    allowed_origins: str = setting(
        "", "Origins whose pages may use the gateway besides its own, with commas; * for all."
    )
    attempts: int = setting(
        3, "How often the aggregator is asked for the same while it is away.", low=1, high=100
    )
    retry_ms: int = setting(500, "How long to wait between two of those.", low=0, high=60_000)
    breaker_window: int = setting(
        10, "How many of the last calls the circuit breaker looks at.", low=1, high=10_000
    )
    breaker_least: int = setting(5, "How many there must be before it opens.", low=1, high=10_000)
    breaker_failed_percent: float = setting(
        50.0, "How many of them, in percent, failed when it opens.", low=0.01, high=100.0
    )
    breaker_open_ms: int = setting(
        5_000, "How long the aggregator is then left alone.", low=1, high=3_600_000
    )
    breaker_trials: int = setting(
        3, "How many calls then show whether it is back.", low=1, high=1_000
    )
    stomp_heart_beat_ms: int = setting(
        10_000, "How often STOMP clients and the gateway beat, 0 for never.", low=0, high=3_600_000
    )
    signaling_listeners: int = setting(
        64, "STOMP clients that may listen in one signaling room.", low=1
    )
    stun_urls: str = setting("", "STUN servers of WebRTC peers, with commas: stun:HOST:PORT.")
    turn_urls: str = setting("", "TURN servers of WebRTC peers, with commas: turn:HOST:PORT.")
    turn_secret: str = setting("", "What the TURN servers know their users' credentials by.")
    turn_ttl_s: int = setting(
        3_600, "How long such credentials can be used.", low=1, high=31_536_000
    )
    graphql_introspection: bool = setting(True, "Let GraphQL clients ask for the schema.")
    graphql_max_depth: int = setting(20, "How deep fields of a document may nest.", low=1, high=100)
    graphql_max_aliases: int = setting(30, "Aliases that a document may have.", low=0)
    graphql_max_complexity: int = setting(
        20_000, "Fields that a response may have, each row of a list counted.", low=1
    )
    graphql_max_body_bytes: int = setting(
        1 << 20, "How long a GraphQL request may be.", low=1, high=1 << 30
    )
    assets: str = setting(
        "https://cdn.jsdelivr.net/npm",
        "Where third-party files of pages come from: a URL with npm packages, or a folder "
        "node_modules.",
        formerly="graphiql_assets",
    )
