"""`mdtool simulate`: a synthetic exchange on stdout."""

from __future__ import annotations

import json
import math
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from mdtool.cli.completion import one_of
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.progress import Progress
from mdtool.core.errors import UsageError
from mdtool.core.units import parse_duration, parse_option, parse_time
from mdtool.engine.simulate_defaults import FAULTS, RATE, SCHEMAS, SEED, START, SYMBOLS

if TYPE_CHECKING:
    from mdtool.engine.market_faults import FaultyMarket

app = typer.Typer(add_completion=False)


@app.command()
@with_output
def simulate(
    output: OutputOptions,
    symbols: Annotated[
        str, typer.Option(metavar="A,B,...", help="Instruments, the most active first.")
    ] = ",".join(SYMBOLS),
    rate: Annotated[
        float, typer.Option(help="Events a second of market time, of all symbols together.")
    ] = RATE,
    duration: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Length in market time, such as 90s or 1h."),
    ] = None,
    schema: Annotated[
        str,
        typer.Option(
            help="mbo (every order), trades, or mbp-1 (best bid and ask).",
            autocompletion=one_of(SCHEMAS),
        ),
    ] = SCHEMAS[0],
    seed: Annotated[int, typer.Option(help="The same seed gives the same records.")] = SEED,
    start: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Market time of the first event: ISO-8601, nanoseconds, or now."
        ),
    ] = START,
    speed: Annotated[
        float,
        typer.Option(
            min=0, help="Replay speed: 1 is real time, 10 ten times as fast, 0 as fast as possible."
        ),
    ] = 0.0,
    inject: Annotated[
        str | None,
        typer.Option(
            metavar="KIND@TIME,...",
            help="Faults for detectors, KIND@TIME[:DURATION][/SYMBOL], of trades or mbp-1: "
            f"{', '.join(FAULTS)}.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a line of JSON for each fault to FILE, once it is over; by default to "
            "stderr.",
        ),
    ] = None,
) -> None:
    """Simulate an exchange: consistent order books, deterministic for a seed, endless.

    About one event in sixteen is a trade. Stop it with --limit, --duration or Ctrl-C.

    Example: mdtool simulate --symbols AAPL,MSFT --schema trades --limit 5

    Example: mdtool simulate --start now --speed 1 | mdtool aggregate - --interval 1s

    Example: mdtool simulate --schema mbp-1 --duration 5m --inject jump@2m,stale@3m -o faults.dbn
    """
    from mdtool.adapters.simulated import CHUNK_RECORDS, PACED_CHUNK_RECORDS, SimulatedSource
    from mdtool.core.records import index_timestamps
    from mdtool.engine.market_faults import FaultyMarket, parse_faults
    from mdtool.engine.pacing import Pacer, paced
    from mdtool.engine.simulate import TICK, Exchange

    if not math.isfinite(speed):
        raise UsageError(f"--speed {speed}: give a number, 0 for flat out")
    if schema not in SCHEMAS:
        raise UsageError(f"--schema {schema}: choose from {', '.join(SCHEMAS)}")
    duration_ns = None if duration is None else parse_option("--duration", parse_duration, duration)
    if output.path and not (speed or output.limit or duration_ns):
        raise UsageError("an endless simulation would fill the disk: give --limit or --duration")
    start_ns = time.time_ns() if start == "now" else parse_option("--start", parse_time, start)
    names = [name.strip() for name in symbols.split(",")]
    chunk_records = PACED_CHUNK_RECORDS if speed else CHUNK_RECORDS
    exchange = Exchange(names, seed, rate, start_ns)
    faults = None
    if inject is not None:
        planned = parse_option("--inject", lambda text: parse_faults(text, names), inject)
        faults = FaultyMarket(planned, exchange.instruments, start_ns, TICK, schema)
    elif labels is not None:
        raise UsageError("--labels: are those of faults; give --inject, too")
    source = SimulatedSource(exchange, schema, duration_ns, chunk_records, faults)
    is_quiet = output.quiet or output.is_table
    with (
        output.open(source.metadata, is_endless=True) as sink,
        Progress("records", None, is_quiet) as progress,
        closing(_LabelOutput(faults, labels)) as labelled,
    ):
        pacer = Pacer(speed)
        if start == "now" and speed == 1.0:
            pacer.start(time.time_ns(), time.monotonic_ns())
        for batch in paced(
            source,
            lambda batch: index_timestamps(batch.records),
            pacer,
            time.monotonic_ns,
            time.sleep,
        ):
            sink.write(batch)
            labelled.write()
            progress.show(sink.records)


class _LabelOutput:
    """Writes the labels of faults as lines of JSON, to a file or stderr."""

    def __init__(self, faults: FaultyMarket | None, path: str | None) -> None:
        self._faults = faults
        from mdtool.adapters.outputs.destination import Destination

        self._file = Destination(path, is_staged=False) if path else None

    def write(self) -> None:
        """Write the labels of the faults that are over."""
        if self._faults is None:
            return
        for label in self._faults.labels:
            line = json.dumps(label.as_dict())
            if self._file is None:
                typer.echo(line, err=True)
            else:
                self._file.write(f"{line}\n".encode())
        self._faults.labels.clear()

    def close(self) -> None:
        """Write what is left, also where the output's limit has cut a fault short."""
        if self._faults is not None:
            self._faults.finish()
        self.write()
        if self._file is not None:
            self._file.close()
