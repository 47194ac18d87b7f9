"""Holds a SQLite store for one process: a lock on a file beside it, gone with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO, Final

from mdtool.adapters.stores.errors import StoreClaimedError, StoreUnavailableError

SUFFIX: Final = ".lock"


class MarketClaim:
    """The right to write a store's market.

    Parameters
    ----------
    path : Path
        The store; links are followed, so that all its names share one lock.
    address : str
        For messages.
    """

    def __init__(self, path: Path, address: str) -> None:
        self._path = Path(os.path.realpath(path) + SUFFIX)
        self._address = address
        self._file: BinaryIO | None = None

    def hold(self) -> None:
        """Take it until `release`, or until the process ends.

        Raises
        ------
        StoreClaimedError
            When another holds it.
        StoreUnavailableError
            When there cannot be a file beside the store.
        """
        if self._file is not None:
            return
        try:
            file = self._path.open("ab+", buffering=0)
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._address}: {self._path}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(20).decode("ascii", "replace").strip()
            file.close()
            raise StoreClaimedError(
                f"{self._address}: process {holder or '(unknown)'} keeps its market there;"
                " end that one, or name another store"
            ) from error
        file.truncate(0)
        file.write(b"%d\n" % os.getpid())
        self._file = file

    def release(self) -> None:
        """Let it go."""
        if self._file is not None:
            self._file.close()
            self._file = None
