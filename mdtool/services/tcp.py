"""TCP servers: bound or refused with a reason, and where they listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mdtool.core.addresses import cannot_listen, format_address

_BACKLOG: Final = 4_096


async def listen(
    connect: Callable[[], asyncio.BaseProtocol], host: str, port: int
) -> asyncio.Server:
    """Listen, and have `connect` make the protocol of each connection.

    Raises
    ------
    StartupError
        When the address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(connect, host, port, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, host, port) from error


def address_of(server: asyncio.Server) -> str:
    """Return the real address of a server, the first where it has several."""
    return format_address(*server.sockets[0].getsockname()[:2])
