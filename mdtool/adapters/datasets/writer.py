"""Writes datasets: rows into the files of their partitions, and all files at once into place."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from mdtool.adapters.datasets import open_writer
from mdtool.adapters.datasets.partitions import DATE, KEYS, SYMBOL, folder_of
from mdtool.adapters.datasets.port import DatasetWriter
from mdtool.adapters.datasets.trade_rows import TradeRows
from mdtool.core.errors import OutputError
from mdtool.core.interrupts import uninterrupted
from mdtool.core.units import NS_PER_DAY

_NAME: Final = "trades"
_PART: Final = ".part"
_OLD: Final = ".old"


class PartitionedWriter:
    """Writes one file at a time: rows of one file must follow each other.

    A context manager, which completes the last file unless there was an error.

    Parameters
    ----------
    path : Path
        A file where there are no keys, else a folder.
    file_format : str
        One of `FORMATS`.
    keys : sequence of str
        The keys of folders, of `partitions.KEYS`, the outer one first.

    Attributes
    ----------
    trades, files : int
        How many were written.
    """

    def __init__(self, path: Path, file_format: str, keys: Sequence[str]) -> None:
        self.trades = 0
        self.files = 0
        self._path = path
        self._format = file_format
        self._open = open_writer(file_format)
        self._keys = keys
        self._file: Path | None = None
        self._writer: DatasetWriter | None = None

    def write(self, rows: TradeRows) -> None:
        """Write rows in order.

        Raises
        ------
        OutputError
            When the format cannot represent one of them, or a folder's name its symbol.
        OSError
            When they cannot be written.
        """
        trades = rows.trades
        day = trades.ts_event // NS_PER_DAY
        changes = np.zeros(max(0, len(rows) - 1), np.bool_)
        if DATE in self._keys:
            changes |= day[1:] != day[:-1]
        if SYMBOL in self._keys:
            changes |= trades.symbol[1:] != trades.symbol[:-1]
        edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(rows)]
        for begin, end in itertools.pairwise(edges):
            if begin < end:
                symbol = rows.symbols[int(trades.symbol[begin])]
                self._writer_of(symbol, int(day[begin])).write(rows[begin:end])
                self.trades += end - begin

    def __enter__(self) -> Self:
        if not self._keys:
            self._begin(self._path)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._complete()
        elif self._writer is not None:
            # The caller deletes the incomplete file; this closes it.
            with contextlib.suppress(OSError):
                self._writer.close()

    def _writer_of(self, symbol: str, day: int) -> DatasetWriter:
        if self._keys:
            folder = self._path / folder_of(self._keys, symbol, day)
            file = folder / f"{_NAME}.{self._format}"
            if file != self._file:
                self._complete()
                folder.mkdir(parents=True, exist_ok=True)
                self._begin(file)
        assert self._writer is not None
        return self._writer

    def _begin(self, file: Path) -> None:
        self._file = file
        self._writer = self._open(file, SYMBOL not in self._keys)
        self.files += 1

    def _complete(self) -> None:
        if self._writer is not None and self._file is not None:
            self._writer.close()
            sync(self._file)
            self._writer = None


@contextlib.contextmanager
def staged(target: Path, extension: str, replaces: bool, is_folder: bool) -> Iterator[Path]:
    """Yield a path whose content is moved to `target` when the block ends without an error.

    Until then `target` stays as it is. After an error nothing that was written remains.

    Parameters
    ----------
    target : Path
    extension : str
        Of the files of a folder; only a folder without other files may be replaced.
    replaces : bool
        Whether an existing `target` may be replaced.
    is_folder : bool
        Whether to yield an existing folder, rather than the path of a file.

    Raises
    ------
    OutputError
        When `target` exists and may not be replaced, or cannot be written.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - symbolic links stay as they are
    _check_place(target, extension, replaces, is_folder)
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Readers of a whole folder skip names that begin with a dot.
        scratch = Path(tempfile.mkdtemp(_PART, f".{target.name}.", target.parent))
        made = scratch / target.name
        if is_folder:
            made.mkdir()
        yield made
        if is_folder:
            _put_folder(made, target, scratch)
        else:
            _put_file(made, target, replaces)
    except OSError as error:
        # Arrow's errors have long texts of their own.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(f"{target}: {reason}; nothing was written") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until the content of a file or folder has reached the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_place(target: Path, extension: str, replaces: bool, is_folder: bool) -> None:
    if not is_folder:
        if target.is_dir():
            raise OutputError(f"{target}: is a folder; give a file, or --partition date,symbol")
        if target.exists() and not replaces:
            raise OutputError(f"{target}: exists already; -f replaces it")
        return
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file; give a folder, or --partition none")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not replaces:
        raise OutputError(f"{target}: exists already; -f replaces it")
    for path in target.rglob("*"):
        if not _is_of_dataset(path.relative_to(target), path.is_dir(), extension):
            raise OutputError(f"{target}: holds {path.relative_to(target)}; -f replaces datasets")


def _is_of_dataset(path: Path, is_dir: bool, extension: str) -> bool:
    folders = path.parts if is_dir else path.parts[:-1]
    return all(part.partition("=")[0] in KEYS for part in folders) and (
        is_dir or path.name.endswith(extension)
    )


def _put_file(made: Path, target: Path, replaces: bool) -> None:
    sync(made)
    if replaces:
        made.replace(target)
        return
    try:
        target.hardlink_to(made)  # fails if the target exists by now; a rename would not
    except FileExistsError as error:
        raise OutputError(f"{target}: exists already; -f replaces it") from error
    except PermissionError:  # a file system without hard links
        made.rename(target)


def _put_folder(made: Path, target: Path, scratch: Path) -> None:
    if not target.is_dir() or not any(target.iterdir()):
        made.rename(target)
        return
    old = scratch / f"{target.name}{_OLD}"
    with uninterrupted():  # neither dataset has the name in between, and the scratch is deleted
        target.rename(old)
        try:
            made.rename(target)
        except OSError:
            old.rename(target)
            raise
