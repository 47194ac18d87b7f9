"""TLS connections that another worker serves: encrypted here, and relayed over Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from mdtool.services.http.listening import STOP_GRACE_S, HttpConnection

_BUFFER_BYTES: Final = 1 << 16
"""What waits for one end, before the other is read no more."""
_OF_PEER: Final = ("peername", "peercert")
"""What is looked up of a client's end of a connection."""


class Relays:
    """The connections that are relayed. A context manager, which waits for their ends.

    The state of TLS is this process's: its sockets cannot be passed on as those without it are.
    """

    def __init__(self) -> None:
        self._clients: set[_End] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE_S):  # other workers end what they serve
                await self._is_idle.wait()
        except TimeoutError:
            for client in list(self._clients):
                client.abort()

    async def begin(self, connection: HttpConnection) -> socket.socket:
        """Relay a connection that a request came by, and nothing was answered to.

        Returns
        -------
        socket.socket
            The end for the process that serves it. The caller closes it.

        Raises
        ------
        OSError
            For lack of descriptors.
        """
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(theirs.close)
            ours.setblocking(False)
            server, client = _End(), _End(self._ended)
            server.other, client.other = client, server
            await asyncio.get_running_loop().connect_accepted_socket(lambda: server, ours)
            transport = connection.release()
            if transport is None or transport.is_closing():
                server.close()
            else:
                self._clients.add(client)
                self._is_idle.clear()
                transport.set_protocol(client)
                client.connection_made(transport)
                transport.resume_reading()
            stack.pop_all()
        return theirs

    def _ended(self, client: _End) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._is_idle.set()


class _End(asyncio.Protocol):
    """One of the two connections of a relay: what it receives, the other writes.

    Parameters
    ----------
    ended : callable, optional
        Called once it has ended.

    Attributes
    ----------
    other : _End
    """

    other: _End

    def __init__(self, ended: Callable[[_End], None] | None = None) -> None:
        self._ended = ended
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        if (transport := self.other.open_transport()) is not None:
            transport.write(data)

    def pause_writing(self) -> None:
        if (transport := self.other.open_transport()) is not None:
            transport.pause_reading()

    def resume_writing(self) -> None:
        if (transport := self.other.open_transport()) is not None:
            transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self.other.close()
        if self._ended is not None:
            self._ended(self)

    def open_transport(self) -> asyncio.Transport | None:
        """Return its transport, None where it has yet to begin, or closes."""
        transport = self._transport
        return None if transport is None or transport.is_closing() else transport

    def close(self) -> None:
        """Close it once everything is written."""
        if (transport := self.open_transport()) is not None:
            transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()


class RelayedTransport:
    """The transport of a connection that another worker relays: its peer is the client of that.

    Parameters
    ----------
    transport : asyncio.Transport
        Of the Unix socket.
    peer : mapping
        As `peer_of` returns it.
    """

    def __init__(self, transport: asyncio.Transport, peer: Mapping[str, Any]) -> None:
        self._transport = transport
        self._peer = peer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of the client's own connection, in what concerns its peer."""
        return (
            self._peer.get(name, default)
            if name in _OF_PEER
            else self._transport.get_extra_info(name, default)
        )


def peer_of(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """Return what is looked up of a connection's peer, as JSON has it."""
    return {name: transport.get_extra_info(name) for name in _OF_PEER}
