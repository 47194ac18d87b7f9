"""The port to the files of a dataset: a writer and a reader for each format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from mdtool.adapters.datasets.trade_rows import TradeRows


class DatasetWriter(Protocol):
    """Writes one file of a dataset."""

    def write(self, rows: TradeRows) -> None:
        """Append rows.

        Raises
        ------
        OutputError
            When the format cannot represent a trade; the message names it.
        OSError
            When the file cannot be written.
        """
        ...

    def close(self) -> None:
        """Complete the file."""
        ...


OpenWriter = Callable[[Path, bool], DatasetWriter]
"""Creates a file; the second argument is whether it has a column for the symbol."""


class DatasetFile(Protocol):
    """Reads one file of a dataset.

    Raises
    ------
    InputError
        By the constructor, when the file cannot be read, lacks columns or has others.
    """

    @property
    def path(self) -> Path:
        """Its path."""
        ...

    @property
    def size_bytes(self) -> int:
        """Its size."""
        ...

    def rows(self) -> Iterator[TradeRows]:
        """Yield its rows, in pieces that are not empty.

        Raises
        ------
        InputError
            When it is damaged, or a value is not valid for a stored trade.
        """
        ...
