"""DBN files and standard input opened as sources: one by one, merged by time, or repeatedly."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from mdtool.adapters.byte_source import STDIN, ByteSource, holds_dbn, open_bytes
from mdtool.adapters.containers import dbn_paths
from mdtool.adapters.dbn_select import TRADES, SchemaSource, Selection, selected
from mdtool.adapters.dbn_source import ClosesOnExit, DbnSource, RecordSource
from mdtool.core.batch import Batch
from mdtool.core.descriptors import room_for
from mdtool.core.errors import InputError, UsageError
from mdtool.core.instruments import Instruments
from mdtool.core.interleaved import Interleaved
from mdtool.engine.merge import Stream, merge
from mdtool.wire.dbn_metadata import unite
from mdtool.wire.dbn_records import CONTROL_RTYPES

OPEN_AT_MOST: Final = 64
"""Files that are open, and read ahead in a thread each; of more, only what is read is open.

So it is with fewer where the limit of open files does not permit more.
"""
_NAMED_AT_MOST: Final = 3
_SAMPLE_BYTES: Final = 1 << 16
_IDENTITY_CHARS: Final = 32


def dbn_files(paths: Sequence[str]) -> list[str]:
    """Return paths of files, with the DBN files of each folder or zip in its place.

    Raises
    ------
    UsageError
        When standard input is named twice.
    InputError
        When a folder or zip cannot be read, or has no DBN file.
    """
    if paths.count(STDIN) > 1:
        raise UsageError("standard input can be read once; give '-' once")
    return dbn_paths(paths, holds_dbn)


def are_many(files: Sequence[str]) -> bool:
    """Return whether, of these files, only what is read is to be open."""
    return len(files) > OPEN_AT_MOST or not room_for(len(files))


def open_source(
    path: str, instruments: Instruments | None = None, is_one_of_many: bool = False
) -> DbnSource:
    """Open a DBN file, or standard input for `-`, and read its metadata.

    Parameters
    ----------
    path : str
    instruments : Instruments, optional
        A table that is shared with other sources.
    is_one_of_many : bool
        Whether so many files are read side by side that only what is read is open.

    Raises
    ------
    InputError
        When there is no such file, it cannot be read, holds no DBN stream, or contradicts another
        source about an instrument id.
    """
    return read_dbn(open_bytes(path), instruments, is_one_of_many)


def read_dbn(
    source: ByteSource, instruments: Instruments | None = None, is_one_of_many: bool = False
) -> DbnSource:
    """Read bytes, none of which were taken yet, as a DBN stream, which closes them.

    Raises
    ------
    InputError
        As `open_source`; the bytes are closed then.
    """
    source.is_closed_between = is_one_of_many
    return DbnSource(
        source.name,
        source.read,
        source.close,
        source.size_bytes,
        source.seek if source.can_seek and source.size_bytes is not None else None,
        instruments=instruments,
        is_one_of_many=is_one_of_many,
    )


def open_merged(
    paths: Sequence[str], schema: str | None = None, instruments: Instruments | None = None
) -> RecordSource:
    """Open several files as one stream in order of the index timestamp.

    Parameters
    ----------
    paths : sequence of str
        At least one, folders and zips too; `-` at most once. Records of one time come in the order
        of the files, and a file's own order is kept.
    schema : str, optional
        The only schema to read of each file; trades are taken out of MBO and MBP, each once where
        several files show it.
    instruments : Instruments, optional
        An empty table, if not one of its own.

    Raises
    ------
    UsageError
        When standard input is named twice, or there is no such schema.
    InputError
        As `open_source`, or when a file cannot have records of the schema, or when files of
        different datasets would be ambiguous.
    """
    files = dbn_files(paths)
    shared = Instruments() if instruments is None else instruments
    many = are_many(files)
    with contextlib.ExitStack() as opened:
        sources = [opened.enter_context(open_source(file, shared, many)) for file in files]
        merged: RecordSource
        of_schema = sources if schema is None else [SchemaSource(each, schema) for each in sources]
        held = {each.metadata.schema and str(each.metadata.schema) for each in sources}
        if schema == TRADES and (len(held) > 1 or held == {None}):
            # A trade may be shown by several of them.
            merged = SchemaSource(_joined(sources), schema)
        else:
            merged = _joined(of_schema)
        opened.pop_all()
    return merged


def _joined(sources: Sequence[RecordSource]) -> RecordSource:
    return sources[0] if len(sources) == 1 else MergedSource(sources)


class MergedSource(ClosesOnExit):
    """The records of several sources in order of time, under metadata that covers them all.

    Parameters
    ----------
    sources : sequence of RecordSource
        Closed together with this one; they share one table of instruments. Records of one time
        come in the order of the sources.

    Raises
    ------
    InputError
        When the sources are of different datasets whose records would be ambiguous.
    """

    def __init__(self, sources: Sequence[RecordSource]) -> None:
        self._sources = sources
        self.name = _names(sources)
        self.metadata = unite([(source.name, source.metadata) for source in sources])
        self.instruments = sources[0].instruments

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

    @property
    def is_ordered(self) -> bool:
        """Whether those of every source are."""
        return all(source.is_ordered for source in self._sources)

    @property
    def begin_ns(self) -> int | None:
        """The earliest begin, None where one is not known."""
        begins = [source.begin_ns for source in self._sources]
        known = [begin_ns for begin_ns in begins if begin_ns is not None]
        return min(known) if len(known) == len(begins) else None

    def __iter__(self) -> Iterator[Batch]:
        for merged in self.whole():
            yield from merged.runs()

    def whole(self) -> Iterator[Batch | Interleaved]:
        """Yield what is merged at a time; control records come in batches."""
        # A known begin keeps a year of files from being read side by side.
        streams = [
            Stream(iter(source))
            if (begin_ns := source.begin_ns) is None
            else Stream(iter(source), begin_ns)
            for source in self._sources
        ]
        for merged in merge(streams):
            if merged.rtypes.isdisjoint(CONTROL_RTYPES):
                yield merged
            else:
                yield from merged.runs()

    def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            source.close()


@dataclass(frozen=True, slots=True)
class Recording:
    """Files merged by time, and a selection of their records.

    Attributes
    ----------
    paths : sequence of str
    schema : str, optional
        The only schema to read.
    selection : Selection, optional
        The symbols and times to read.
    """

    paths: Sequence[str]
    schema: str | None = None
    selection: Selection | None = None

    def open(self) -> RecordSource:
        """Open the files.

        Raises
        ------
        UsageError, InputError
            As `open_merged`.
        """
        return selected(open_merged(self.paths, self.schema), self.selection)

    def identity(self) -> str:
        """Return the identity of the records and their order: 32 hexadecimal digits.

        It depends on the selection and on each file's size, head and tail. A change between these
        that keeps the size is not noticed.

        Raises
        ------
        InputError
            When there is no such file, or it cannot be read more than once.
        """
        digest = hashlib.sha256()
        for path in chain.from_iterable(_sampled(path) for path in self.paths):
            for part in _samples(path):
                digest.update(len(part).to_bytes(8, "little") + part)
        digest.update(repr((self.schema, *_choices(self.selection))).encode())
        return digest.hexdigest()[:_IDENTITY_CHARS]

    def without_folders(self, text: str) -> str:
        """Return a text, such as an error's, in which the files are named without their folders.

        Clients are sent it: where files are on a server is not for them.
        """
        forms = {form for path in self.paths for form in (path, str(Path(path))) if "/" in form}
        for path in sorted(forms, key=len, reverse=True):
            text = text.replace(path, Path(path).name)
        return text


def _names(sources: Sequence[RecordSource]) -> str:
    names = [source.name for source in sources]
    if len(names) <= _NAMED_AT_MOST:
        return ", ".join(names)
    return f"{names[0]} to {names[-1]} ({len(names):,} files)"


def _sampled(path: str) -> list[str]:
    """Return what a path stands for: the files of a folder, else itself."""
    return dbn_files([path]) if Path(path).is_dir() else [path]


def _samples(path: str) -> Iterator[bytes]:
    if path == STDIN:
        raise InputError("stdin: can be read only once; give files")
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: cannot be read more than once; give a file")
            yield status.st_size.to_bytes(8, "little")
            yield file.read(_SAMPLE_BYTES)
            file.seek(max(status.st_size - _SAMPLE_BYTES, 0))
            yield file.read(_SAMPLE_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _choices(selection: Selection | None) -> tuple[object, ...]:
    if selection is None:
        return ()
    symbols = selection.symbols and sorted(selection.symbols)
    return (symbols, selection.start_ns, selection.end_ns)
