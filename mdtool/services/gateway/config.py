"""Settings of the gateway, `[gateway]`."""

from __future__ import annotations

from dataclasses import dataclass

from mdtool.adapters.identity.config import auth_mode
from mdtool.core.config import Peer, setting
from mdtool.services.aggregator.peer import aggregator_address, aggregator_socket
from mdtool.services.alerts.config import webhook, webhook_inside, webhook_secret
from mdtool.services.gateway.proxies import FORWARDED, X_FORWARDED_FOR


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the gateway listens, which services it connects to, and the limits of its clients."""

    host: str = setting("127.0.0.1", "Address to listen on.", is_common=True)
    auth: str | None = auth_mode()
    port: int = setting(
        8080, "Port to listen on, 0 for any free one.", low=0, high=65535, is_common=True
    )
    workers: int = setting(
        1,
        "Processes that serve clients on that port, with limits in common.",
        low=1,
        high=64,
        is_common=True,
    )
    aggregator: str = aggregator_address()
    aggregator_socket: str = aggregator_socket()
    bus: str = setting(
        "", "Read aggregates from kafka://HOST:PORT instead of the aggregation service."
    )
    bars_kept: int = setting(
        1_440, "With --bus, bars kept of each symbol and interval.", low=1, high=1_000_000
    )
    sender: str = setting(
        "127.0.0.1:8081", "HOST:PORT of the HTTP of replay-dbn --serve.", peer=Peer("replay-dbn")
    )
    receiver: str = setting(
        "127.0.0.1:8082", "HOST:PORT of the HTTP of book --serve.", peer=Peer("book")
    )
    quotes_from: str = setting(
        "",
        "HOST:PORT of a DBN stream with quotes, such as the data port of replay-dbn --serve or "
        "the --quotes-at of send; several separated by commas. Without one, quotes have last "
        "trades only.",
    )
    vwap: str = setting(
        "127.0.0.1:8888", "HOST:PORT of the VWAP feed.", peer=Peer("vwap"), is_common=True
    )
    webhook: str = webhook()
    webhook_secret: str = webhook_secret()
    webhook_inside: bool = webhook_inside()
    quotes_hub: str = setting(
        "memory:", "Hub of quotes: memory:, or redis://HOST:PORT to share them among gateways."
    )
    store: str = setting(
        "",
        "URL of the store of trades, such as sqlite:///PATH; without one, only recent "
        "trades are served.",
        is_common=True,
    )
    timeout_ms: int = setting(2_000, "Timeout of requests to any of these.", low=1, high=600_000)
    max_age_ms: int = setting(
        1_000,
        "Age of updates, from ingest to the write to clients, above which /health is degraded.",
        low=1,
        high=3_600_000,
    )
    max_sockets: int = setting(10_000, "Open WebSockets at most; more are rejected.", low=0)
    slow_client_s: int = setting(
        10, "How long a WebSocket client may stop reading before it is closed.", low=1, high=3_600
    )
    client_sockets: int = setting(
        1_000, "Open WebSockets of one client at most; 0 is no limit.", low=0
    )
    client_time_percent: float = setting(
        25.0,
        "Share of the gateway's time, in percent, that messages of one client may take; "
        "100 is no limit.",
        low=0.01,
        high=100.0,
    )
    memory_requests_per_s: int = setting(
        1_000,
        "Requests a second of one client that are answered from memory; 0 is no limit.",
        low=0,
        high=1_000_000_000,
    )
    upstream_requests_per_s: int | None = setting(
        None,
        "Requests a second of one client that reach the aggregator or the store; 0 is no limit. By "
        "default 10, and 1000 of clients on this machine.",
        low=0,
        high=1_000_000_000,
        example=10,
    )
    upstream_burst: int = setting(
        20, "How many of those are allowed at once.", low=1, high=1_000_000_000
    )
    proxies: int = setting(
        0, "Number of proxies in front of the gateway that add to the header of clients.", low=0
    )
    proxy_header: str = setting(
        X_FORWARDED_FOR,
        "Header to which proxies add the address of their client.",
        choices=(X_FORWARDED_FOR, FORWARDED),
    )
    base_path: str = setting(
        "",
        "Path below which a proxy publishes the gateway, such as /market-data; with a proxy that "
        "removes it and sends X-Forwarded-Prefix, none is needed.",
        is_common=True,
    )
    allowed_origins: str = setting(
        "",
        "Other origins whose pages may use the gateway, separated by commas; * is every origin.",
        is_common=True,
    )
    attempts: int = setting(
        3, "Attempts of a request while the aggregator is unavailable.", low=1, high=100
    )
    retry_ms: int = setting(500, "Pause between two attempts.", low=0, high=60_000)
    breaker_window: int = setting(
        10, "Number of latest calls that the circuit breaker considers.", low=1, high=10_000
    )
    breaker_least: int = setting(5, "Calls at least before it can open.", low=1, high=10_000)
    breaker_failed_percent: float = setting(
        50.0, "Share of failed calls, in percent, at which it opens.", low=0.01, high=100.0
    )
    breaker_open_ms: int = setting(5_000, "How long it stays open.", low=1, high=3_600_000)
    breaker_trials: int = setting(
        3, "Trial calls after that, which close it or open it again.", low=1, high=1_000
    )
    stomp_heart_beat_ms: int = setting(
        10_000, "Interval of STOMP heart-beats, 0 for none.", low=0, high=3_600_000
    )
    sockjs_cookie: bool = setting(
        False, "Set the cookie JSESSIONID for SockJS, by which load balancers keep to one gateway."
    )
    signaling_listeners: int = setting(64, "STOMP clients of one signaling room at most.", low=1)
    stun_urls: str = setting(
        "", "STUN servers of WebRTC peers, separated by commas: stun:HOST:PORT."
    )
    turn_urls: str = setting(
        "", "TURN servers of WebRTC peers, separated by commas: turn:HOST:PORT."
    )
    turn_secret: str = setting(
        "", "Shared secret of the TURN servers, from which credentials are made."
    )
    turn_ttl_s: int = setting(3_600, "How long credentials are valid.", low=1, high=31_536_000)
    graphql_introspection: bool = setting(True, "Let GraphQL clients request the schema.")
    graphql_max_depth: int = setting(
        20, "Depth of nested fields of a document at most.", low=1, high=100
    )
    graphql_max_aliases: int = setting(30, "Aliases of a document at most.", low=0)
    graphql_max_complexity: int = setting(
        20_000, "Fields of a response at most, counting each row of a list.", low=1
    )
    graphql_max_body_bytes: int = setting(
        1 << 20, "Size of a GraphQL request at most.", low=1, high=1 << 30
    )
    assets: str = setting(
        "https://cdn.jsdelivr.net/npm",
        "Where pages load third-party files from: a URL with npm packages, or a "
        "node_modules folder.",
        formerly="graphiql_assets",
    )
