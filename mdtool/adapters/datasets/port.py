"""What writes and reads the files of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from mdtool.adapters.datasets.rows import TradeRows


class DatasetWriter(Protocol):
    """One file of a dataset being written."""

    def write(self, rows: TradeRows) -> None:
        """Take rows, in the order in which they are to stand.

        Raises
        ------
        OutputError
            When the format cannot tell a trade; the message names it.
        OSError
            When the file cannot be written.
        """
        ...

    def close(self) -> None:
        """Complete the file."""
        ...


OpenWriter = Callable[[Path, bool], DatasetWriter]
"""Begins a file; the second argument says whether it has a column for the symbol."""


class DatasetFile(Protocol):
    """One file of a dataset to be read.

    Raises
    ------
    InputError
        When it is made: when the file cannot be read, or lacks columns, or has others.
    """

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        ...

    def rows(self) -> Iterator[TradeRows]:
        """Yield what it holds, in pieces that are not empty.

        Raises
        ------
        InputError
            When it is damaged, or a value is none that a stored trade can have.
        """
        ...
