"""DBN, CSV and JSON, written to a stream or a file as records arrive."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import databento_dbn as dbn

from mdtool.adapters.outputs.destination import Writer
from mdtool.adapters.outputs.layout import Layout
from mdtool.core.batch import Batch
from mdtool.core.instruments import Instruments
from mdtool.core.interleaved import Interleaved
from mdtool.wire.dbn import encode_metadata
from mdtool.wire.dbn_mappings import MappingRepeater
from mdtool.wire.dbn_metadata import is_live, with_schema
from mdtool.wire.lot_definitions import LotRepeater
from mdtool.wire.text import TextEncoder

if TYPE_CHECKING:
    from mdtool.engine.book.snapshot import Snapshot

_HELD_BYTES: Final = 1 << 16


class DbnOutput:
    """DBN v3; a stream gets its header at once, a file with its first records.

    The header names a schema only where no record is of another one, for readers take every record
    for one of that schema: not of a live session, whose symbols are in mapping records, nor where
    definitions tell lots.
    """

    def __init__(self, destination: Writer, metadata: dbn.Metadata) -> None:
        self._destination = destination
        self._mappings = MappingRepeater(metadata)
        self._lots = LotRepeater()
        self._metadata = with_schema(metadata, None) if is_live(metadata) else metadata
        self._has_header = False
        if not destination.is_waiting:
            self._write_header()

    def write(self, batch: Batch | Interleaved) -> None:
        """Write records at once."""
        if not self._has_header and batch.instruments.lots:
            self._metadata = with_schema(self._metadata, None)
        self._write_header()
        for part in self._lots.feed(batch):
            for data in self._mappings.encode(part):
                self._destination.write(data)

    def flush(self) -> None:
        """Write what a compressed file buffers; nothing else is."""
        self._destination.flush()

    def close(self) -> None:
        """Close the file."""
        self._write_header()
        self._destination.close()

    def _write_header(self) -> None:
        if not self._has_header:
            self._has_header = True
            self._destination.write_head(encode_metadata(self._metadata))


class JsonOutput:
    """One JSON object a line."""

    def __init__(self, destination: Writer, encoder: TextEncoder) -> None:
        self._destination = destination
        self._encoder = encoder

    def write(self, batch: Batch | Interleaved) -> None:
        """Write a line for each record, at once."""
        for text in self._encoder.encode(batch):
            self._destination.write(text)

    def flush(self) -> None:
        """Write what a compressed file buffers; nothing else is."""
        self._destination.flush()

    def close(self) -> None:
        """Close the file."""
        self._destination.close()


class CsvOutput:
    """A header and a row for each record with its columns. It is written as soon as it is known."""

    def __init__(
        self,
        destination: Writer,
        layout: Layout,
        encoder: TextEncoder,
    ) -> None:
        self._destination = destination
        self._encoder = encoder
        self._layout = layout
        self._has_header = False
        self._write_header()

    def write(self, batch: Batch | Interleaved) -> None:
        """Write a row for each record, at once; records with other columns are skipped."""
        fitting = self._layout.fitting(batch)
        if fitting is None:
            return
        self._write_header()
        for text in self._encoder.encode(fitting):
            self._destination.write(text)

    def flush(self) -> None:
        """Write what a compressed file buffers; nothing else is."""
        self._destination.flush()

    def close(self) -> None:
        """Log what was skipped, and close the file."""
        self._layout.report(self._destination.name)
        self._destination.close()

    def _write_header(self) -> None:
        if not self._has_header and self._layout.rtype is not None:
            self._destination.write_head(self._encoder.header(self._layout.rtype))
            self._has_header = True


class SnapshotJsonOutput:
    """Writes a line for each snapshot; many small ones are written together.

    Parameters
    ----------
    destination : Writer
    instruments : Instruments
        Those of the snapshots.
    """

    def __init__(self, destination: Writer, instruments: Instruments) -> None:
        self._destination = destination
        self._instruments = instruments
        self._held = bytearray()

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot's line.

        Raises
        ------
        BrokenPipeError, OutputError
            As `Writer.write`.
        """
        symbol = self._instruments[snapshot.instrument].text
        line = json.dumps(snapshot.as_dict(symbol), separators=(",", ":"))
        self._held += line.encode() + b"\n"
        if len(self._held) >= _HELD_BYTES:
            self._write_held()

    def write_mappings(self, mappings: Batch) -> None:
        """Do nothing: lines have symbols."""

    def flush(self) -> None:
        """Write what is buffered."""
        self._write_held()
        self._destination.flush()

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        self._write_held()
        self._destination.close()

    def _write_held(self) -> None:
        held, self._held = self._held, bytearray()
        self._destination.write(memoryview(held))
