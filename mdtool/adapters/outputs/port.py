"""What an output is, and what a user asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mdtool.core.records import Records


class Output(Protocol):
    """Where records go, in arrays of any length, each of one rtype.

    One that was written nothing holds nothing, and need not be closed.
    """

    def write(self, records: Records) -> None:
        """Take records over. Streams pass them on at once, columnar files once a group is full.

        Raises
        ------
        BrokenPipeError
            When whoever read the output has gone.
        OutputError
            When it cannot be written for another reason.
        """
        ...

    def flush(self) -> None:
        """Pass on what is held back, where the format can be read before its end."""
        ...

    def close(self) -> None:
        """Complete the output. What was written by then can be read, however little it is."""
        ...


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """How and where records are to be written.

    Attributes
    ----------
    format : str
        One of `mdtool.adapters.outputs.FORMATS`.
    path : str or None
        The file; None for standard output.
    replaces : bool
        Whether a file that is there gives way.
    maps_symbols : bool
        Whether text and columns get a `symbol`.
    is_pretty : bool
        Whether prices are written as decimals and times as times.
    """

    format: str
    path: str | None = None
    replaces: bool = False
    maps_symbols: bool = False
    is_pretty: bool = False
