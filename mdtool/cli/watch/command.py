"""The `watch` command: a live table on a terminal, else the feed's own lines."""

from __future__ import annotations

import logging
import select
import sys
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from mdtool.adapters.identity.config import TOKEN_VARIABLE, client_token
from mdtool.core.config import Peer, peer_address
from mdtool.core.errors import UsageError

if TYPE_CHECKING:
    from mdtool.adapters.vwap_feed import VwapFeedClient

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False)

_ADDRESS: Final = "127.0.0.1:8888"


@app.command()
def watch(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="HOST:PORT",
            help=f"Address of a VWAP feed, `mdtool vwap`; by default that of the settings, or "
            f"{_ADDRESS}.",
        ),
    ] = None,
    symbols: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Only these symbols, separated by commas.")
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"File with the token for the feed; by default that of {TOKEN_VARIABLE}.",
        ),
    ] = None,
) -> int:
    """Show the prices, changes, trends and VWAPs of a VWAP feed live.

    On a terminal they are a table, with keys to sort, filter and scroll it: h lists them. In a
    pipe they are the feed's own lines. After a lost connection it reconnects.

    Example: mdtool watch

    Example: mdtool watch 10.0.0.5:8888 --symbols AAPL,MSFT

    Example: mdtool watch | jq -c '[.symbol, .vwap]'
    """
    from mdtool.adapters.vwap_feed import VwapFeedClient
    from mdtool.cli.terminal import is_dumb, open_terminal
    from mdtool.wire.vwap_lines import LineError, parse_symbols

    try:
        selected = None if symbols is None else parse_symbols(symbols)
    except LineError as error:
        raise UsageError(f"--symbols {symbols!r}: {error}") from error
    where = address or peer_address(Peer("vwap"), _ADDRESS)
    feed = VwapFeedClient(where, selected, client_token(token_file))
    if not sys.stdout.isatty() or is_dumb():
        _print_lines(feed)
    from mdtool.cli.screen import show
    from mdtool.cli.watch.view import WatchView

    with open_terminal("watch") as terminal:
        return show(WatchView(feed), terminal)


def _print_lines(feed: VwapFeedClient) -> NoReturn:
    """Print lines until the reader of standard output closes it, which raises BrokenPipeError."""
    import asyncio

    asyncio.run(feed.follow(_Printer(feed.address)))


class _Printer:
    """Prints the lines of a feed, and logs each reason of a lost connection. A `Listener`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._reported = ""

    def connected(self) -> None:
        self._reported = ""

    def received(self, lines: list[bytes]) -> None:
        sys.stdout.buffer.writelines(line + b"\n" for line in lines)
        sys.stdout.buffer.flush()

    def lost(self, reason: str, _delay_s: float, _attempts: int) -> None:
        if _is_closed(sys.stdout.fileno()):
            raise BrokenPipeError
        if reason != self._reported:
            self._reported = reason
            log.warning("%s: %s; trying again", self._address, reason)


def _is_closed(fd: int) -> bool:
    """Return whether the reader of a pipe has closed it, without writing to it."""
    poller = select.poll()
    poller.register(fd, 0)
    return bool(poller.poll(0))
