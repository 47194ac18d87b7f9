"""DBN files and standard input opened as sources, one by one or merged by time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from mdtool.adapters.byte_source import STDIN, ByteSource, open_bytes
from mdtool.adapters.dbn_merge import MergedSource
from mdtool.adapters.dbn_select import SchemaSource
from mdtool.adapters.dbn_source import DbnSource, RecordSource
from mdtool.core.errors import UsageError


def open_source(path: str) -> DbnSource:
    """Open a DBN file, or standard input for `-`, and read its metadata.

    Raises
    ------
    InputError
        When there is no such file, it cannot be read, or holds no DBN stream.
    """
    return read_dbn(open_bytes(path))


def read_dbn(source: ByteSource) -> DbnSource:
    """Read bytes, none of which were taken yet, as a DBN stream, which closes them.

    Raises
    ------
    InputError
        When they are no DBN stream; they are closed then.
    """
    seek = None if source.size_bytes is None else source.seek
    return DbnSource(source.name, source.read, source.close, source.size_bytes, seek)


def open_merged(paths: Sequence[str], schema: str | None = None) -> RecordSource:
    """Open several files as one stream in order of the index timestamp.

    Parameters
    ----------
    paths : sequence of str
        At least one; `-` at most once. Records of one time come in the order of the files, and a
        file's own order is kept.
    schema : str, optional
        The only one whose records are wanted of each file; trades are taken out of MBO and MBP.

    Raises
    ------
    UsageError
        When standard input is named twice, or there is no such schema.
    InputError
        As `open_source`, or when a file cannot have records of the schema, or when the files'
        symbols contradict each other.
    """
    if paths.count(STDIN) > 1:
        raise UsageError("standard input can be read once; give '-' once")
    with contextlib.ExitStack() as opened:
        sources: list[RecordSource] = []
        for path in paths:
            source: RecordSource = opened.enter_context(open_source(path))
            sources.append(source if schema is None else SchemaSource(source, schema))
        merged = sources[0] if len(sources) == 1 else MergedSource(sources)
        opened.pop_all()
    return merged
