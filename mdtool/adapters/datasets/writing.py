"""Writes rows into the files of a dataset, each where its folders say."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from mdtool.adapters.datasets import open_writer
from mdtool.adapters.datasets.partitions import DATE, SYMBOL, folder_of
from mdtool.adapters.datasets.port import DatasetWriter
from mdtool.adapters.datasets.rows import TradeRows
from mdtool.adapters.datasets.staging import sync
from mdtool.core.units import NS_PER_DAY

_NAME: Final = "trades"


class PartitionedWriter:
    """Has one file open at a time: rows that belong into one file come one after another.

    A context manager, which completes the last file unless there was an error.

    Parameters
    ----------
    path : Path
        A file where there are no keys, else a folder.
    file_format : str
        One of `FORMATS`.
    keys : sequence of str
        What folders are for: of `partitions.KEYS`, the outer one first.

    Attributes
    ----------
    trades, files : int
        How many there are by now.
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
            When the format cannot tell one of them, or a folder's name its symbol.
        OSError
            When they cannot be written.
        """
        day = rows.exchange_timestamp // NS_PER_DAY
        changes = np.zeros(max(0, len(rows) - 1), np.bool_)
        if DATE in self._keys:
            changes |= day[1:] != day[:-1]
        if SYMBOL in self._keys:
            changes |= rows.symbol[1:] != rows.symbol[:-1]
        edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(rows)]
        for begin, end in itertools.pairwise(edges):
            if begin < end:
                symbol = rows.symbols[int(rows.symbol[begin])]
                self._writer_of(symbol, int(day[begin])).write(rows.take(slice(begin, end)))
                self.trades += end - begin

    def __enter__(self) -> Self:
        if not self._keys:
            self._begin(self._path)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._complete()
        elif self._writer is not None:
            # What is half-written is of no use to anyone; this lets go of it.
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
