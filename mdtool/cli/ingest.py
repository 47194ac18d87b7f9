"""`mdtool ingest`: a live source as DBN."""

from __future__ import annotations

from typing import Annotated

import typer

from mdtool.adapters.live import SOURCES
from mdtool.adapters.live.config import SourceConfig
from mdtool.cli.completion import one_of
from mdtool.cli.options import with_settings
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.cli.progress import Progress

app = typer.Typer(add_completion=False)


@app.command()
@with_settings(SourceConfig, "ingest")
@with_output
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="kraken or binance, without a key; finnhub, alpaca or databento.",
            autocompletion=one_of(SOURCES),
        ),
    ],
    output: OutputOptions,
    config: SourceConfig,
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help="As the source calls them.")
    ] = None,
) -> None:
    """Write what a live source sends: DBN in a pipe, a table on a terminal, or a file.

    Sizes are whole lots; a symbol's lot is in its definition record. After a lost connection it
    connects again, and a record says that there is a gap. Ctrl-C ends it, and completes a file.
    Keys are in the environment, or in the file that --keys names.

    Example: mdtool ingest kraken BTC/USD | mdtool vwap -

    Example: mdtool ingest binance BTCUSDT -o day.dbn.zst

    Example: mdtool ingest kraken --replay recorded/
    """
    from mdtool.adapters.dbn_select import TRADES, SchemaSource
    from mdtool.adapters.dbn_source import RecordSource
    from mdtool.services.live_source import open_measured
    from mdtool.wire.dbn_records import RTYPE_DEFINITION

    is_quiet = output.quiet or output.is_table
    is_dbn = not output.is_table and output.format().startswith("dbn")
    live = open_measured(source, symbols or [], config)
    records: RecordSource = live
    if not is_dbn:  # which has several layouts, of which CSV takes the first
        records = SchemaSource(live, config.schema or TRADES)
    with (
        records,
        output.open(records.metadata, is_endless=not config.replay) as sink,
        Progress("records", None, is_quiet) as progress,
        # A file gets all that has come; a pipe that nobody reads would hold the command.
        sink.writing(live.end),
    ):
        for batch in records:
            sink.write(batch, is_counted=batch.rtype != RTYPE_DEFINITION)
            progress.show(sink.records)
