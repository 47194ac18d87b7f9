"""Files and standard input as bytes to read, before it is known what they hold."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from typing import Final

from mdtool.adapters.containers import Member, find_member
from mdtool.core.errors import InputError
from mdtool.wire.compression import Inflater, Unwrapper, compression_of

STDIN: Final = "-"
_PIPE_BYTES: Final = 1 << 20
_PEEK_BYTES: Final = 1 << 12
_STDIN_FD: Final = 0
_CLOSED: Final = -1
_DBN_MAGIC: Final = b"DBN"


class ByteSource:
    """An open file, a file in a zip, or standard input.

    A file that has a path is closed at its end, and opened again if it is read further.

    Parameters
    ----------
    name : str
        What messages call it.
    fd : int
        Open, at its first byte.
    size_bytes : int or None
        How many bytes there are in all, None where that is not known.
    path : str, optional
        Of a regular file.

    Attributes
    ----------
    name, size_bytes
        As the parameters.
    bytes_read : int
        How many were read so far.
    is_closed_between : bool
        Whether the file is closed between reads: of thousands of files that are read side by side,
        few are open.
    """

    can_seek = True

    def __init__(
        self, name: str, fd: int, size_bytes: int | None = None, path: str | None = None
    ) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.bytes_read = 0
        self.is_closed_between = False
        self._fd = fd
        self._path = path
        self._offset = 0
        """Where a file continues that is closed."""
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
        return self._read_file(n)

    def _read_file(self, n: int) -> bytes:
        try:
            if self._fd == _CLOSED:
                self._reopen()
            data = os.read(self._fd, n)
            if self._path is not None and (self.is_closed_between or not data):
                self._offset = os.lseek(self._fd, 0, os.SEEK_CUR)
                self.close()
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from error
        return data

    def _reopen(self) -> None:
        assert self._path is not None
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror}") from error
        os.lseek(self._fd, self._offset, os.SEEK_SET)

    def seek(self, offset: int) -> None:
        """Continue at this byte of a file, one of which `can_seek` is true and the size known."""
        self._peeked = b""
        if self._fd == _CLOSED:
            self._reopen()
        os.lseek(self._fd, offset, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        fd, self._fd = self._fd, _CLOSED
        if fd not in {_STDIN_FD, _CLOSED}:
            os.close(fd)


class _ZippedSource(ByteSource):
    """A file in a zip."""

    can_seek = False

    def __init__(self, name: str, fd: int, member: Member) -> None:
        super().__init__(name, fd, member.size_bytes, member.archive)
        self._left = member.stored_bytes
        self._inflater = Inflater() if member.is_deflated else None
        os.lseek(fd, member.begin, os.SEEK_SET)

    def _read(self, n: int) -> bytes:
        inflater = self._inflater
        if inflater is None:
            return self._take(n)
        while not inflater.is_over:
            stored = self._take(n) if inflater.needs_input else b""
            if not stored and inflater.needs_input:
                raise InputError(f"{self.name}: damaged zip (the file in it ends early)")
            try:
                data = inflater.feed(stored)
            except InputError as error:
                raise InputError(f"{self.name}: {error}") from error
            if data:
                return data
        self.close()
        return b""

    def _take(self, n: int) -> bytes:
        """Read bytes of the zip that are the file's."""
        data = self._read_file(min(n, self._left)) if self._left else b""
        self._left -= len(data)
        if not self._left:
            self.close()
        return data


def open_bytes(path: str) -> ByteSource:
    """Open a file, one in a zip, or standard input for `-`.

    Raises
    ------
    InputError
        When there is no such file, it cannot be read, or standard input is a terminal.
    """
    if path == STDIN:
        return _open_stdin()
    member = None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        member = find_member(path) if isinstance(error, NotADirectoryError) else None
        if member is None:
            raise InputError(f"{path}: {error.strerror}") from error
        fd = os.open(member.archive, os.O_RDONLY | os.O_CLOEXEC)
    if member is not None:
        return _ZippedSource(path, fd, member)
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        os.close(fd)
        raise InputError(f"{path}: is a directory; give the DBN files in it")
    if not stat.S_ISREG(status.st_mode):
        return ByteSource(path, fd)
    return ByteSource(path, fd, status.st_size, path)


def holds_dbn(path: str) -> bool:
    """Return whether a file is DBN, compressed or not, by its first bytes."""
    try:
        with contextlib.closing(open_bytes(path)) as source:
            pieces = source.decompressed(_PEEK_BYTES)
            return next((piece for piece in pieces if piece), b"")[: len(_DBN_MAGIC)] == _DBN_MAGIC
    except InputError:
        return False


def _open_stdin() -> ByteSource:
    if sys.stdin is not None and sys.stdin.isatty():
        raise InputError("stdin: is a terminal; pipe a DBN stream into it or name a file")
    # A larger pipe lets its writer run ahead, and gives larger batches under load.
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(_STDIN_FD, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ByteSource("stdin", _STDIN_FD)
