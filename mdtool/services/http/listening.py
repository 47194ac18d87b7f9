"""Applications that listen: bound or refused with a reason, and closed in order."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from mdtool.core.addresses import format_address
from mdtool.core.errors import StartupError
from mdtool.services.http.log import http_log

_STOP_GRACE_S: Final = 2.0
"""How long requests may go on once the service stops."""
_BACKLOG: Final = 1_024


@contextlib.asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[str]:
    """Serve an application within the block, and give the real address.

    Raises
    ------
    StartupError
        When the address cannot be listened on.
    """
    runner = web.AppRunner(app, access_log=None, logger=http_log, shutdown_timeout=_STOP_GRACE_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        except OSError as error:
            raise cannot_listen(error, host, port) from error
        yield format_address(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def cannot_listen(error: OSError, host: str, port: int, option: str = "--port") -> StartupError:
    """Return what a bind that failed means; `option` is the one that chooses another port."""
    if error.errno == errno.EADDRINUSE:
        return StartupError(
            f"port {port} on {host} is in use; stop what listens there, or choose another with "
            f"{option}"
        )
    return StartupError(f"cannot listen on port {port} of {host}: {error}")
