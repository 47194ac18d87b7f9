"""The address that the aggregation service's gRPC server listens on."""

from __future__ import annotations

from typing import Final

import grpc.aio

from mdtool.adapters import rpc
from mdtool.core.addresses import cannot_listen, format_address
from mdtool.core.errors import StartupError
from mdtool.core.tcp import bind

OPTIONS: Final = (
    *rpc.OPTIONS,
    # Two servers on one port would each see half of the ticks.
    ("grpc.so_reuseport", 0),
    # A peer whose machine is gone is noticed, and its call ended.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Peers may look as often, also between calls.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


def listen(server: grpc.aio.Server, host: str, port: int) -> str:
    """Bind the server; return the real address.

    Raises
    ------
    StartupError
        When that cannot be.
    """
    _probe(host, port)
    try:
        return format_address(host, server.add_insecure_port(format_address(host, port)))
    except RuntimeError as error:
        raise StartupError(f"cannot listen on port {port} of {host}: {error}") from error


def _probe(host: str, port: int) -> None:
    """Bind the address for a moment, for gRPC would not say why it cannot."""
    try:
        bind(host, port).close()
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, host, port) from error
