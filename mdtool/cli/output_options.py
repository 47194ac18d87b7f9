"""The output options of every command that writes records, and what they open."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Protocol, Self

import typer

from mdtool.cli.options import option_bundle
from mdtool.core.errors import InputError, OutputError, UsageError
from mdtool.core.interrupts import uninterrupted

if TYPE_CHECKING:
    import databento_dbn as dbn

    from mdtool.adapters.outputs import Output, OutputSpec
    from mdtool.core.batch import Batch
    from mdtool.core.interleaved import Interleaved

log = logging.getLogger(__name__)


class LimitReached(Exception):  # noqa: N818 - the wish of the user, not an error
    """The `--limit` is reached, which ends the `with` block of a sink."""


class Completable(Protocol):
    """What a command writes to, and completes at the end."""

    def close(self) -> None:
        """Complete the output."""
        ...


class OutputBlock:
    """The `with` block in which a command writes its output. It ends once the limit is reached.

    An error that ends it before anything was written leaves no file. A file made of a finite input
    appears complete or, if the command is interrupted or cannot write it, not at all; of an input
    that breaks off it has what came before. A file made of an endless input is completed, unless it
    cannot be written.

    Parameters
    ----------
    output : Completable
    path : str, optional
        The file that is written.
    is_endless : bool
        Whether the input ends only when the command is interrupted.
    """

    def __init__(self, output: Completable, path: str | None, is_endless: bool) -> None:
        self._completable = output
        self._path = path
        self._is_endless = is_endless
        self._is_begun = False

    def writing(self, end: Callable[[], object] | None = None) -> AbstractContextManager[None]:
        """Return a block that Ctrl-C does not leave in the middle of a file that it completes.

        Parameters
        ----------
        end : callable, optional
            Called at Ctrl-C, to have the block end by itself.
        """
        return uninterrupted(end) if self._path and self._is_endless else nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._is_dropped(error):
            if self._is_begun and not self._is_endless:
                log.warning("%s: not written, because the command did not end", self._path)
        elif self._is_begun or error is None:
            with self.writing():
                self._completable.close()
        return isinstance(error, LimitReached)

    def _is_dropped(self, error: BaseException | None) -> bool:
        if error is None or isinstance(error, LimitReached | InputError):
            return False
        if isinstance(error, OutputError):
            return True
        return self._path is not None and not self._is_endless


class Sink(OutputBlock):
    """The sink of a command's records.

    Parameters
    ----------
    output : Output
    limit : int, optional
        The most records to write, not counting control records of a live stream.
    path, is_endless
        As `OutputBlock`.

    Attributes
    ----------
    records : int
        How many were written.
    """

    def __init__(
        self,
        output: Output,
        limit: int | None,
        path: str | None = None,
        is_endless: bool = False,
    ) -> None:
        super().__init__(output, path, is_endless)
        self.records = 0
        self._output = output
        self._limit = limit

    def write(self, batch: Batch | Interleaved, *, is_counted: bool = True) -> None:
        """Write records; those that only describe others do not count up to the limit.

        Raises
        ------
        LimitReached
            When the limit is reached: further records are not needed.
        BrokenPipeError, OutputError
            As `Output.write`.
        """
        from mdtool.wire.dbn_records import CONTROL_RTYPES

        if len(batch) == 0:
            return
        self._is_begun = True
        if not is_counted or batch.rtypes <= CONTROL_RTYPES:
            with self.writing():
                self._output.write(batch)
            return
        if self._limit is not None and len(batch) > self._limit - self.records:
            batch = batch[: self._limit - self.records]
        with self.writing():
            self._output.write(batch)
        self.records += len(batch)
        if self.records == self._limit:
            raise LimitReached

    def flush(self) -> None:
        """Write what is buffered, where the format can be read before its end."""
        if self._is_begun:
            with self.writing():
                self._output.flush()


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How a command writes records: a table on a terminal, else DBN."""

    as_json: Annotated[bool, typer.Option("--json", "-J", help="One JSON object a line.")] = False
    as_csv: Annotated[bool, typer.Option("--csv", "-C", help="CSV.")] = False
    as_dbn: Annotated[bool, typer.Option("--dbn", "-D", help="DBN, the default in a pipe.")] = False
    path: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a .dbn, .csv, .json or .jsonl file, compressed if .zst follows, or a "
            ".parquet or .arrow file.",
        ),
    ] = None
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it exists.")] = (
        False
    )
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-l",
            metavar="N",
            min=1,
            help="Stop after N records.",
        ),
    ] = None
    map_symbols: Annotated[
        bool, typer.Option("--map-symbols", "-s", help="Add a symbol to CSV and JSON.")
    ] = False
    pretty: Annotated[
        bool,
        typer.Option(
            "--pretty",
            "-p",
            help="Decimal prices and ISO-8601 times in CSV and JSON.",
        ),
    ] = False
    publishers: Annotated[
        bool,
        typer.Option(
            "--publishers", help="Add the publisher's name to CSV, JSON, Parquet and Arrow."
        ),
    ] = False
    prices: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Prices in Parquet and Arrow: decimal, float or int, in units of 1e-9. "
            "[default: decimal]",
        ),
    ] = None
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False

    @property
    def is_table(self) -> bool:
        """Whether records are shown as a table for people, on this terminal."""
        is_chosen = self.as_json or self.as_csv or self.as_dbn or self.path is not None
        return not is_chosen and sys.stdout.isatty()

    @property
    def is_of_records(self) -> bool:
        """Whether the output has DBN's record layouts: neither a table nor JSON."""
        from mdtool.adapters.outputs import encoding_of

        return not self.is_table and encoding_of(self.format()) != "json"

    def open(self, metadata: dbn.Metadata, is_endless: bool, rtype: int | None = None) -> Sink:
        """Open what the options ask for as `open_output`, under the limit."""
        output = self.open_output(metadata, is_endless, rtype)
        return Sink(output, self.limit, self.path, is_endless)

    def open_output(
        self, metadata: dbn.Metadata, is_endless: bool, rtype: int | None = None
    ) -> Output:
        """Open what the options ask for.

        Parameters
        ----------
        metadata : databento_dbn.Metadata
            Of the records that will be written.
        is_endless : bool
            Whether they end only when the command is interrupted: then a file that can be read
            before its end grows in place, else it appears once it is complete.
        rtype : int, optional
            Of the records, where it is known without a schema.

        Raises
        ------
        UsageError
            When the options contradict each other, or binary data would go to a terminal.
        OutputError
            When the file exists already or cannot be made.
        """
        from mdtool.adapters.outputs import open_output

        if self.is_table:
            from mdtool.cli.record_table import RecordTable

            return RecordTable()
        return open_output(self.spec(is_endless), metadata, rtype)

    def spec(self, is_endless: bool) -> OutputSpec:
        """Return how and where the options ask to write.

        Raises
        ------
        UsageError
            As `open_output`.
        """
        from mdtool.adapters.outputs import COLUMNAR, PRICES, OutputSpec

        chosen = self.format()
        is_columnar = chosen in COLUMNAR
        if self.prices is not None and self.prices not in PRICES:
            raise UsageError(f"--prices {self.prices}: choose from {', '.join(PRICES)}")
        if self.prices is not None and not is_columnar:
            raise UsageError("--prices: is for Parquet and Arrow; name a file with -o")
        return OutputSpec(
            chosen,
            self.path,
            self.force,
            self.map_symbols,
            self.pretty,
            self.prices or PRICES[0],
            is_columnar or not is_endless,
            self.publishers,
        )

    def format(self) -> str:
        """Return the format of output other than a table, of `mdtool.adapters.outputs.FORMATS`.

        Raises
        ------
        UsageError
            As `open`.
        """
        from mdtool.adapters.outputs import ZSTD, format_of

        chosen = [name for name in ("json", "csv", "dbn") if getattr(self, f"as_{name}")]
        if len(chosen) > 1:
            raise UsageError(f"choose one of --{' and --'.join(chosen)}")
        if self.path is not None:
            if not chosen:
                return format_of(self.path)
            return chosen[0] + ZSTD * self.path.endswith(ZSTD)
        if chosen == ["dbn"] and sys.stdout.isatty():
            raise UsageError("DBN is binary: pipe it, or name a file with -o")
        return chosen[0] if chosen else "dbn"


with_output = option_bundle(OutputOptions, "output", "Output")
"""Give a command the output options, as its `output: OutputOptions` parameter."""
