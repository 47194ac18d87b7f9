"""Snapshots of order books as JSON, an object a line."""

from __future__ import annotations

import json
from typing import Final

from mdtool.adapters.outputs.destination import Destination
from mdtool.core.symbology import Symbology
from mdtool.engine.book.snapshot import Snapshot

_HELD_BYTES: Final = 1 << 16


class SnapshotJsonOutput:
    """Writes a line for each snapshot; many small ones go out together.

    Parameters
    ----------
    destination : Destination
    symbology : Symbology
        Names the instruments; it may grow.
    """

    def __init__(self, destination: Destination, symbology: Symbology) -> None:
        self._destination = destination
        self._symbology = symbology
        self._held = bytearray()

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot's line.

        Raises
        ------
        BrokenPipeError, OutputError
            As `Destination.write`.
        """
        symbol = self._symbology.symbol(snapshot.key.instrument_id, snapshot.ts_recv)
        line = json.dumps(snapshot.as_dict(symbol), separators=(",", ":"))
        self._held += line.encode() + b"\n"
        if len(self._held) >= _HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Pass on what is held back."""
        held, self._held = self._held, bytearray()
        self._destination.write(memoryview(held))

    def close(self) -> None:
        """Write what is held back, and close the file."""
        self.flush()
        self._destination.close()
