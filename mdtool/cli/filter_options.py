"""The options that select records, of every command that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from mdtool.cli.completion import schemas, symbols
from mdtool.cli.options import option_bundle
from mdtool.core.errors import UsageError
from mdtool.core.units import parse_moment, parse_option

if TYPE_CHECKING:
    from mdtool.adapters.dbn_select import Selection
    from mdtool.adapters.dbn_source import RecordSource


@dataclass(frozen=True, slots=True)
class RangeOptions:
    """The symbols and times that a command reads."""

    symbols: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Only these symbols, by any of their names, separated by commas.",
            autocompletion=symbols,
        ),
    ] = None
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From this index timestamp on: ISO-8601 or nanoseconds."),
    ] = None
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Up to this index timestamp, exclusive.")
    ] = None

    def open(
        self, paths: Sequence[str], schema: str | None = None, consolidates: bool = False
    ) -> RecordSource:
        """Open files, or `-`, as one stream of the selected records in order of time.

        Parameters
        ----------
        paths : sequence of str
        schema : str, optional
            The only schema to read.
        consolidates : bool
            Whether a symbol is one instrument at all publishers of its dataset.

        Raises
        ------
        UsageError
            When an option is not a valid time, the range is empty, or there is no such schema.
        InputError
            When a file cannot be read or cannot have such records.
        """
        from mdtool.adapters.dbn_files import open_merged
        from mdtool.adapters.dbn_select import selected
        from mdtool.core.instruments import Instruments

        selection = self.selection()
        instruments = Instruments(consolidates)
        return selected(open_merged(paths, schema, instruments), selection)

    @property
    def start_ns(self) -> int | None:
        """The first index timestamp to read, None for all.

        Raises
        ------
        UsageError
            When it is not a valid time.
        """
        return None if self.start is None else parse_option("--start", parse_moment, self.start)

    def selection(self) -> Selection | None:
        """Return the symbols and times to read, None for all.

        Raises
        ------
        UsageError
            When an option is not a valid time, or the range is empty.
        """
        from mdtool.adapters.dbn_select import Selection

        start_ns = self.start_ns
        end_ns = None if self.end is None else parse_option("--end", parse_moment, self.end)
        if start_ns is not None and end_ns is not None and start_ns >= end_ns:
            raise UsageError(f"--start {self.start} is not before --end {self.end}")
        symbols = None
        if self.symbols is not None:
            symbols = tuple(name for text in self.symbols.split(",") if (name := text.strip()))
            if not symbols:
                raise UsageError(f"--symbols {self.symbols!r} names no symbol")
        if symbols is None and start_ns is None and end_ns is None:
            return None
        return Selection(symbols, start_ns, end_ns)


@dataclass(frozen=True, slots=True)
class FilterOptions(RangeOptions):
    """The records that a command reads."""

    schema: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA",
            help="Only this schema; trades are taken out of MBO and MBP too, each once.",
            autocompletion=schemas,
        ),
    ] = None

    def open(
        self, paths: Sequence[str], schema: str | None = None, consolidates: bool = False
    ) -> RecordSource:
        """Open files as `RangeOptions.open`, of the schema that the option names."""
        return RangeOptions.open(self, paths, schema or self.schema, consolidates)


with_range = option_bundle(RangeOptions, "selected", "Selection")
"""Give a command the options for symbols and times, as its `selected: RangeOptions` parameter."""
with_filter = option_bundle(FilterOptions, "selected", "Selection")
"""Give a command the options that choose records, as its `selected: FilterOptions` parameter."""
