"""CSV and JSON written to a stream or a file."""

from __future__ import annotations

from typing import Final

import databento_dbn as dbn

from mdtool.adapters.outputs.destination import Destination
from mdtool.adapters.outputs.layout import Layout
from mdtool.core.records import Records
from mdtool.core.symbology import Symbology
from mdtool.wire.text import CsvEncoder, JsonEncoder

_SLICE_RECORDS: Final = 1 << 14
"""Records encoded at a time: a few megabytes of text, however long the array."""


class JsonOutput:
    """One JSON object a line."""

    def __init__(
        self, destination: Destination, symbology: Symbology | None, is_pretty: bool
    ) -> None:
        self._destination = destination
        self._encoder = JsonEncoder(symbology, is_pretty)

    def write(self, records: Records) -> None:
        """Write a line for each record, at once."""
        for start in range(0, len(records), _SLICE_RECORDS):
            part = records[start : start + _SLICE_RECORDS]
            self._destination.write(self._encoder.encode(part))

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        self._destination.close()


class CsvOutput:
    """A header and a row for each record that fits it. Streams get it as soon as it is known."""

    def __init__(
        self,
        destination: Destination,
        metadata: dbn.Metadata,
        symbology: Symbology | None,
        is_pretty: bool,
    ) -> None:
        self._destination = destination
        self._encoder = CsvEncoder(symbology, is_pretty)
        self._layout = Layout(metadata)
        self._has_header = False
        self._write_header()

    def write(self, records: Records) -> None:
        """Write a row for each record, at once; records with other columns are left out."""
        if len(records) == 0 or not self._layout.fits(records):
            return
        self._write_header()
        for start in range(0, len(records), _SLICE_RECORDS):
            part = records[start : start + _SLICE_RECORDS]
            self._destination.write(self._encoder.encode(part))

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Say what was left out, and close the file."""
        self._layout.report(self._destination.name)
        self._destination.close()

    def _write_header(self) -> None:
        if not self._has_header and self._layout.rtype is not None:
            self._destination.write_head(self._encoder.header(self._layout.rtype))
            self._has_header = True
