"""Several sources read as one, in order of the index timestamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdtool.adapters.dbn_source import ClosesOnExit, RecordSource
from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from mdtool.core.records import Records, index_timestamps
from mdtool.core.symbology import Symbology
from mdtool.engine.merge import Stream, merge
from mdtool.wire.dbn_metadata import unite


class MergedSource(ClosesOnExit):
    """The records of several sources in order of time, under metadata that covers them all.

    Parameters
    ----------
    sources : sequence of RecordSource
        Closed together with this one. Records of one time come in the order of the sources.

    Raises
    ------
    InputError
        When the sources' symbols contradict each other.
    """

    def __init__(self, sources: Sequence[RecordSource]) -> None:
        self._sources = sources
        self.name = ", ".join(source.name for source in sources)
        self.metadata = unite([(source.name, source.metadata) for source in sources])
        self.symbology = Symbology(self.metadata)

    @property
    def size_bytes(self) -> int | None:
        """The sum of the sources' sizes, None where one is not known."""
        sizes = [source.size_bytes for source in self._sources]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def bytes_read(self) -> int:
        """The sum of what has been read of each."""
        return sum(source.bytes_read for source in self._sources)

    def __iter__(self) -> Iterator[Records]:
        # What metadata says of the start keeps a year of files from being read side by side.
        streams = [Stream(iter(source), source.metadata.start) for source in self._sources]
        for records in merge(streams, index_timestamps):
            if records["rtype"][0] == RTYPE_SYMBOL_MAPPING:
                self.symbology.learn(records)
            yield records

    def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            source.close()
