"""The options of `mdtool book`: which moments are shown, how many levels, and the live view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mdtool.adapters.identity.config import TOKEN_VARIABLE
from mdtool.cli.completion import one_of
from mdtool.cli.options import given_options
from mdtool.core.errors import UsageError
from mdtool.core.units import parse_duration, parse_moment, parse_option

if TYPE_CHECKING:
    from mdtool.cli.filter_options import RangeOptions
    from mdtool.cli.output_options import OutputOptions
    from mdtool.engine.book.state import Depth

FINAL: Final = "final"
EVENT: Final = "event"
_TABLE_DEPTH: Final = 10
_BESIDE_LIVE: Final = frozenset(
    {"live", "speed", "inputs", "symbols", "start", "end", "consolidate", "token_file"}
)
"""Parameters that the live view takes."""


@dataclass(frozen=True, slots=True)
class BookOptions:
    """Which moments of the books, and how much of them."""

    emit: Annotated[
        str,
        typer.Option(
            metavar="final|event|INTERVAL",
            autocompletion=one_of((FINAL, EVENT)),
            help="When to emit: final, each book once at the end; event, a depth record for each "
            "change of the best levels and each trade; or an INTERVAL such as 1s, each book "
            "that changed, at the interval's end.",
        ),
    ] = FINAL
    depth: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Levels of a side. JSON: any number, by default all; tables: by default 10 "
            "of up to four books; records: 10 (mbp-10) or 1 (mbp-1).",
            show_default=False,
        ),
    ] = None
    orders: Annotated[
        bool,
        typer.Option("--orders", help="With --json: the orders of each level, in queue order."),
    ] = False
    consolidate: Annotated[
        bool,
        typer.Option(
            "--consolidate",
            help="One book of each symbol for all publishers of its dataset: sizes are added.",
        ),
    ] = False
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Each book at this index timestamp, after the last event that ended by then: "
            "ISO-8601 or nanoseconds.",
        ),
    ] = None
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Save the books after each N records in FILE.mdtool-book. A later --at starts "
            "from the last checkpoint before its time.",
        ),
    ] = None

    @property
    def at_ns(self) -> int | None:
        """The moment of `--at`.

        Raises
        ------
        UsageError
            When it is not a valid time.
        """
        return None if self.at is None else parse_option("--at", parse_moment, self.at)

    @property
    def interval_ns(self) -> int | None:
        """The interval of `--emit`, None where it names none.

        Raises
        ------
        UsageError
            When it is not a valid value.
        """
        if self.emit in {FINAL, EVENT}:
            return None
        try:
            return parse_duration(self.emit)
        except UsageError as error:
            raise UsageError(
                f"--emit {self.emit}: give final, event, or an interval such as 1s"
            ) from error

    @property
    def record_depth(self) -> Depth:
        """How many levels a record shows.

        Raises
        ------
        UsageError
            When there are no records of so many.
        """
        if self.depth == 1:
            return 1
        if self.depth in {None, 10}:
            return 10
        raise UsageError(
            f"--depth {self.depth}: records show 10 levels (mbp-10) or 1 (mbp-1); the --json of "
            "final, --at and INTERVAL shows any number"
        )

    def snapshot_depth(self, output: OutputOptions) -> int | None:
        """Return how many levels of a side a snapshot shows, None for all.

        Raises
        ------
        UsageError
            As `record_depth`.
        """
        if output.is_of_records:
            return self.record_depth
        return self.depth or (_TABLE_DEPTH if output.is_table else None)

    def check(self, inputs: list[str], selected: RangeOptions, output: OutputOptions) -> None:
        """Reject options that contradict each other.

        Raises
        ------
        UsageError
        """
        selected.selection()
        is_json = not output.is_table and not output.is_of_records
        if self.orders and (self.emit == EVENT or not is_json):
            raise UsageError("--orders is for the --json of final, --at and INTERVAL")
        if self.orders and self.consolidate:
            raise UsageError("--orders: a queue is of one publisher; leave out --consolidate")
        moment_ns, interval_ns = self.at_ns, self.interval_ns
        is_more = interval_ns is not None or self.emit == EVENT or selected.start or selected.end
        if moment_ns is not None and is_more:
            raise UsageError("--at is a moment of its own: leave out --emit, --start and --end")
        if self.checkpoint_every is None:
            return
        if self.emit == EVENT:
            raise UsageError("--checkpoint-every goes with --emit final or INTERVAL")
        if len(inputs) != 1 or inputs[0] == "-" or selected.selection() is not None:
            raise UsageError(
                "--checkpoint-every is for the whole of one file: leave out others, --symbols, "
                "--start and --end"
            )


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Whether books are shown on the whole terminal, and how fast their stream is played."""

    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Show the book full-screen while the stream is replayed; h lists the keys. "
            "INPUT may also be the HOST:PORT of a sender.",
        ),
    ] = False
    speed: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0,
            help="Replay speed: 1 is real time, the default for files; 0 as fast as possible, "
            "the default for pipes and senders.",
            show_default=False,
        ),
    ] = None
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"File with the token for a sender; by default that of {TOKEN_VARIABLE}.",
            show_default=False,
        ),
    ] = None

    def check(self, context: typer.Context) -> None:
        """Reject options that do not apply to the live view, or without it apply to nothing.

        Raises
        ------
        UsageError
        """
        if not self.live:
            if self.speed is not None:
                raise UsageError("--speed is for --live; else pace with replay-dbn --speed")
            if self.token_file is not None:
                raise UsageError("--token-file is for a sender's HOST:PORT; give --live too")
            return
        for name, shown in given_options(context):
            if name not in _BESIDE_LIVE:
                raise UsageError(f"{shown}: does not go with --live; leave one out")
