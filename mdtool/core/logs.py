"""Logging to stderr: a short line for people, or one JSON object a line for machines."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from mdtool.core.config import setting
from mdtool.core.errors import ConfigError
from mdtool.core.units import NS_PER_S, format_time

FORMATS: Final = ("text", "json")
LEVELS: Final = ("debug", "info", "warning", "error")
SERVICE: Final[ContextVar[str]] = ContextVar("service", default="")
"""The service that works now, where several share a process: log lines begin with its name."""
PRINCIPAL: Final[ContextVar[str]] = ContextVar("principal", default="")
"""The principal of the client that is served now, where clients authenticate."""
TRACE: Final[ContextVar[tuple[int, int] | None]] = ContextVar("trace", default=None)
"""The ids of the trace and of the span that runs now."""
SUPERVISED: Final = "MDTOOL_SUPERVISED"
"""The name of the service that a supervisor started this process as."""
SEPARATOR: Final = " | "
"""Between the name of a service and its line."""
_CONVERSION: Final = re.compile(r"%[-#0 +]*[\d.]*[a-zA-Z]")
_WORD: Final = re.compile(r"[a-z]{2,}")
_EVENT_WORDS: Final = 5


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The format of log lines, and the lowest level that is written.

    Raises
    ------
    ConfigError
        When a setting is not one of `FORMATS` or `LEVELS`.
    """

    format: str = setting("text", "Log lines as text or json.")
    level: str = setting("info", "debug, info, warning or error.")

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("format", self.format, FORMATS),
            ("level", self.level, LEVELS),
        ):
            if value not in choices:
                raise ConfigError(f"log {name} {value!r}: choose from {', '.join(choices)}")


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        service = SERVICE.get()
        if not service:
            return text
        return "\n".join(f"{service}{SEPARATOR}{line}" for line in text.split("\n"))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            **_context(record),
            "time": format_time(int(record.created * NS_PER_S)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event_of(record.name, _template(record)),
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


@functools.lru_cache(1_024)
def event_of(logger: str, message: str) -> str:
    """Return the name of an event, by which collectors select: the first words of its message.

    Parameters
    ----------
    logger : str
        Its module names an event whose message has values alone.
    message : str
        With conversions such as `%s` in place of its values.
    """
    words = _WORD.findall(_CONVERSION.sub(" ", message).lower())
    return "-".join(words[:_EVENT_WORDS]) or logger.rpartition(".")[2].replace("_", "-")


def _template(record: logging.LogRecord) -> str:
    """Return a message without values; empty where those of another library are part of it."""
    is_own = record.name.startswith("mdtool") or record.args
    return str(record.msg) if is_own else ""


def _context(record: logging.LogRecord) -> dict[str, str]:
    """Return for whom a line was logged: what is known of service, principal and trace."""
    ids = TRACE.get()
    known = {
        "service": SERVICE.get(),
        "principal": getattr(record, "principal", "") or PRINCIPAL.get(),
        "trace_id": f"{ids[0]:032x}" if ids else "",
        "span_id": f"{ids[1]:016x}" if ids else "",
    }
    return {name: value for name, value in known.items() if value}


def options() -> list[str]:
    """Return the options with which another mdtool logs as this process does."""
    root = logging.getLogger()
    is_json = any(isinstance(handler.formatter, _JsonFormatter) for handler in root.handlers)
    level = logging.getLevelName(root.getEffectiveLevel()).lower()
    return [
        f"--log-format={'json' if is_json else 'text'}",
        f"--log-level={level if level in LEVELS else 'info'}",
    ]


def configure(log_format: str = "text", level: str = "info") -> None:
    """Write log records to stderr, from one of `LEVELS` on and in one of `FORMATS`."""
    # gRPC's core writes to stderr without Python's logging; it reads this once, when imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
