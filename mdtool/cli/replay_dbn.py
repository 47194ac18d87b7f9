"""`mdtool replay-dbn`: DBN files replayed in order of time, at a pace, once or as a service."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mdtool.cli.completion import one_of
from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.options import check_mode, with_settings
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.progress import Progress
from mdtool.core.errors import EXIT_OK, UsageError
from mdtool.services.replay.config import SenderConfig

if TYPE_CHECKING:
    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.core.batch import Batch
    from mdtool.core.interleaved import Interleaved

app = typer.Typer(add_completion=False)

_CLOCKS: Final = ("ts_recv", "ts_event")
_ALONGSIDE: Final = frozenset({"files", "symbols", "start", "end", "schema", "speed", "clock"})


@app.command()
@with_settings(SenderConfig, "replay-dbn")
@with_output
@with_filter
def replay_dbn(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="DBN files, folders or zips of them, or - for stdin."),
    ],
    selected: FilterOptions,
    output: OutputOptions,
    config: SenderConfig,
    context: typer.Context,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Run the sender service: stream to every receiver after POST /start-streaming; "
            "see Settings.",
        ),
    ] = False,
    speed: Annotated[
        float,
        typer.Option(
            min=0, help="Replay speed: 1 is real time, 10 ten times as fast, 0 as fast as possible."
        ),
    ] = 0.0,
    clock: Annotated[
        str, typer.Option(help="Pace by ts_recv or ts_event.", autocompletion=one_of(_CLOCKS))
    ] = "ts_recv",
) -> int:
    """Replay DBN files, merged by time, as DBN, CSV, JSON, Parquet, Arrow or a table.

    With --serve it is a service that streams DBN to any number of receivers, each from the start.
    A receiver that sends the line `from=live` gets a snapshot of the order books, then new records.

    Example: mdtool replay-dbn sample_data/mbo.dbn.zst --symbols AAPL --schema trades --speed 10 -J

    Example: mdtool replay-dbn --serve sample_data/mbo.dbn.zst --speed 1

    Example: nc localhost 9090 | mdtool book - --json
    """
    from mdtool.core.records import CLOCKS

    check_mode(context, SenderConfig, serve, shared=_ALONGSIDE, switch="--serve")
    if clock not in CLOCKS:
        raise UsageError(f"--clock {clock}: choose from {', '.join(CLOCKS)}")
    check_speed(speed)
    if serve:
        return _serve(config, files, selected, speed, clock)
    with selected.open(files) as source:
        write_paced(source, output, speed, clock)
    return EXIT_OK


def write_paced(source: RecordSource, output: OutputOptions, speed: float, clock: str) -> None:
    """Write records when they are due.

    Parameters
    ----------
    source : RecordSource
    output : OutputOptions
    speed : float
        1 is real time; 0 is as fast as possible.
    clock : str
        The time by which they are paced.

    Raises
    ------
    UsageError
        When the speed is not a number, or the output cannot be written.
    """
    from mdtool.core.records import pacing_timestamps
    from mdtool.engine.pacing import Pacer, paced

    check_speed(speed)
    is_quiet = output.quiet or output.is_table
    with (
        output.open(source.metadata, source.size_bytes is None) as sink,
        Progress("records", source.size_bytes, is_quiet) as progress,
    ):
        due: Iterator[Batch | Interleaved] = source.whole()
        if speed > 0:
            due = paced(
                source,
                lambda batch: pacing_timestamps(batch.records, clock),
                Pacer(speed),
                time.monotonic_ns,
                time.sleep,
            )
        for batch in due:
            sink.write(batch)
            progress.show(sink.records, source.bytes_read)


def check_speed(speed: float) -> None:
    """Raise UsageError for a speed that is not a number."""
    if not math.isfinite(speed):
        raise UsageError(f"--speed {speed}: give a number, 0 for flat out")


def _serve(
    config: SenderConfig, files: list[str], selected: FilterOptions, speed: float, clock: str
) -> int:
    from mdtool.adapters.dbn_files import Recording
    from mdtool.core.lifecycle import run_service
    from mdtool.services.replay.runs import Pace
    from mdtool.services.replay.server import ReplaySender

    recording = Recording(tuple(files), selected.schema, selected.selection())
    return run_service(ReplaySender(config, recording, Pace(speed, clock)))
