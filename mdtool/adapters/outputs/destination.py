"""Where the bytes of an output are written: standard output or a file."""

from __future__ import annotations

import errno
import os
import secrets
import select
import sys
import weakref
from pathlib import Path
from typing import Final, Protocol

import zstandard

from mdtool.core.errors import OutputError

_MODE: Final = 0o666
_EXISTS: Final = "exists already; -f replaces it"


class Writer(Protocol):
    """What an output writes its bytes to."""

    name: str

    @property
    def is_waiting(self) -> bool:
        """As `Destination.is_waiting`."""
        ...

    def write_head(self, data: bytes | memoryview) -> None:
        """As `Destination.write_head`."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """As `Destination.write`."""
        ...

    def flush(self) -> None:
        """Write what is buffered."""
        ...

    def close(self) -> None:
        """As `Destination.close`."""
        ...


class Destination:
    """Writes bytes through at once, without a buffer of its own.

    A file is created with the first bytes after its head, or when it is closed: a command that ends
    before it has output creates no file, and leaves the one that it would replace as it was. A
    staged file has a hidden name beside its own until it is closed, and is removed if it never is.

    Parameters
    ----------
    path : str or None
        A file to create; None for standard output, which stays open.
    replaces : bool
        Whether an existing file is replaced. Processes that have it open, this one
        too, continue reading the old content.
    is_staged : bool
        Whether the file appears under its name only once it is complete.

    Raises
    ------
    OutputError
        When the file exists already or cannot be made.
    """

    def __init__(
        self, path: str | None = None, replaces: bool = False, is_staged: bool = True
    ) -> None:
        self.name = path or "stdout"
        self._path = path
        self._replaces = replaces
        self._is_staged = is_staged
        self._part: Path | None = None
        """The staged file, while it is not complete."""
        self._head = b""
        """The first bytes of a file that is not created yet."""
        self._fd = sys.stdout.fileno() if path is None else _opened(path, replaces)

    @property
    def is_waiting(self) -> bool:
        """Whether it is a file that is not created before there is more than its head."""
        return self._fd is None

    def write_head(self, data: bytes | memoryview) -> None:
        """Write the head: at once, or in a file together with the first bytes after it.

        Raises
        ------
        BrokenPipeError, OutputError
            As `write`.
        """
        if self._fd is None:
            self._head += data
        else:
            self.write(data)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`.

        Raises
        ------
        BrokenPipeError
            When the reader has closed it.
        OutputError
            When the disk is full, say, or another file was made by that name.
        """
        fd = self._begun()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:
                # A terminal or pipe shared with a process that made it non-blocking.
                select.select([], [fd], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(f"{self.name}: {error.strerror}") from error

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        """Complete the file, which is created by then.

        Raises
        ------
        OutputError
            As `write`.
        """
        if self._path is None:
            return
        os.close(self._begun())
        path, self._path = self._path, None
        if self._part is not None:
            _publish(self._part, path, self._replaces)
            self._remove_part()

    def _begun(self) -> int:
        """Return the open file, with its head written."""
        if self._fd is None:
            assert self._path is not None
            if self._is_staged:
                self._part = Path(self._path).parent / f".mdtool-{secrets.token_hex(8)}.part"
                # Also when the process ends without `close`.
                self._remove_part = weakref.finalize(self, self._part.unlink, missing_ok=True)
                self._fd = _make(self._part, self._path)
            else:
                if self._replaces:
                    _unlink(self._path)
                self._fd = _make(Path(self._path), self._path)
            self.write(self._head)
        return self._fd


class ZstdDestination:
    """Compresses what is written to another destination, as one zstd frame.

    Parameters
    ----------
    destination : Destination
        Closed together with this one.
    """

    def __init__(self, destination: Destination) -> None:
        self.name = destination.name
        self._destination = destination
        self._compressor = zstandard.ZstdCompressor().compressobj()

    @property
    def is_waiting(self) -> bool:
        """As `Destination.is_waiting`."""
        return self._destination.is_waiting

    def write_head(self, data: bytes | memoryview) -> None:
        """As `Destination.write_head`."""
        self._destination.write_head(self._compressor.compress(data))

    def write(self, data: bytes | memoryview) -> None:
        """Compress `data`; full blocks are written."""
        self._destination.write(self._compressor.compress(data))

    def flush(self) -> None:
        """End the block, so that all so far can be read."""
        self._destination.write(self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))

    def close(self) -> None:
        """End the frame, and complete the file."""
        self._destination.write(self._compressor.flush())
        self._destination.close()


def _opened(path: str, replaces: bool) -> int | None:
    """Open a pipe or a device; return None for a file that can probably be created.

    Raises
    ------
    OutputError
        As `Destination`.
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
    if os.path.lexists(path) and not replaces:
        raise OutputError(f"{path}: {_EXISTS}")
    if not file.parent.is_dir():
        raise OutputError(f"{path}: {os.strerror(errno.ENOENT)}")
    if not os.access(file.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise OutputError(f"{path}: {os.strerror(errno.EACCES)}")
    return None


def _make(file: Path, path: str) -> int:
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except FileExistsError as error:
        raise OutputError(f"{path}: {_EXISTS}") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def _unlink(path: str) -> None:
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def _publish(part: Path, path: str, replaces: bool) -> None:
    """Give a complete file its name."""
    target = Path(path)
    try:
        if replaces:
            part.replace(target)
            return
        try:
            target.hardlink_to(part)  # fails if the target exists by now; a rename would not
        except PermissionError:  # a file system without hard links
            part.rename(target)
    except FileExistsError as error:
        raise OutputError(f"{path}: {_EXISTS}") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
