"""TCP sockets: bound before anything listens, and ended when the other end has vanished."""

from __future__ import annotations

import os
import socket
from typing import Final

_IDLE_S: Final = 10
_INTERVAL_S: Final = 5
_PROBES: Final = 3
_UNANSWERED_MS: Final = (_IDLE_S + _INTERVAL_S * _PROBES) * 1_000

NO_ADDRESS: Final = "no connection at any address of the host"


def notice_loss(connection: socket.socket) -> None:
    """Have the system end a connection whose peer's machine has not answered for half a minute.

    A peer that only does not read goes on answering, and is waited for.
    """
    options = {"TCP_KEEPINTVL": _INTERVAL_S, "TCP_KEEPCNT": _PROBES}
    options["TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"] = _IDLE_S
    options["TCP_USER_TIMEOUT"] = _UNANSWERED_MS  # of Linux
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def reason_of(error: OSError) -> str:
    """Return in words why there is no connection: asyncio's own errors tell more of sockets."""
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    if str(error).startswith("Multiple exceptions"):  # asyncio's, for a host of many addresses
        return NO_ADDRESS
    return error.strerror or str(error)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, as a server's would be, and does not listen.

    Raises
    ------
    OSError
        When the host is no address of this machine, or the port is taken.
    UnicodeError
        When the host can be no name.
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
