"""A gRPC server as the aggregation service runs it, with health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from mdtool.adapters import rpc
from mdtool.adapters.identity.errors import TokenError
from mdtool.core.addresses import ALL, ALL_IPV4, cannot_listen, format_address
from mdtool.core.descriptors import PAUSE_S, check
from mdtool.core.errors import StartupError
from mdtool.core.permissions import ForbiddenError
from mdtool.core.tcp import bind, close_all
from mdtool.core.tls import PeerCertificate, ServerTls, certificate_end
from mdtool.services.aggregator.reflection import add_reflection
from mdtool.services.client import Admission, Client, Dismissal, DismissedError
from mdtool.services.client_address import client_address
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.security import Security

_OPTIONS: Final = (
    *rpc.OPTIONS,
    # Two servers on one port would each receive half of the ticks.
    ("grpc.so_reuseport", 0),
    # A peer whose machine is gone is noticed, and its call ended.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Peers may ping as often, also between calls.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
_STATUS: Final = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}
_ALTERNATIVE_NAMES: Final = "x509_subject_alternative_name"
_COMMON_NAME: Final = "x509_common_name"
_CERTIFICATE: Final = "x509_pem_cert"
_STOP_GRACE_S: Final = 0.5
"""How long calls may continue once the server stops: readers end by themselves, writers resend."""

_CALL_TASK: Final = "_schedule_rpc_coro"
"""What gRPC calls the coroutine of a call."""


class Call:
    """A call of a client that was admitted, as servicers see it.

    Attributes
    ----------
    access : Access
        What the client may read and write.
    """

    __slots__ = ("_client", "_send", "abort", "access", "peer", "send_initial_metadata", "write")

    def __init__(self, context: Any, client: Client) -> None:
        self._client = client
        self.access = client.principal.access
        self.abort, self.peer, self.write = context.abort, context.peer, context.write
        self.send_initial_metadata = context.send_initial_metadata
        if client.is_metered:
            self._send, self.write = context.write, self._metered

    async def _metered(self, message: Any) -> None:
        """Send a message, and wait until its client may be sent more bytes."""
        await self._send(message)
        await self._client.pay(message.ByteSize())

    def note(self, message: Message) -> None:
        """Count a message that the client is sent at once."""
        if self._client.is_metered:
            self._client.spend_bytes(message.ByteSize())

    async def spend(self, message: Message, ticks: int) -> None:
        """Count a message that the client has sent, and wait as long as its quotas say.

        Parameters
        ----------
        message : Message
        ticks : int
            How many it has.
        """
        wait_s = self._client.spend_ticks(ticks)
        if self._client.is_metered:
            wait_s = max(wait_s, self._client.spend_bytes(message.ByteSize()))
        if wait_s:
            await asyncio.sleep(wait_s)


async def _authenticate(client: Client, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Authenticate a client by its call's metadata.

    Raises
    ------
    TokenError, LimitError
        When its token is missing where one is required, is one of several, or is not valid.
    """
    given = [value for key, value in metadata if key == rpc.AUTHORIZATION]
    if given:
        await client.authenticate_now(client.bearer([str(each) for each in given]))
    client.check_token()


def _peer_certificate(context: Any) -> PeerCertificate | None:
    """As `peer_certificate`, of a call."""
    found = context.auth_context() or {}
    names = [each.decode("ascii", "replace") for each in found.get(_ALTERNATIVE_NAMES, ())]
    name = next((name for name in names if not _is_address(name)), None) or next(
        (each.decode("utf-8", "replace") for each in found.get(_COMMON_NAME, ())), None
    )
    pem = next(iter(found.get(_CERTIFICATE, ())), None)
    if name is None or pem is None:
        return None
    return PeerCertificate(name, certificate_end(pem.decode("ascii")))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class GrpcServer:
    """A server that is bound, then entered: an async context manager that serves within its block.

    Parameters
    ----------
    services : str
        Full names of what it serves besides health, which reflection lists.
    max_calls : int, optional
        How many calls are answered at once; more end with RESOURCE_EXHAUSTED.
    tls : ServerTls, optional
        Of connections that are TLS.
    security : Security, optional
        How clients authenticate: by the metadata `authorization` of each call.

    Attributes
    ----------
    admission : Admission
        Of calls.
    is_stopping : bool
        Whether health says so.
    """

    def __init__(
        self,
        *services: str,
        max_calls: int | None = None,
        tls: ServerTls | None = None,
        security: Security | None = None,
    ) -> None:
        self._credentials = None if tls is None else _credentials(tls)
        self._server = grpc.aio.server(options=_OPTIONS)
        self.admission = Admission(Limits(connections=max_calls), security)
        self.is_stopping = False
        self._addresses: list[str] = []
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection(self._server, (*services, health.SERVICE_NAME))

    def add(self, servicer: object) -> None:
        """Answer the calls of `MarketDataService` by a servicer's methods; called before `bind`."""
        self._server.add_generic_rpc_handlers((rpc.handler(servicer, self._admitted),))

    def bind(self, host: str, port: int) -> str:
        """Bind the server; return the real address.

        Raises
        ------
        StartupError
            When the address cannot be listened on.
        """
        try:
            sockets = bind(host, port)  # gRPC would not say why it cannot
        except (OSError, UnicodeError) as error:
            raise cannot_listen(error, host, port) from error
        try:
            self._addresses = [self._bind(*each.getsockname()[:2]) for each in sockets]
        except RuntimeError as error:
            raise StartupError(f"cannot listen on port {port} of {host}: {error}") from error
        finally:
            close_all(sockets)
        return self._addresses[0]

    def _bind(self, host: str, port: int) -> str:
        address = format_address(host, port)
        with contextlib.ExitStack() as held:
            if host == ALL_IPV4:
                # gRPC would bind it as `::`, unless that is in use.
                with contextlib.suppress(OSError):
                    ipv6 = held.enter_context(socket.socket(socket.AF_INET6))
                    ipv6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    ipv6.bind((ALL, port))
            if self._credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, self._credentials)
        return address

    async def _watch_descriptors(self) -> None:
        """Report that connections cannot be accepted, which gRPC does not."""
        while True:
            await asyncio.sleep(PAUSE_S)
            check(self._addresses[0])

    async def set_health(self, service: str, is_available: bool) -> None:
        """Report whether a service is available, in answer to health checks."""
        await self._health.set(service, _STATUS[is_available])

    async def set_stopping(self) -> None:
        """Report every service as unavailable from now on, while calls are still answered."""
        self.is_stopping = True
        await self._health.enter_graceful_shutdown()

    @contextlib.asynccontextmanager
    async def _admitted(self, name: str, request: Any, context: Any) -> AsyncIterator[Call]:
        # Such as `ipv4:127.0.0.1:1234` or `ipv6:%5B::1%5D:1234`.
        host = unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
        security = self.admission.security
        principal = None if security is None else security.certified(_peer_certificate(context))
        client = self.admission.client(client_address(host), principal)
        dismissal = Dismissal()
        try:
            with contextlib.ExitStack() as stack:
                if client.security is not None:
                    await _authenticate(client, context.invocation_metadata() or ())
                stack.enter_context(client.connected("grpc", dismissal.close))
                stack.enter_context(dismissal)
                call = Call(context, client)
                if isinstance(request, Message):
                    await call.spend(request, 0)
                if security is not None:
                    # Servicers check permissions before they first wait.
                    noting = asyncio.get_running_loop().call_soon(security.note, client, name)
                yield call
        except (TokenError, DismissedError) as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except ForbiddenError as error:
            if security is not None:
                noting.cancel()
                security.note(client, name, str(error))
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except (CapacityError, LimitError) as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))

    async def __aenter__(self) -> Self:
        await self._server.start()
        self._watching = asyncio.create_task(self._watch_descriptors())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._watching.cancel()
        await self.set_stopping()
        await self._server.stop(_STOP_GRACE_S)
        await _calls_ended()


async def _calls_ended() -> None:
    """Wait for gRPC's tasks of calls that have ended.

    Its server does not, and prints the CancelledError of one that the end of the loop cancels.
    """
    calls = [
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__name__", "") == _CALL_TASK
    ]
    if calls:
        await asyncio.wait(calls, timeout=_STOP_GRACE_S)


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials that have the files of each moment; gRPC requests them per connection."""

    def configuration() -> Any:
        key, certificate, trusted = tls.pem
        return grpc.ssl_server_certificate_configuration([(key, certificate)], trusted)

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, tls.requires_certificate
    )
