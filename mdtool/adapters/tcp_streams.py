"""TCP connections of clients to the services whose settings they share."""

from __future__ import annotations

import asyncio
import socket

from mdtool.core.config import peer_switch
from mdtool.core.tls import connect_options
from mdtool.wire.proxy_header import LOCAL_HEADER


async def open_stream(
    service: str, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a service, with TLS and a PROXY protocol header where its settings say so.

    Raises
    ------
    OSError
        When there is no connection.
    UnicodeError
        When the host is not a valid name.
    ConfigError, StartupError
        As `connect_options` does.
    """
    options = connect_options(service, host)
    if not peer_switch(service, "proxy_protocol"):
        return await asyncio.open_connection(host, port, **options)
    connection = await _connect(host, port)
    try:
        await asyncio.get_running_loop().sock_sendall(connection, LOCAL_HEADER)
        return await asyncio.open_connection(sock=connection, **options)
    except BaseException:
        connection.close()
        raise


async def _connect(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that answers."""
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, _, _, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failed = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    assert failed is not None  # getaddrinfo returns at least one
    raise failed
