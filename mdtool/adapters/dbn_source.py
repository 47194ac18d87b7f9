"""Streams of DBN records to read from: the port, and the one for files and pipes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

import databento_dbn as dbn

from mdtool.adapters.warning_log import WarningLog
from mdtool.core.batch import Batch, Resolver
from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from mdtool.core.instruments import Instruments
from mdtool.core.interleaved import Interleaved
from mdtool.core.read_ahead import ReadAhead
from mdtool.core.records import Records, index_timestamps
from mdtool.core.units import counted
from mdtool.wire.dbn import DbnDecoder, Run
from mdtool.wire.dbn_mappings import appended_mappings
from mdtool.wire.dbn_metadata import with_schema
from mdtool.wire.dbn_records import CONTROL_RTYPES, RTYPE_DEFINITION, RTYPES, SCHEMAS
from mdtool.wire.lot_definitions import lot_definitions, lot_steps

log = logging.getLogger(__name__)

Read = Callable[[int], bytes]
"""Waits for bytes and returns those that have come, at most so many; none at the end."""
Seek = Callable[[int], None]
"""Continues reading from this byte of the file."""

FIRST_CHUNK_BYTES: Final = 1 << 16
"""The size of the first read: small, as it is in memory until the first records are requested."""
PLAIN_CHUNK_BYTES: Final = 1 << 20
ZSTD_CHUNK_BYTES: Final = 1 << 18
"""Market data shrinks to a third or less: this much compressed is some 15,000 records or more."""
CHUNKS_AHEAD: Final = 4
"""The number of chunks of a file that are read, decompressed and decoded ahead."""


class Position(NamedTuple):
    """A position between two records of a stream.

    Attributes
    ----------
    offset : int
        The byte of the decompressed stream at which the next record begins.
    records : int
        How many records come before it.
    """

    offset: int
    records: int


class _Chunk(NamedTuple):
    """The records of one read, and how many bytes of the stream were read by then."""

    runs: list[Run]
    bytes_read: int


class RecordSource(Protocol):
    """Records in the order of their stream, in arrays as large as what has arrived."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def metadata(self) -> dbn.Metadata:
        """Known as soon as the source is."""
        ...

    @property
    def instruments(self) -> Instruments:
        """The table into which the batches' instruments point; it grows as they are resolved."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """How many bytes there are to read in all, None where that is not known."""
        ...

    @property
    def bytes_read(self) -> int:
        """How many of them have been read."""
        ...

    @property
    def is_ordered(self) -> bool:
        """Whether its records are said to be in order of the index timestamp.

        Those of an archive's file are, which the header names one schema of. Those of a live
        session are not: each schema comes by itself.
        """
        ...

    @property
    def begin_ns(self) -> int | None:
        """The index timestamp of the first record, None where that has not been read yet.

        Headers may name no start, or a wrong one.
        """
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches of one rtype, whose records are read-only, never empty."""
        ...

    def whole(self) -> Iterator[Batch | Interleaved]:
        """Yield what is there at a time: batches, or data of several rtypes interleaved.

        For consumers that make no difference between rtypes, such as outputs; it takes the place
        of `__iter__`.
        """
        ...

    def close(self) -> None:
        """Close files. What was yielded stays valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ClosesOnExit:
    """Gives a source its `with` block, which closes it, and one of batches alone `whole`."""

    def whole(self: Iterable[Batch]) -> Iterator[Batch | Interleaved]:
        """As `RecordSource.whole`."""
        return iter(self)

    def close(self) -> None:
        """Close what the source holds open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DerivedSource(ClosesOnExit):
    """A source made of another one, whose properties it has.

    Parameters
    ----------
    source : RecordSource
        Closed together with this one.
    """

    def __init__(self, source: RecordSource) -> None:
        self._source = source

    @property
    def name(self) -> str:
        """As `RecordSource.name`."""
        return self._source.name

    @property
    def metadata(self) -> dbn.Metadata:
        """As `RecordSource.metadata`."""
        return self._source.metadata

    @property
    def instruments(self) -> Instruments:
        """As `RecordSource.instruments`."""
        return self._source.instruments

    @property
    def size_bytes(self) -> int | None:
        """As `RecordSource.size_bytes`."""
        return self._source.size_bytes

    @property
    def bytes_read(self) -> int:
        """As `RecordSource.bytes_read`."""
        return self._source.bytes_read

    @property
    def is_ordered(self) -> bool:
        """As `RecordSource.is_ordered`."""
        return self._source.is_ordered

    @property
    def begin_ns(self) -> int | None:
        """As `RecordSource.begin_ns`, of the other source."""
        return self._source.begin_ns

    def close(self) -> None:
        """Close the other source."""
        self._source.close()


class DbnSource(ClosesOnExit):
    """The records of one DBN stream, v1 to v3, compressed or not, read through `read`.

    A file is read, decompressed and decoded ahead, in a thread of its own.

    Of a file that was appended, the names that its header adds are yielded as mapping records.
    Records of unknown rtypes are skipped, and counted on the log, as are warnings of a live stream.

    The metadata is read when the source is made. It names no schema where the first records are all
    of others than the header's. Memory stays flat whatever the stream's length.

    Parameters
    ----------
    name : str
    read : callable
    close : callable
        Called once the source is closed, or could not be made.
    size_bytes : int, optional
        Known of files, which never keep their reader waiting.
    seek : callable, optional
        Where the stream can be entered anywhere.
    instruments : Instruments, optional
        A table that is shared with other sources, if not one of its own.
    is_one_of_many : bool
        Whether so many files are read side by side that each is read in small pieces, not ahead.

    Attributes
    ----------
    bytes_read : int
        As `RecordSource.bytes_read`.
    position : Position
        The end of the records yielded so far.

    Raises
    ------
    InputError
        When the stream is not DBN, or contradicts another one of the table about an id. Iterating
        raises CorruptStreamError where it breaks off, after every whole record before that has
        been yielded.
    """

    def __init__(
        self,
        name: str,
        read: Read,
        close: Callable[[], None],
        size_bytes: int | None = None,
        seek: Seek | None = None,
        instruments: Instruments | None = None,
        is_one_of_many: bool = False,
    ) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.bytes_read = 0
        self._read = read
        self._close = close
        self._seek = seek
        self._is_one_of_many = is_one_of_many
        self._decoder = DbnDecoder(name)
        self._ahead: ReadAhead[_Chunk] | None = None
        self._received_bytes = 0
        self._record_bytes = 0
        self._is_reported = False
        self._warnings = WarningLog(name, size_bytes is None)
        self.instruments = Instruments() if instruments is None else instruments
        try:
            self.metadata, runs = self._read_metadata()
            self._resolver = Resolver(self.instruments, name, self.metadata)
        except BaseException:
            close()
            raise
        self._header = self.metadata
        self._check_schema(runs)
        self._first = _Chunk(runs, self._received_bytes)
        begin = (runs[0].offset, runs[0].before) if runs else (self._decoder.offset, 0)
        self.position = Position(*begin)

    def __iter__(self) -> Iterator[Batch]:
        for chunk in itertools.chain([self._first], self._following()):
            self.bytes_read = chunk.bytes_read
            yield from self._wanted(chunk)
        self._report()

    @property
    def is_ordered(self) -> bool:
        """As `RecordSource.is_ordered`."""
        return self.metadata.schema is not None

    @property
    def begin_ns(self) -> int | None:
        """As `RecordSource.begin_ns`: read together with the header, unless that is long."""
        runs = self._first.runs
        return int(index_timestamps(runs[0].records)[0]) if runs else None

    def resume(self, position: Position) -> None:
        """Continue at a position of an earlier run, skipping all records before it.

        It is called before the first record is read. Plain files are entered there; compressed
        files still have to be decompressed up to there.
        """
        self.position = position
        is_ahead = position.offset >= self._decoder.offset
        if self._seek is not None and is_ahead and not self._decoder.is_compressed:
            self._seek(position.offset)
            self._decoder.jump(position.offset, position.records)
            self._received_bytes = position.offset
            self._first = _Chunk([], position.offset)

    def learn(self, mappings: Records) -> None:
        """Apply the symbol mapping records before the position of `resume`.

        Parameters
        ----------
        mappings : array of SYMBOL_MAPPING, shape (n,)
        """
        self._resolver.learn(mappings)

    def position_before(self, n_records: int) -> Position:
        """Return the position so many records before the end of the last batch."""
        n_bytes = n_records * self._record_bytes
        return Position(self.position.offset - n_bytes, self.position.records - n_records)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._ahead is not None:
            self._ahead.close()
        self._report()
        self._close()

    def _read_metadata(self) -> tuple[dbn.Metadata, list[Run]]:
        """Read up to the end of the metadata; return it, and the records read with it."""
        runs: list[Run] = []
        while (metadata := self._decoder.metadata) is None:
            if self._decoder.has_more:
                runs += self._decoder.decode(b"")
                continue
            data = self._receive(FIRST_CHUNK_BYTES)
            if not data:
                self._decoder.finish()
            runs += self._decoder.decode(data)
        return metadata, runs

    def _check_schema(self, runs: Iterable[Run]) -> None:
        """Name no schema where the header's is not that of any of the first records."""
        named = self.metadata.schema
        rtypes = {
            int(run.records["rtype"][0]) for run in runs if not _tells_lots(run.records)
        } - CONTROL_RTYPES
        if named is None or not rtypes or RTYPES[str(named)] in rtypes:
            return
        found = sorted(SCHEMAS.get(rtype, f"rtype {rtype}") for rtype in rtypes)
        log.warning(
            "%s: its header names %s, but its records are of %s; read by its records",
            self.name,
            named,
            ", ".join(found),
        )
        self.metadata = with_schema(self.metadata, None)

    def _following(self) -> Iterator[_Chunk]:
        chunks = self._chunks()
        if self.size_bytes is not None and not self._is_one_of_many:
            self._ahead = ReadAhead(chunks, CHUNKS_AHEAD)
            return self._ahead
        return chunks

    def _chunks(self) -> Iterator[_Chunk]:
        decoder = self._decoder
        n_bytes = ZSTD_CHUNK_BYTES if decoder.is_compressed else PLAIN_CHUNK_BYTES
        if self._is_one_of_many:
            n_bytes = FIRST_CHUNK_BYTES
        n_next = n_bytes
        while True:
            while decoder.has_more:
                yield _Chunk(decoder.decode(b""), self._received_bytes)
            if not (data := self._receive(n_next)):
                break
            runs = decoder.decode(data)
            yield _Chunk(runs, self._received_bytes)
            if runs and not decoder.is_compressed:
                # Where reads end with a record, none is joined to the rest of the one before.
                n_next = n_bytes - n_bytes % runs[-1].record_bytes - decoder.pending_bytes
        decoder.finish()

    def _receive(self, n_bytes: int) -> bytes:
        data = self._read(n_bytes)
        self._received_bytes += len(data)
        return data

    def _wanted(self, chunk: _Chunk) -> Iterator[Batch]:
        for run in chunk.runs:
            if run.metadata is not self._header:
                yield from self._enter(run.metadata)
            end = run.before + len(run.records)
            n_wanted = end - self.position.records
            if n_wanted <= 0:
                continue
            self.position = Position(run.offset + len(run.records) * run.record_bytes, end)
            self._record_bytes = run.record_bytes
            wanted = run.records[-n_wanted:]
            ts_out = None if run.ts_out is None else run.ts_out[-n_wanted:]
            rtype = int(wanted["rtype"][0])
            if rtype == RTYPE_SYMBOL_MAPPING:
                self._resolver.learn(wanted)
            elif rtype == RTYPE_DEFINITION:
                given = lot_definitions(wanted)
                self.instruments.give_lots(self.name, lot_steps(wanted), given)
            self._warnings.take(wanted)
            yield self._resolver.batch(wanted, ts_out)

    def _enter(self, header: dbn.Metadata) -> Iterator[Batch]:
        """Resolve what follows by another header; yield what it adds to the first as mappings."""
        if header.ts_out and not (self._header.ts_out or self.metadata.ts_out):
            log.warning("%s: left out ts_out of an appended file; the first has none", self.name)
        self._header = header
        self._resolver = Resolver(self.instruments, self.name, header)
        mappings = appended_mappings(self.metadata, header)
        if len(mappings):
            yield self._resolver.batch(mappings)

    def _report(self) -> None:
        """Log the records that were skipped, and those of which the stream says so."""
        self._warnings.report()
        unknown = self._decoder.unknown
        if unknown and not self._is_reported:
            self._is_reported = True
            log.warning(
                "%s: skipped %s of unknown rtype %s",
                self.name,
                counted(unknown.total(), "record"),
                ", ".join(map(str, sorted(unknown))),
            )


def _tells_lots(records: Records) -> bool:
    """Return whether records of one rtype are definitions that come with those of any schema."""
    return int(records["rtype"][0]) == RTYPE_DEFINITION and bool(lot_definitions(records))
