"""`mdtool replay-dbn`: DBN files replayed in order of time, at their own pace or another."""

from __future__ import annotations

import math
import time
from typing import Annotated

import typer

from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.progress import Progress
from mdtool.core.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
@with_output
@with_filter
def replay_dbn(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="DBN files, zstd or not, or - for stdin.")
    ],
    selected: FilterOptions,
    output: OutputOptions,
    speed: Annotated[
        float, typer.Option(min=0, help="1 is real time, 10 ten times that, 0 flat out.")
    ] = 0.0,
    clock: Annotated[
        str, typer.Option(help="Pace by ts_recv, the index timestamp, or by ts_event.")
    ] = "ts_recv",
) -> None:
    """Replay DBN files, merged by time, as DBN, CSV, JSON, columns or a table.

    Example: mdtool replay-dbn day.dbn.zst --symbols ESM4 --schema trades --speed 10 -J
    """
    from mdtool.core.records import CLOCKS, pacing_timestamps
    from mdtool.engine.pacing import Pacer, paced

    if not math.isfinite(speed):
        raise UsageError(f"--speed {speed}: give a number, 0 for flat out")
    if clock not in CLOCKS:
        raise UsageError(f"--clock {clock}: choose from {', '.join(CLOCKS)}")
    with selected.open(files) as source:
        is_quiet = output.quiet or output.is_table
        with (
            output.open(source.metadata, source.symbology) as sink,
            Progress("records", source.size_bytes, is_quiet) as progress,
        ):
            for records in paced(
                source,
                lambda records: pacing_timestamps(records, clock),
                Pacer(speed),
                time.monotonic_ns,
                time.sleep,
            ):
                sink.write(records)
                progress.show(sink.records, source.bytes_read)
