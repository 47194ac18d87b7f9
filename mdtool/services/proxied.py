"""Listeners behind a TCP proxy, whose clients have the addresses that the proxy says they have."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from mdtool.core.config import setting
from mdtool.wire.proxy_header import Origin, ProxyHeaderError, decode_header, missing_bytes

if TYPE_CHECKING:
    from mdtool.core.tcp import Unwrap

HEADER_S: Final = 5.0
"""How long a header may take; a proxy sends it at once."""


def proxy_protocol() -> Any:
    """Return the setting of a listener behind a TCP proxy."""
    return setting(
        False,
        "Have each connection begin with a PROXY protocol header, and take the client's "
        "address from it: behind a TCP proxy, which alone may reach the port.",
    )


def unwrap(proxy_protocol: bool) -> Unwrap | None:
    """Return what reads the header of each connection of a listener, None where there is none."""
    return _read_header if proxy_protocol else None


class _PassedOn(socket.socket):
    """A proxy's connection, whose peer is the client that the proxy names."""

    __slots__ = ("_origin",)

    def __init__(self, accepted: socket.socket, origin: Origin) -> None:
        super().__init__(fileno=accepted.detach())
        self.setblocking(False)
        self._origin = origin

    def getpeername(self) -> Any:
        """Return the client's address."""
        return tuple(self._origin)


async def _read_header(accepted: socket.socket) -> socket.socket:
    """Read a connection's header, and not a byte more; return the connection of its client."""
    import asyncio  # filters have the setting too, and no event loop

    loop = asyncio.get_running_loop()
    data = b""
    try:
        async with asyncio.timeout(HEADER_S):
            while missing := missing_bytes(data):
                received = await loop.sock_recv(accepted, missing)
                if not received:
                    raise ConnectionResetError("closed before its header was whole")
                data += received
    except TimeoutError as error:
        raise ProxyHeaderError(f"no PROXY protocol header within {HEADER_S:g} s") from error
    origin = decode_header(data)
    return accepted if origin is None else _PassedOn(accepted, origin)
