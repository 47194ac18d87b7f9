"""What the HTTP server logs: one line, not a traceback, for what is the client's own fault."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import ws_logger
from aiohttp.web import RequestPayloadError

_SHOWN_CHARS: Final = 80

http_log: Final = logging.getLogger(__name__)
"""The logger that aiohttp is given."""


class _ClientFaults(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, RequestPayloadError):
            error = error.__cause__
        if isinstance(error, HttpProcessingError):
            why = error.message.partition("\n")[0][:_SHOWN_CHARS]
            record.msg = f"{record.getMessage()}, which is no HTTP: {why}"
            record.args = record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


http_log.addFilter(_ClientFaults())
# It warns, twice, of each client that likes subprotocols which its path has not.
ws_logger.setLevel(logging.ERROR)
