"""Bodies of requests, bounded in size and in time."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import StreamReader, web

from mdtool.core.errors import PeerError

PATIENCE_S: Final = 10.0
"""How long a body may take: a megabyte at 100 KB a second."""


class BodyError(PeerError):
    """A body does not arrive in time, or does not match its headers."""


async def read_body(request: web.Request, max_bytes: int) -> bytes | None:
    """Return the body of a request, decompressed; None where it takes more than `max_bytes`.

    Raises
    ------
    BodyError
        When it does not match its headers, or does not arrive in time.
    """
    content = request.content
    try:
        if content.is_eof():  # it has arrived, as most have
            return await _read(content, max_bytes)
        async with asyncio.timeout(PATIENCE_S):
            return await _read(content, max_bytes)
    except web.RequestPayloadError as error:
        raise BodyError("the body does not match its headers") from error
    except TimeoutError as error:
        raise BodyError(f"the body did not arrive within {PATIENCE_S:g} s") from error


async def _read(content: StreamReader, max_bytes: int) -> bytes | None:
    body = bytearray()
    while len(body) <= max_bytes and not content.at_eof():
        body += await content.readany()
    return bytes(body) if len(body) <= max_bytes else None
