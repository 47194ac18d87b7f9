"""The log of HTTP servers: one line, not a traceback, for a client's mistake."""

from __future__ import annotations

import logging
import re
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import ws_logger
from aiohttp.web import RequestPayloadError

_SHOWN_CHARS: Final = 80
_CONTENT: Final = re.compile(r"[:'\"\n]")
"""Behind it, aiohttp's message has what the client sent, which may be a token."""

http_log: Final = logging.getLogger(__name__)
"""For aiohttp."""


class _ClientFaults(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RequestPayloadError):
            error = error.__cause__
        if isinstance(error, HttpProcessingError):
            why = _CONTENT.split(error.message, maxsplit=1)[0].rstrip()[:_SHOWN_CHARS]
            record.msg = f"{record.getMessage()}, which is not HTTP: {why}"
            record.args = record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


http_log.addFilter(_ClientFaults())
# It warns, twice, of each client that offers only subprotocols which its path does not know.
ws_logger.setLevel(logging.ERROR)
