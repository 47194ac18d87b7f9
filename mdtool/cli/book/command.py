"""`mdtool book`: order books rebuilt from MBO records, and checks of them."""

from __future__ import annotations

from typing import Annotated

import typer

from mdtool.cli.book.checks import diff, verify
from mdtool.cli.book.options import BookOptions, LiveOptions
from mdtool.cli.filter_options import RangeOptions, with_range
from mdtool.cli.options import check_mode, input_app, option_bundle, with_settings
from mdtool.cli.output_options import OutputOptions, with_output
from mdtool.core.errors import EXIT_OK, UsageError
from mdtool.services.book.config import ReceiverConfig

app = input_app()
app.command()(verify)
app.command()(diff)


@app.callback()
@with_settings(ReceiverConfig, "book")
@with_output
@with_range
@option_bundle(LiveOptions, "live", "Live view")
@option_bundle(BookOptions, "options", "Books")
def book(
    options: BookOptions,
    live: LiveOptions,
    selected: RangeOptions,
    output: OutputOptions,
    config: ReceiverConfig,
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="DBN files of MBO records, folders or zips of them, or - for standard input. "
            "Write ./verify for a file named verify.",
            show_default=False,
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Run the receiver service: rebuild the books of a sender's stream after POST "
            "/start-processing; see Settings.",
        ),
    ] = False,
) -> int:
    """Rebuild L3 order books from MBO records, and show them at the end of events.

    A book begins at a clear or a snapshot. A book whose stream began without one is partial, and
    every output says so. --start selects what is shown: earlier records still build the books.

    Example: mdtool book sample_data/mbo.dbn.zst --symbols AAPL --depth 10

    Example: mdtool book sample_data/mbo.dbn.zst --at 2025-01-02T14:30:05Z --json

    Example: mdtool book sample_data/mbo.dbn.zst --emit 1s --csv --pretty --map-symbols

    Example: mdtool book sample_data/mbo.dbn.zst --emit event -o book.mbp-10.dbn.zst

    Example: mdtool replay-dbn sample_data/mbo.dbn.zst | mdtool book - --emit event --depth 1 -C

    Example: mdtool book sample_data/mbo.dbn.zst --live --speed 10

    Example: mdtool book md.example.com:9090 --live --token-file desk-7.token

    Example: mdtool book --serve --sender localhost:9090
    """
    check_mode(context, ReceiverConfig, serve, switch="--serve")
    if serve:
        return _serve(config)
    live.check(context)
    if not inputs:
        raise UsageError("book: needs INPUT; give a file, or - for standard input")
    if live.live:
        from mdtool.cli.live.run import run_live

        return run_live(inputs, selected, live.speed, options.consolidate, live.token_file)
    from mdtool.cli.book.replay import show_books

    show_books(inputs, options, selected, output)
    return EXIT_OK


def _serve(config: ReceiverConfig) -> int:
    from mdtool.core.lifecycle import run_service
    from mdtool.services.book.server import BookReceiver

    return run_service(BookReceiver(config))
