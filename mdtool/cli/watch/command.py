"""The `watch` command: a live table on a terminal, else the feed's own lines."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from mdtool.adapters.identity.config import TOKEN_VARIABLE, client_token
from mdtool.core.config import Peer, peer_address
from mdtool.core.errors import UsageError

app = typer.Typer(add_completion=False)

_ADDRESS: Final = "127.0.0.1:8888"


@app.command()
def watch(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST:PORT|URL",
            help=f"Address of a VWAP feed, `mdtool vwap`, or the URL of a gateway, which has "
            f"alerts, too; by default the feed of the settings, or {_ADDRESS}.",
        ),
    ] = None,
    symbols: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Only these symbols, separated by commas.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Columns of the table, the most important first: symbol, price, change, change %, "
            "trend, vwap, vs vwap, volume, window, updates, age, alert.",
        ),
    ] = None,
    book: Annotated[
        str | None,
        typer.Option(metavar="SYMBOL", help="Show the order book of a symbol of a gateway."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Print a line of text for each update, for logs.")
    ] = False,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"File with the token for the feed; by default that of {TOKEN_VARIABLE}.",
        ),
    ] = None,
) -> int:
    """Show the prices, changes, trends and VWAPs of a VWAP feed live, of a gateway also alerts.

    On a terminal they are a table, with keys to sort, filter and scroll it: h lists them. In a
    pipe they are the feed's own lines. After a lost connection it reconnects.

    Example: mdtool watch

    Example: mdtool watch 10.0.0.5:8888 --symbols AAPL,MSFT

    Example: mdtool watch http://127.0.0.1:8080 --columns symbol,price,alert

    Example: mdtool watch http://127.0.0.1:8080 --book ESM4

    Example: mdtool watch http://127.0.0.1:8080 --plain >> market.log

    Example: mdtool watch | jq -c '[.symbol, .vwap]'
    """
    from mdtool.adapters.gateway_stream import GatewayStreamClient
    from mdtool.adapters.vwap_feed import VwapFeedClient
    from mdtool.cli.terminal import is_dumb, open_terminal
    from mdtool.cli.watch.printing import plain_line, print_lines
    from mdtool.wire.vwap_lines import LineError, parse_symbols

    try:
        selected = None if symbols is None else parse_symbols(symbols)
    except LineError as error:
        raise UsageError(f"--symbols {symbols!r}: {error}") from error
    where, token = address or peer_address(Peer("vwap"), _ADDRESS), client_token(token_file)
    is_gateway = "://" in where
    is_table = sys.stdout.isatty() and not is_dumb() and not plain
    if book is not None:
        if symbols is not None or columns is not None:
            raise UsageError("--book: shows one symbol; leave out --symbols and --columns")
        return _watch_book(where, book.strip().upper(), token, is_table=is_table, plain=plain)
    feed = (GatewayStreamClient if is_gateway else VwapFeedClient)(where, selected, token)
    if not is_table:
        if columns is not None:
            raise UsageError(
                "--columns: chooses columns of the table, which needs a terminal and no --plain"
            )
        print_lines(feed, plain_line if plain else None)
    from mdtool.cli.screen import show
    from mdtool.cli.watch.drawing import COLUMNS, GATEWAY_COLUMNS, named_columns
    from mdtool.cli.watch.view import WatchView

    usual = GATEWAY_COLUMNS if is_gateway else COLUMNS
    shown = usual if columns is None else named_columns(columns)
    with open_terminal("watch") as terminal:
        return show(WatchView(feed, shown), terminal)


def _watch_book(where: str, symbol: str, token: str, *, is_table: bool, plain: bool) -> int:
    from mdtool.adapters.gateway_stream import GatewayStreamClient
    from mdtool.cli.screen import show
    from mdtool.cli.terminal import open_terminal
    from mdtool.cli.watch.book import GatewayBookView, print_book

    gateway = GatewayStreamClient(where, token=token)
    if not is_table:
        print_book(gateway, symbol, plain=plain)
    with open_terminal("watch --book") as terminal:
        return show(GatewayBookView(gateway, symbol), terminal)
