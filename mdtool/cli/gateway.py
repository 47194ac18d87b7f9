"""`mdtool gateway`: REST and WebSockets in front of the aggregator."""

from __future__ import annotations

import typer

from mdtool.cli.options import with_settings
from mdtool.services.gateway.config import GatewayConfig

app = typer.Typer(add_completion=False)


@app.command()
@with_settings(GatewayConfig, "gateway")
def gateway(config: GatewayConfig) -> int:
    """Publish the market over HTTP: REST, WebSockets, GraphQL, STOMP, health and metrics.

    Example: mdtool gateway --port 8080 --aggregator 127.0.0.1:50051
    """
    from mdtool.core.lifecycle import run_service
    from mdtool.services.gateway.server import Gateway

    return run_service(Gateway(config))
