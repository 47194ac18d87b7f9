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
    graphql_introspection: bool = setting(True, "Whether GraphQL clients may ask for the schema.")
    graphql_max_depth: int = setting(20, "How deep fields of a document may nest.", low=1, high=100)
    graphql_max_aliases: int = setting(30, "Aliases that a document may have.", low=0)
    graphql_max_complexity: int = setting(
        20_000, "Fields that a response may have, each row of a list counted.", low=1
    )
    graphql_max_body_bytes: int = setting(
        1 << 20, "How long a GraphQL request may be.", low=1, high=1 << 30
    )
    graphiql_assets: str = setting(
        "https://cdn.jsdelivr.net/npm",
        "Where GraphiQL comes from: a URL with npm packages, or a folder node_modules.",
    )
