"""The bytes of an output on their way: to standard output or to a file."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Final

from mdtool.core.errors import OutputError

_MODE: Final = 0o666


class Destination:
    """Writes bytes through at once, without a buffer of its own.

    Parameters
    ----------
    path : str or None
        A file to create; None for standard output, which stays open.
    replaces : bool
        Whether a file that is there gives way. Whoever has it open, this process too, goes on
        reading what it was.

    Raises
    ------
    OutputError
        When the file exists already or cannot be created.
    """

    def __init__(self, path: str | None = None, replaces: bool = False) -> None:
        self.name = path or "stdout"
        self._owns_fd = path is not None
        self._fd = sys.stdout.fileno() if path is None else _create(path, replaces)

    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`.

        Raises
        ------
        BrokenPipeError
            When whoever read it has gone.
        OutputError
            When the disk is full, say.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                # A terminal or pipe shared with a process that made it non-blocking.
                select.select([], [self._fd], [])
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(f"{self.name}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        if self._owns_fd:
            os.close(self._fd)
            self._owns_fd = False


def _create(path: str, replaces: bool) -> int:
    file = Path(path)
    try:
        if file.exists() and not file.is_file():
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        if replaces:
            file.unlink(missing_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except FileExistsError as error:
        raise OutputError(f"{path}: exists already; -f replaces it") from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
