"""Free ports, chosen before the processes that will listen on them exist."""

from __future__ import annotations

import socket

from mdtool.core.errors import StartupError
from mdtool.core.tcp import bind


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
        return bind(host, 0)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}: {error.strerror}") from error
