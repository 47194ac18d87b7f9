"""DBN written to a stream or a file, plain or as zstd."""

from __future__ import annotations

import databento_dbn as dbn
import zstandard

from mdtool.adapters.outputs.destination import Destination
from mdtool.core.records import Records
from mdtool.wire.dbn import encode_metadata, encode_records


class DbnOutput:
    """DBN v3; a stream gets its header at once."""

    def __init__(self, destination: Destination, metadata: dbn.Metadata) -> None:
        self._destination = destination
        destination.write_head(encode_metadata(metadata))

    def write(self, records: Records) -> None:
        """Pass records on at once."""
        self._destination.write(encode_records(records))

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        self._destination.close()


class ZstdDbnOutput:
    """DBN v3 in a zstd frame."""

    def __init__(self, destination: Destination, metadata: dbn.Metadata) -> None:
        self._destination = destination
        self._compressor = zstandard.ZstdCompressor().compressobj()
        destination.write_head(self._compressor.compress(encode_metadata(metadata)))

    def write(self, records: Records) -> None:
        """Compress records; what fills a block goes out."""
        self._destination.write(self._compressor.compress(encode_records(records)))

    def flush(self) -> None:
        """End the block, so that all records so far can be read."""
        self._destination.write(self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

    def close(self) -> None:
        """End the frame and close the file."""
        self._destination.write(self._compressor.flush())
        self._destination.close()
