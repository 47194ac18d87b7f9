"""What a process reads again at SIGHUP: the files of its certificates and of API keys."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Final, Protocol

from mdtool.core.errors import InputError


class Reloadable(Protocol):
    """Something that came from files."""

    def read_again(self) -> None:
        """Read the files again, also where they look unchanged; those of no use change nothing."""
        ...


_IN_USE: Final = weakref.WeakSet[Reloadable]()
"""A signal reaches a process, and so does this: what its services use, until they forget it."""


def add(reloadable: Reloadable) -> None:
    """Have something read again, as long as somebody uses it."""
    _IN_USE.add(reloadable)


def is_anything_in_use() -> bool:
    """Return whether there is anything to read again."""
    return bool(_IN_USE)


def read_again() -> None:
    """Read all of it again."""
    for reloadable in list(_IN_USE):
        reloadable.read_again()


class FileStamp:
    """Tells whether a file has changed.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputError
        When the file exists, and cannot be looked at; of `has_changed` likewise.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = self._stat()

    def has_changed(self) -> bool:
        """Return whether the file is another one than when this was last called."""
        stamp = self._stat()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        return True

    def forget(self) -> None:
        """Have the next `has_changed` return that it has, also where the file looks the same."""
        self._stamp = None

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return (0, 0, 0)
        except OSError as error:
            raise InputError(f"{self._path}: {error.strerror}") from error
        return found.st_mtime_ns, found.st_size, found.st_ino
