"""Writes the trades of a store as a dataset, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mdtool.adapters.datasets.partitions import SYMBOL
from mdtool.adapters.datasets.writer import PartitionedWriter, staged
from mdtool.core.errors import InputError
from mdtool.services.store.stored import StoredTrades


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Where a dataset goes, and what it is like.

    Attributes
    ----------
    path : Path
        A file where it is not partitioned, else a folder.
    format : str
        One of `mdtool.adapters.datasets.FORMATS`.
    keys : tuple of str
        What its folders are for, the outer one first.
    replaces : bool
        Whether a dataset that is there gives way.
    """

    path: Path
    format: str
    keys: tuple[str, ...]
    replaces: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of it."""

    trades: int
    files: int


def export(trades: StoredTrades, spec: DatasetSpec, progress: Callable[[int], None]) -> Exported:
    """Write trades as a dataset, which is there as a whole once this returns.

    Files that are not for one symbol are in order of time.

    Parameters
    ----------
    trades : StoredTrades
    spec : DatasetSpec
    progress : callable
        Told how many trades have been written, now and then.

    Raises
    ------
    InputError
        When there are none.
    OutputError
        When it exists already, cannot be written, or cannot tell a trade; nothing is left of it.
    """
    extension = f".{spec.format}"
    with staged(spec.path, extension, spec.replaces, is_folder=bool(spec.keys)) as path:
        with PartitionedWriter(path, spec.format, spec.keys) as writer:
            for rows in trades.by_symbol() if SYMBOL in spec.keys else trades.by_time():
                writer.write(rows)
                progress(writer.trades)
        if not writer.trades:
            raise InputError("the store has no such trades; nothing was written")
        return Exported(writer.trades, writer.files)
