"""HTTP applications that listen: bound or rejected with a reason, and closed in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from mdtool.adapters.identity.config import MAX_TOKEN_CHARS
from mdtool.core.tcp import listen
from mdtool.core.tls import ServerTls
from mdtool.services.http.answers import Handler, failure
from mdtool.services.http.log import http_log

STOP_GRACE_S: Final = 2.0
KEEP_ALIVE_S: Final = 75.0
"""How long a connection may be idle, or a request incomplete; proxies keep theirs for 60."""

_MAX_HEADER_BYTES: Final = MAX_TOKEN_CHARS + 1_024
"""Of one header: that of the longest token fits in."""


class HttpConnection(web.RequestHandler):
    """Answers what is not HTTP without repeating any of it, which may be a token."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer of an error that no handler has answered."""
        response = super().handle_error(request, status, exc, message)
        if isinstance(exc, HttpProcessingError):
            response = failure(status, "invalid_request", "not HTTP, or a header is too long")
            response.force_close()
        return response

    def release(self) -> asyncio.Transport | None:
        """Serve the connection no more, and give it to the caller; None where it is lost."""
        transport, self.transport = self.transport, None
        self.connection_lost(None)
        return transport


Connect = Callable[[], HttpConnection]
"""Makes what serves a connection."""


@contextlib.asynccontextmanager
async def listening(
    app: web.Application,
    host: str,
    port: int,
    grace_s: float = STOP_GRACE_S,
    cancels_deserted: bool = False,
    tls: ServerTls | None = None,
) -> AsyncIterator[str]:
    """Serve an application within the block, and give the real address.

    Parameters
    ----------
    app : web.Application
    host, port : str and int
        Where to listen.
    grace_s, cancels_deserted : float and bool
        See `serving`.
    tls : ServerTls, optional
        Of connections that are TLS.

    Raises
    ------
    StartupError
        When the address cannot be listened on.
    """
    async with serving(app, grace_s, cancels_deserted) as server:
        listener = await listen(server, host, port, tls=tls)
        with contextlib.closing(listener):
            yield listener.address


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, grace_s: float = STOP_GRACE_S, cancels_deserted: bool = False
) -> AsyncIterator[Connect]:
    """Have an application serve connections within the block.

    Parameters
    ----------
    app : web.Application
    grace_s : float
        How long requests may continue once the block is left.
    cancels_deserted : bool
        Whether a request's handler is cancelled when its client leaves; otherwise it notices
        that when it next writes.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=http_log,
        shutdown_timeout=grace_s,
        keepalive_timeout=KEEP_ALIVE_S,
        handler_cancellation=cancels_deserted,
        max_field_size=_MAX_HEADER_BYTES,
    )
    await runner.setup()
    server: Any = runner.server
    server.request_handler = _framed(server.request_handler)

    def connect() -> HttpConnection:
        connection: Any = server()
        connection.__class__ = HttpConnection  # aiohttp has no setting of it
        served: HttpConnection = connection
        return served

    try:
        yield connect
    finally:
        await runner.cleanup()


def _framed(handler: Handler) -> Handler:
    """Return a handler that refuses requests whose end a proxy may see elsewhere.

    Chunks are of HTTP/1.1: a proxy that knows none in an older request forwards them as a further
    request (RFC 9112, section 6.1).
    """

    def run(request: web.Request) -> Awaitable[web.StreamResponse]:
        if request.version < HttpVersion11 and hdrs.TRANSFER_ENCODING in request.headers:
            return _refuse()
        return handler(request)

    return run


async def _refuse() -> web.StreamResponse:
    response = failure(400, "invalid_request", "Transfer-Encoding requires HTTP/1.1")
    response.force_close()
    return response
