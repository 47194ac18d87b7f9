"""`mdtool store`: stores the trades of DBN files or of a bus; its subcommands work on stores."""

from __future__ import annotations

from typing import Annotated

import typer

from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.options import input_app, with_settings
from mdtool.cli.progress import Progress
from mdtool.cli.store.care import backup, compact, prune, restore
from mdtool.cli.store.check import check
from mdtool.cli.store.export import export
from mdtool.cli.store.import_ import import_
from mdtool.cli.store.replay import replay
from mdtool.cli.store.target import open_writer, summary, url_of
from mdtool.core.errors import EXIT_OK, UsageError
from mdtool.services.store.config import StoreConfig

app = input_app()
app.command()(export)
app.command("import")(import_)
app.command()(replay)
app.command()(check)
app.command()(backup)
app.command()(restore)
app.command()(compact)
app.command()(prune)


@app.callback()
@with_settings(StoreConfig, "store")
@with_filter
def store(
    selected: FilterOptions,
    config: StoreConfig,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="DBN files with trades, folders or zips of them, or - for standard input. "
            "Write ./check for a file named check.",
            show_default=False,
        ),
    ] = None,
    stream_id: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the stream; by default it is identified by its first trades.",
            show_default=False,
        ),
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Store the ticks on kafka://HOST:PORT instead of INPUT, until stopped.",
            show_default=False,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> int:
    """Store the trades of INPUT, with the sessions and bars that follow from them.

    The trades of MBO are its T records. Where INPUT shows a trade in several schemas it is stored
    once; --schema chooses one. A trade is identified by its place in its stream, so
    storing a file again, or a part of it, changes nothing. After Ctrl-C the same command resumes.
    `serve all` restores its state from the store.

    Example: mdtool store sample_data/trades.dbn.zst --symbols AAPL

    Example: mdtool store export dataset --format parquet --partition date,symbol

    Example: mdtool store import dataset --store postgresql://localhost/trades

    Example: mdtool store check --repair

    Example: mdtool store --bus kafka://127.0.0.1:9092
    """
    if bus is not None:
        if inputs or stream_id is not None:
            raise UsageError("--bus takes the place of INPUT and --stream-id")
        return _store_bus(bus, config)
    if not inputs:
        raise UsageError("store: needs INPUT; give a file, or - for standard input")
    from mdtool.services.store.dbn_input import DbnInput

    with (
        DbnInput(inputs, selected.selection(), stream_id, selected.schema) as source,
        open_writer(config) as writer,
        Progress("trades", source.size_bytes, quiet) as progress,
    ):
        source.identify(writer.streams)

        def show() -> None:
            progress.show(writer.new + writer.known, source.bytes_read)

        try:
            writer.write_all(source.rows(), show, is_live=source.size_bytes is None)
        finally:
            progress.clear()
            typer.echo(summary(source.name, writer, source.rejected))
    return EXIT_OK


def _store_bus(bus: str, config: StoreConfig) -> int:
    from mdtool.core.config import load
    from mdtool.core.lifecycle import run_service
    from mdtool.services.aggregator.config import AggregatorConfig
    from mdtool.services.store.bus import BusStore

    url = url_of(config, makes_folder=True)
    market = load(AggregatorConfig, "aggregate", {})
    return run_service(BusStore(bus, url, market, config.keep, config.metrics_port))
