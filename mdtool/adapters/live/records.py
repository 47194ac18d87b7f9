"""A live source opened as a stream of records."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any, Final

from mdtool.adapters.dbn_source import DbnSource
from mdtool.adapters.live import CLIENTS, SESSIONS, SOURCES
from mdtool.adapters.live.config import SourceConfig
from mdtool.adapters.live.connections import Connections
from mdtool.adapters.live.counts import described
from mdtool.adapters.live.keys import find_keys
from mdtool.adapters.live.messages import chosen
from mdtool.adapters.live.port import LiveSource, Request
from mdtool.core.config import did_you_mean
from mdtool.core.errors import UsageError
from mdtool.core.interrupts import Blocking

log = logging.getLogger(__name__)

MAX_SYMBOL: Final = 70
"""The most characters of a symbol."""


class LiveRecords(DbnSource):
    """The records of a live source, which end when the source is closed.

    Parameters
    ----------
    source : LiveSource
        Closed together with this one.

    Attributes
    ----------
    counts : Counter of str
        As `LiveSource.counts`.
    end : callable
        As `LiveSource.end`.
    """

    def __init__(self, source: LiveSource) -> None:
        self.counts = source.counts
        self.end = source.end
        with Blocking.block(source.end):
            super().__init__(source.name, source.read, source.close)

    def close(self) -> None:
        """Close the source, and log what it has brought."""
        super().close()
        log.info("%s: %s", self.name, described(self.counts))


def open_live(source: str, symbols: Sequence[str], config: SourceConfig) -> LiveRecords:
    """Connect to a live source, or run a recording of it, as a stream of records.

    Parameters
    ----------
    source : str
        One of `SOURCES`.
    symbols : sequence of str
        As the source calls them; of a recording none are needed.
    config : SourceConfig

    Raises
    ------
    UsageError
        When there is no such source, it cannot have what is requested, or lacks a key.
    InputError
        When there is no such recording, or the file of keys cannot be read.
    OutputError
        When the folder to record in cannot be written.
    """
    kind, request = _requested(source, symbols, config)
    return LiveRecords(_open(kind, request))


def check_live(source: str, symbols: Sequence[str], config: SourceConfig) -> None:
    """Check what `open_live` is given, as far as that is possible without connecting.

    Raises
    ------
    UsageError, InputError
        As `open_live`.
    """
    kind, request = _requested(source, symbols, config)
    if source in CLIENTS:
        kind.check(config)
    elif not config.replay:
        Connections(kind, request)


def _requested(source: str, symbols: Sequence[str], config: SourceConfig) -> tuple[Any, Request]:
    """Return the class of a source, and what is requested of it, which is checked."""
    if source not in SOURCES:
        raise UsageError(f"ingest {source}: no such source{did_you_mean(source, SOURCES)}")
    for symbol in symbols:
        if not symbol.isascii() or not symbol.isprintable() or not 0 < len(symbol) <= MAX_SYMBOL:
            raise UsageError(f"ingest {source} {symbol!r}: is not a symbol")
    kind = _class(SESSIONS.get(source) or CLIENTS[source])
    if config.lots() and source in CLIENTS:
        raise UsageError(f"--lot: {source} sends its own sizes; leave it out")
    if source in SESSIONS:
        chosen(config.schema, kind.schemas)
        if config.replay:
            return kind, Request(symbols, config)
    elif config.record or config.replay:
        raise UsageError(f"--record, --replay: {source} sends DBN; write it with -o FILE.dbn")
    if not symbols:
        raise UsageError(f"ingest {source}: name its symbols")
    return kind, Request(symbols, config, find_keys(source, kind.keys, config.keys))


def _open(kind: Any, request: Request) -> LiveSource:
    if kind.name not in SESSIONS:
        made: LiveSource = kind(request)
        return made
    if folder := request.config.replay:
        from mdtool.adapters.live.recording import RecordedSource

        return RecordedSource(kind, request, folder)
    from mdtool.adapters.live.websocket import WebSocketSource

    return WebSocketSource(kind, request)


def _class(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
