"""Files and standard input as bytes to read, before it is known what they hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from typing import Final

from mdtool.core.errors import InputError
from mdtool.wire.compression import Unwrapper, compression_of

STDIN: Final = "-"
_PIPE_BYTES: Final = 1 << 20
_PEEK_BYTES: Final = 1 << 12
_STDIN_FD: Final = 0


class ByteSource:
    """An open file, or standard input.

    Attributes
    ----------
    name : str
        What messages call it.
    size_bytes : int or None
        How many bytes there are in all, None where that is not known.
    bytes_read : int
        How many were read so far.
    """

    def __init__(self, name: str, fd: int, size_bytes: int | None = None) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.bytes_read = 0
        self._fd = fd
        self._peeked = b""

    def read(self, n: int) -> bytes:
        """Wait for bytes and return those that have come, at most `n`; none at the end.

        Raises
        ------
        InputError
            When they cannot be read.
        """
        if self._peeked:
            data, self._peeked = self._peeked[:n], self._peeked[n:]
        else:
            data = self._read(n)
        self.bytes_read += len(data)
        return data

    def peek(self) -> bytes:
        """Wait for the first bytes and return them, without taking them; none at the end."""
        if not self._peeked:
            self._peeked = self._read(_PEEK_BYTES)
        return self._peeked

    def decompressed(self, n: int) -> Iterator[bytes]:
        """Yield the bytes that have come, at most `n` read at a time, decompressed if need be.

        Raises
        ------
        InputError
            When they cannot be read, or are damaged.
        """
        unwrapper = None if compression_of(self.peek()) is None else Unwrapper()
        while data := self.read(n):
            if unwrapper is None:
                yield data
                continue
            yield unwrapper.feed(data)
            while unwrapper.has_more:
                yield unwrapper.feed(b"")
        if unwrapper is not None:
            try:
                unwrapper.finish()
            except InputError as error:
                raise InputError(f"{self.name}: {error}") from error

    def _read(self, n: int) -> bytes:
        try:
            return os.read(self._fd, n)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from error

    def seek(self, offset: int) -> None:
        """Continue at this byte of a file, one whose `size_bytes` is known."""
        self._peeked = b""
        os.lseek(self._fd, offset, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._fd != _STDIN_FD:
            os.close(self._fd)


def open_bytes(path: str) -> ByteSource:
    """Open a file, or standard input for `-`.

    Raises
    ------
    InputError
        When there is no such file, it cannot be read, or standard input is a terminal.
    """
    if path == STDIN:
        return _open_stdin()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        os.close(fd)
        raise InputError(f"{path}: is a directory; give the DBN files in it")
    return ByteSource(path, fd, status.st_size if stat.S_ISREG(status.st_mode) else None)


def _open_stdin() -> ByteSource:
    if sys.stdin is not None and sys.stdin.isatty():
        raise InputError("stdin: is a terminal; pipe a DBN stream into it or name a file")
    # A larger pipe lets its writer run ahead, and gives larger batches under load.
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(_STDIN_FD, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ByteSource("stdin", _STDIN_FD)
