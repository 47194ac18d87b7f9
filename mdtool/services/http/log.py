"""The log of HTTP servers: one line, not a traceback, for a client's mistake."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import ws_logger
from aiohttp.web import RequestPayloadError

_SHOWN_CHARS: Final = 80

http_log: Final = logging.getLogger(__name__)
"""For aiohttp."""


class _ClientFaults(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RequestPayloadError):
            error = error.__cause__
        if isinstance(error, HttpProcessingError):
            why = error.message.partition("\n")[0][:_SHOWN_CHARS]
            record.msg = f"{record.getMessage()}, which is not HTTP: {why}"
            record.args = record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


http_log.addFilter(_ClientFaults())
# It warns, twice, of each client that offers only subprotocols which its path does not know.
ws_logger.setLevel(logging.ERROR)
