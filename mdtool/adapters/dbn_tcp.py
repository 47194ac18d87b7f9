"""DBN streams read from a TCP server that sends one to whoever connects."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

from mdtool.adapters.dbn_source import DbnSource
from mdtool.core.addresses import format_address
from mdtool.core.errors import InputError, PeerError

_CONNECT_TIMEOUT_S: Final = 5.0
_RECEIVE_BUFFER_BYTES: Final = 1 << 20


def connect_source(host: str, port: int) -> DbnSource:
    """Connect to a server and read its stream's metadata.

    Closing the source ends a read that waits in another thread.

    Raises
    ------
    PeerError
        When nobody takes the connection.
    InputError
        When what comes is no DBN stream. Iterating raises it where the connection breaks.
    """
    name = format_address(host, port)
    try:
        connection = socket.create_connection((host, port), _CONNECT_TIMEOUT_S)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PeerError(f"{name}: {reason}; is a sender running there?") from error
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def read(n_bytes: int) -> bytes:
        try:
            return connection.recv(n_bytes)
        except OSError as error:
            raise InputError(f"{name}: the connection broke ({error.strerror})") from error

    def close() -> None:
        with contextlib.suppress(OSError):  # the other end was first
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    return DbnSource(name, read, close)
