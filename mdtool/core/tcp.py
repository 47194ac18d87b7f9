"""TCP: servers, ports reserved before anything listens, and connections whose peer has vanished."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

from mdtool.core.addresses import cannot_listen, format_address
from mdtool.core.errors import StartupError

_IDLE_S: Final = 10
_INTERVAL_S: Final = 5
_PROBES: Final = 3
_UNANSWERED_MS: Final = (_IDLE_S + _INTERVAL_S * _PROBES) * 1_000

_BACKLOG: Final = 4_096
NO_ADDRESS: Final = "no connection at any address of the host"


async def listen(
    connect: Callable[[], asyncio.BaseProtocol], host: str, port: int
) -> asyncio.Server:
    """Listen, and have `connect` make the protocol of each connection.

    Raises
    ------
    StartupError
        When the address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(connect, host, port, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, host, port) from error


def address_of(server: asyncio.Server) -> str:
    """Return the real address of a server, the first where it has several."""
    return format_address(*server.sockets[0].getsockname()[:2])


def notice_loss(connection: socket.socket) -> None:
    """Let the system end a connection whose peer's machine has not answered for half a minute.

    A peer that stopped reading still answers, and keeps its connection.
    """
    options = {"TCP_KEEPINTVL": _INTERVAL_S, "TCP_KEEPCNT": _PROBES}
    options["TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"] = _IDLE_S
    options["TCP_USER_TIMEOUT"] = _UNANSWERED_MS  # Linux only
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reason_of(error: OSError) -> str:
    """Return in words why there is no connection; asyncio's own texts are about sockets."""
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    if str(error).startswith("Multiple exceptions"):  # asyncio's, for a host of many addresses
        return NO_ADDRESS
    return error.strerror or str(error)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound as a server's is, but does not listen.

    Raises
    ------
    OSError
        When the host is not an address of this machine, or the port is in use.
    UnicodeError
        When the host is not a valid name.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def reserve_port(host: str) -> socket.socket:
    """Return a socket that reserves a free port of `host` for another process to listen on.

    The socket is bound but does not listen. While it is open the kernel gives its port to no
    socket that asks for any free one, but lets one that allows address reuse, as a server's does,
    listen on it: every process can be given all addresses before the first one runs, and one that
    is restarted gets its port again.

    Raises
    ------
    StartupError
        When `host` is not an address of this machine.
    """
    try:
        return bind(host, 0)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}: {error.strerror}") from error
