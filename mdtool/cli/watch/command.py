"""The `watch` command: a live table on a terminal, the feed's lines where there is none."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mdtool.core.errors import UsageError

app = typer.Typer(add_completion=False)


@app.command()
def watch(
    address: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="Address of a VWAP feed, `mdtool vwap`.")
    ] = "127.0.0.1:8888",
    symbols: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Only these symbols, separated by commas.")
    ] = None,
) -> int | None:
    """Show the prices, changes, trends and VWAPs of a VWAP feed live.

    On a terminal they are a table, with keys to sort, filter and scroll it: h lists them. In a
    pipe they are the feed's own lines. After a lost connection it reconnects.

    Example: mdtool watch

    Example: mdtool watch 10.0.0.5:8888 --symbols AAPL,MSFT

    Example: mdtool watch | jq -c '[.symbol, .vwap]'
    """
    from mdtool.adapters.vwap_feed import VwapFeedClient
    from mdtool.cli.live.terminal import is_dumb
    from mdtool.wire.vwap_lines import LineError, parse_symbols

    try:
        wanted = None if symbols is None else parse_symbols(symbols)
    except LineError as error:
        raise UsageError(f"--symbols {symbols!r}: {error}") from error
    feed = VwapFeedClient(address, wanted)
    if not sys.stdout.isatty() or is_dumb():
        from mdtool.cli.watch.lines import print_lines

        print_lines(feed)
    from mdtool.cli.watch.view import View

    return View(feed).run()
