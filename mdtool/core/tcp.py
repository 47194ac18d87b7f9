"""TCP: servers, ports reserved before anything listens, and connections whose peer has vanished."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Self, TypeAlias

from mdtool.core.addresses import ALL, cannot_listen, format_address
from mdtool.core.descriptors import PAUSE_S, is_shortage, shortage
from mdtool.core.errors import PeerError, StartupError
from mdtool.core.tls import GOODBYE_S, HANDSHAKE_S, NO_TLS, ServerTls, reason_of_tls

log = logging.getLogger(__name__)

_IDLE_S: Final = 10
_INTERVAL_S: Final = 5
_PROBES: Final = 3
_UNANSWERED_MS: Final = (_IDLE_S + _INTERVAL_S * _PROBES) * 1_000

_BACKLOG: Final = 4_096
_ACCEPTED_AT_ONCE: Final = 64
"""Connections that are accepted before others are served."""
_LOOPBACKS: Final = ("127.0.0.1", "::1")
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors of an address that this machine does not have."""
_ATTEMPTS: Final = 16
NO_ADDRESS: Final = "no connection at any address of the host"
_TLS_READ_BYTES: Final = 1 << 20
"""What is read of TLS at once. asyncio's own 256 KB make small batches of what a fast client sends:
ticks came in at 0.58 of the rate of plain TCP, and with this at 0.74."""
_QUIET_S: Final = 60.0
"""How long no further connection of a listener that did not begin is reported."""
Unwrap: TypeAlias = Callable[[socket.socket], Awaitable[socket.socket]]
"""Reads what comes before the protocol of a connection, and returns the socket to continue with.

It raises OSError for a peer that has left, and PeerError to reject one.
"""


class Listener:
    """Accepts connections at every address of a host, until it is closed.

    A server of asyncio's would log a traceback for each connection that waits while the process
    has no descriptor left; this one pauses, and what is connected is served.

    Parameters
    ----------
    sockets : sequence of socket.socket
        Bound, and owned from now on.
    connect : callable
        Makes the protocol of a connection.
    tls : ServerTls, optional
        Of connections that are TLS.
    unwrap : Unwrap, optional
        Reads what a proxy sends first.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        connect: Callable[[], asyncio.BaseProtocol],
        tls: ServerTls | None = None,
        unwrap: Unwrap | None = None,
    ) -> None:
        if tls is not None:
            sslproto.SSLProtocol.max_size = _TLS_READ_BYTES
        self._tls = tls
        self._unwrap = unwrap
        self._failures = 0
        """Connections that did not begin and are not reported."""
        self._reported_s = float("-inf")
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._connect = connect
        self._connecting: set[asyncio.Task[object]] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self.address = format_address(*sockets[0].getsockname()[:2])
        """Its real address, the first where it has several."""
        for bound in sockets:
            bound.setblocking(False)
            bound.listen(_BACKLOG)
            self._loop.add_reader(bound, self._accept, bound)

    def close(self) -> None:
        """Accept no more; connections stay open."""
        for bound in self._sockets:
            if bound.fileno() < 0:
                continue
            self._loop.remove_reader(bound)
            bound.close()
        for pause in self._pauses.values():
            pause.cancel()
        if self._unwrap is not None:  # a proxy may be silent for seconds
            for connecting in self._connecting:
                connecting.cancel()

    def _accept(self, bound: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if not is_shortage(error):
                    raise
                self._pause(bound, error)
                return
            accepted.setblocking(False)
            connecting = self._loop.create_task(self._begin(accepted))
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        peer, options = "", dict[str, Any]()
        try:
            if self._tls is not None or self._unwrap is not None:
                peer = format_address(*accepted.getpeername()[:2])
            if self._unwrap is not None:
                accepted = await self._unwrap(accepted)
            if self._tls is not None:
                options = {
                    "ssl": self._tls.context,
                    "ssl_handshake_timeout": HANDSHAKE_S,
                    "ssl_shutdown_timeout": GOODBYE_S,
                }
            await self._loop.connect_accepted_socket(self._connect, accepted, **options)
        except OSError as error:  # a client that has left, or whose handshake failed
            accepted.close()
            if isinstance(error, ssl.SSLError):
                reason = reason_of_tls(error)
                advice = "; clients of this port need TLS" if reason == NO_TLS else ""
                self._report(peer, reason + advice)
            else:
                log.debug("no connection at %s: %s", self.address, error)
        except PeerError as error:
            accepted.close()
            self._report(peer, str(error))
        except asyncio.CancelledError:
            accepted.close()
            raise

    def _report(self, peer: str, reason: str) -> None:
        """Report a connection that did not begin, once a minute at most."""
        self._failures += 1
        now_s = self._loop.time()
        if now_s - self._reported_s < _QUIET_S:
            return
        others = f" ({self._failures - 1} others before)" if self._failures > 1 else ""
        log.warning("%s: rejected %s: %s%s", self.address, peer, reason, others)
        self._failures, self._reported_s = 0, now_s

    def _pause(self, bound: socket.socket, error: OSError) -> None:
        shortage.note(format_address(*bound.getsockname()[:2]), error)
        self._loop.remove_reader(bound)
        self._pauses[bound] = self._loop.call_later(
            PAUSE_S, self._loop.add_reader, bound, self._accept, bound
        )


async def listen(
    connect: Callable[[], asyncio.BaseProtocol],
    host: str,
    port: int,
    option: str = "--port",
    *,
    shares_port: bool = False,
    tls: ServerTls | None = None,
    unwrap: Unwrap | None = None,
) -> Listener:
    """Listen, and have `connect` make the protocol of each connection.

    Parameters
    ----------
    connect : callable
    host, port, shares_port : str, int and bool
        As of `bind`.
    option : str
        The one that selects another port.
    tls : ServerTls, optional
        Of connections that are TLS.
    unwrap : Unwrap, optional
        As of `Listener`.

    Raises
    ------
    StartupError
        When the address cannot be listened on.
    """
    try:
        sockets = bind(host, port, shares_port=shares_port)
        try:
            return Listener(sockets, connect, tls, unwrap)
        except OSError:  # two servers may be bound to a port, and one of them listens
            close_all(sockets)
            raise
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, host, port, option) from error


def stream_protocol(
    tasks: asyncio.TaskGroup,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> Callable[[], asyncio.BaseProtocol]:
    """Return what makes the protocol of connections that are read and written as streams.

    Parameters
    ----------
    tasks : asyncio.TaskGroup
        Where each connection is served.
    serve : callable
        Serves one, and does not raise whatever its client does.
    """

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = serve(reader, writer)
        try:
            tasks.create_task(serving)
        except RuntimeError:  # it was accepted just before the end
            serving.close()
            writer.transport.abort()

    return lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), connected)


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Return the address of a connection's peer, which one that is lost already does not have."""
    peer = transport.get_extra_info("peername")
    return format_address(*peer[:2]) if peer else "a disconnected client"


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


def pause_when_behind(transport: asyncio.Transport) -> None:
    """Have a connection that begins pause writing whenever its peer has not taken everything.

    The end of a handshake is not sent yet when asyncio's TLS makes a connection; a protocol that
    reads no more while it is paused would keep it from being sent. There, a limit of 0 is also
    reached while nothing is written.
    """
    if transport.get_extra_info("sslcontext") is None:
        transport.set_write_buffer_limits(high=0)
        return

    def limit() -> None:
        if not transport.is_closing():
            transport.set_write_buffer_limits(high=1, low=0)

    asyncio.get_running_loop().call_soon(limit)


def reason_of(error: OSError) -> str:
    """Return in words why there is no connection; asyncio's own texts are about sockets."""
    if isinstance(error, ssl.SSLError):
        return reason_of_tls(error)
    if error.errno is not None and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    if str(error).startswith("Multiple exceptions"):  # asyncio's, for a host of many addresses
        return NO_ADDRESS
    return error.strerror or str(error)


def bind(host: str, port: int, *, shares_port: bool = False) -> list[socket.socket]:
    """Return sockets that are bound as a server's are, but do not listen: one for each address.

    Parameters
    ----------
    host : str
        `0.0.0.0` stands for all IPv4 addresses, `::` or nothing for all of both families, and
        `localhost` for 127.0.0.1 and ::1, whatever the system's file of hosts has.
    port : int
        0 selects one that is free at all of these addresses.
    shares_port : bool
        Whether other processes listen there, too: the system gives each a share of connections.

    Raises
    ------
    OSError
        When the host is not an address of this machine, or the port is in use.
    UnicodeError
        When the host is not a valid name.
    """
    names = _LOOPBACKS if host.lower() == "localhost" else (host or ALL,)
    found = [
        (family, address)
        for name in names
        for family, _, _, _, address in socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    ]
    addresses = list(dict.fromkeys(found))
    for _ in range(_ATTEMPTS - 1):
        try:
            return _bind_each(addresses, shares_port)
        except OSError as error:
            # A free port of one address may be in use at another.
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bind_each(addresses, shares_port)


def _bind_each(addresses: Sequence[tuple[int, Any]], shares_port: bool) -> list[socket.socket]:
    """Bind what exists of several addresses, to the port of the first."""
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, (host, port, *more) in addresses:
            own_port = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bind_one(family, (host, own_port, *more), shares_port))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
    except OSError:
        close_all(sockets)
        raise
    if not sockets:
        assert absent is not None
        raise absent
    return sockets


def _bind_one(family: int, address: Any, shares_port: bool) -> socket.socket:
    # asyncio sends small writes at once (TCP_NODELAY) only where the protocol is named.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != ALL))
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close sockets."""
    for each in sockets:
        each.close()


class ReservedPort:
    """A free port of a host that is reserved for another process. A context manager.

    Its sockets are bound but do not listen. While they are open the kernel gives the port to no
    socket that asks for any free one, but lets one that allows address reuse, as a server's does,
    listen on it: every process can be given all addresses before the first one runs, and one that
    is restarted gets its port again.

    Raises
    ------
    StartupError
        When `host` is not an address of this machine.
    """

    def __init__(self, host: str) -> None:
        try:
            self._sockets = bind(host, 0)
        except OSError as error:
            raise StartupError(f"cannot listen on {host}: {error.strerror}") from error
        except UnicodeError as error:
            raise cannot_listen(error, host, 0) from error
        self.port: int = self._sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the reservation."""
        close_all(self._sockets)
