"""`serve --ready`: whether running services can be used, for health checks of containers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from mdtool.adapters.tcp_streams import open_stream
from mdtool.core.addresses import parse_address
from mdtool.core.errors import PeerError
from mdtool.core.lifecycle import one_error
from mdtool.core.tcp import reason_of
from mdtool.core.tls import http_options

TIMEOUT_S: Final = 5.0
"""How long a service may take to answer."""
_HTTP: Final = frozenset({"gateway", "replay-dbn", "book"})
_GRPC: Final = "aggregate"


async def ready(where: Mapping[str, str]) -> None:
    """Return once services have answered that they are ready; nothing of them changes.

    Those of HTTP are requested `/readyz`, that of gRPC its health, and the others a connection.

    Parameters
    ----------
    where : mapping
        The `HOST:PORT` of each.

    Raises
    ------
    PeerError
        When one of them is not ready, or does not answer in time.
    """
    with one_error():
        async with asyncio.TaskGroup() as tasks:
            for name, address in where.items():
                tasks.create_task(_in_time(name, address))


async def _in_time(name: str, address: str) -> None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if name in _HTTP:
                reason = await _of_http(name, address)
            elif name == _GRPC:
                reason = await _of_grpc(address)
            else:
                reason = await _of_tcp(name, address)
    except TimeoutError:
        reason = f"no answer within {TIMEOUT_S:g} s"
    if reason:
        raise PeerError(f"{name} {address} is not ready: {reason}")


async def _of_http(name: str, address: str) -> str:
    """Return why a service is not ready, empty where it is."""
    import aiohttp  # heavy, and of no use to the check of others

    tls = http_options(name, address)
    url = f"{'https' if tls else 'http'}://{address}/readyz"
    try:
        async with aiohttp.ClientSession() as session, session.get(url, **tls) as response:
            text = await response.text()
    except aiohttp.ClientConnectorError as error:
        return reason_of(error.os_error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return str(error)
    return "" if response.ok else text.strip()


async def _of_grpc(address: str) -> str:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from mdtool.adapters import rpc

    async with rpc.open_channel(address) as channel:
        try:
            with rpc.cancellable():
                answer = await health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest()
                )
        except grpc.aio.AioRpcError as error:
            return rpc.reason(error)
    status = health_pb2.HealthCheckResponse
    return "" if answer.status == status.SERVING else str(status.ServingStatus.Name(answer.status))


async def _of_tcp(name: str, address: str) -> str:
    try:
        _, writer = await open_stream(name, *parse_address(address))
    except OSError as error:
        return reason_of(error)
    writer.close()
    return ""
