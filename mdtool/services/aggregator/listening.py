"""The aggregation service's gRPC server: the address that it listens on, health and reflection."""

from __future__ import annotations

from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

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
STATUS: Final = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}
"""What health says of a service, by whether it can be used."""


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


def add_health(server: grpc.aio.Server, *services: str) -> health.aio.HealthServicer:
    """Have a server answer calls of health and reflection; return by what its health is set.

    Parameters
    ----------
    server : grpc.aio.Server
        Not started yet.
    services : str
        Full names of what else it serves, which reflection lists.
    """
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return status


def _probe(host: str, port: int) -> None:
    """Bind the address for a moment, for gRPC would not say why it cannot."""
    try:
        bind(host, port).close()
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, host, port) from error
