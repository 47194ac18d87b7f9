"""DBN files and standard input opened as sources, one by one or merged by time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Sequence
from functools import partial
from typing import Final

from mdtool.adapters.dbn_merge import MergedSource
from mdtool.adapters.dbn_select import SchemaSource
from mdtool.adapters.dbn_source import DbnSource, RecordSource
from mdtool.core.errors import InputError, UsageError

STDIN: Final = "-"
_PIPE_BYTES: Final = 1 << 20
_STDIN_FD: Final = 0


def open_source(path: str) -> DbnSource:
    """Open a DBN file, or standard input for `-`, and read its metadata.

    Raises
    ------
    InputError
        When there is no such file, it cannot be read, or holds no DBN stream.
    """
    if path == STDIN:
        return _open_stdin()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        os.close(fd)
        raise InputError(f"{path}: is a directory; give the DBN files in it")
    size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
    return DbnSource(path, partial(os.read, fd), partial(os.close, fd), size_bytes)


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


def _open_stdin() -> DbnSource:
    if sys.stdin is not None and sys.stdin.isatty():
        raise InputError("stdin: is a terminal; pipe a DBN stream into it or name a file")
    # A larger pipe lets whoever writes it run ahead, and gives larger batches under load.
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(_STDIN_FD, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return DbnSource("stdin", partial(os.read, _STDIN_FD), lambda: None)


def _unreadable(path: str, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    return InputError(f"{path}: {error.strerror}")
