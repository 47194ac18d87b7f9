"""The receiver service: HTTP in front of the books of a sender's stream."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np

from mdtool.core.addresses import parse_address
from mdtool.core.dtypes import MBO
from mdtool.core.lifecycle import Started
from mdtool.core.limits import raise_file_limit
from mdtool.core.symbols import SymbolTable
from mdtool.engine.book.rebuild import Rebuild
from mdtool.services.book.config import ReceiverConfig
from mdtool.services.book.handlers import ReceiverHandlers
from mdtool.services.http.listening import listening
from mdtool.wire.book_lines import BookLines

_STOP_GRACE_S: Final = 0.2
"""How long readers may take to read why their lines end."""


class BookReceiver:
    """Rebuilds order books from what a sender streams, once it is told to.

    Parameters
    ----------
    config : ReceiverConfig
        Where it listens, and whose stream it processes.

    Raises
    ------
    UsageError
        When the sender's address is none.
    """

    name = "book"

    def __init__(self, config: ReceiverConfig) -> None:
        parse_address(config.sender)
        self._config = config

    async def run(self, started: Started) -> None:
        """Serve until cancelled.

        Raises
        ------
        StartupError
            When the address cannot be listened on.
        """
        raise_file_limit()
        _warm_up()
        async with asyncio.TaskGroup() as tasks:
            app = ReceiverHandlers(self._config, tasks).application()
            host, port = self._config.host, self._config.port
            async with listening(app, host, port, _STOP_GRACE_S, cancels_deserted=True) as address:
                started({"http": address})
                await asyncio.get_running_loop().create_future()


def _warm_up() -> None:
    """Compile kernels before anyone waits for them."""
    record = np.zeros(1, MBO)
    rebuild = Rebuild()
    rebuild.update(record)
    lines = BookLines(SymbolTable(["A"]))
    for rows in rebuild.books.states(record, 1):
        lines.encode(rows, np.zeros(len(rows), np.uint32))
