"""Free ports, chosen before the processes that will listen on them exist."""

from __future__ import annotations

import socket

from mdtool.core.errors import StartupError


def reserve_port(host: str) -> socket.socket:
    """Return a socket that holds a free port of `host` for a child process to listen on.

    The socket is bound but does not listen. As long as it is open the kernel gives its port to
    nobody who asks for any free one, but lets a socket that allows address reuse (a server's does)
    listen on it: so every process can be told all addresses before the first one runs, and one
    that is restarted finds its port again.

    Raises
    ------
    StartupError
        When `host` is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        holder = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}: {error.strerror}") from error
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(address)
    except OSError as error:
        holder.close()
        raise StartupError(f"cannot listen on {host}: {error.strerror}") from error
    return holder
