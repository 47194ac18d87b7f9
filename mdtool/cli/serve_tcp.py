"""`mdtool serve-tcp`: the TCP ingest server."""

from __future__ import annotations

import typer

from mdtool.cli.options import with_settings
from mdtool.services.ingest.config import IngestConfig

app = typer.Typer(add_completion=False)


@app.command()
@with_settings(IngestConfig, "serve-tcp")
def serve_tcp(config: IngestConfig) -> int:
    """Ingest Tick frames over TCP: validate them, and forward them to the aggregator.

    Example: mdtool serve-tcp --port 50050 --aggregator 127.0.0.1:50051
    """
    from mdtool.core.lifecycle import run_service
    from mdtool.services.ingest.server import IngestServer

    return run_service(IngestServer(config))
