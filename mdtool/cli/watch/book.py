"""The order book of one symbol of a gateway: drawn as `book --live` does, or as lines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn

from rich.text import Text

from mdtool.adapters.gateway_stream import GatewayStreamClient
from mdtool.cli.live.drawing import Layout, draw
from mdtool.cli.live.frame import Frame, Ladder, Level, Print, State
from mdtool.cli.screen import ASCII, UNICODE, new_console, printable
from mdtool.cli.watch.printing import Losses
from mdtool.core.backoff import delays
from mdtool.core.errors import PeerError, UsageError
from mdtool.core.units import parse_price, parse_time

_DEPTH: Final = 50
_PRINTS: Final = 100
_LONGEST_DELAY_S: Final = 10.0
_BOOKS, _TRADES = "books", "trades"
_STALE: Final = "the book is as it was: its receiver is unavailable"
_SIDES: Final = {"bid": "bids", "ask": "asks"}

Take = Callable[[str, Mapping[str, Any]], None]
"""Takes the name of a channel and a row of it."""


async def follow_book(
    gateway: GatewayStreamClient, symbol: str, take: Take, lost: Callable[[str], None]
) -> NoReturn:
    """Follow the book and the trades of a symbol until cancelled, again whenever they are lost."""
    requests: list[dict[str, Any]] = [
        {"op": "subscribe", "id": _BOOKS, "channel": _BOOKS, "symbols": [symbol], "depth": _DEPTH},
        {"op": "subscribe", "id": _TRADES, "channel": _TRADES, "symbols": [symbol]},
    ]
    waits = delays(cap_s=_LONGEST_DELAY_S)
    while True:
        try:
            async for update in gateway.updates(requests):
                waits = delays(cap_s=_LONGEST_DELAY_S)
                if isinstance(data := update.get("data"), dict):
                    take(str(update.get("channel")), data)
        except PeerError as error:
            lost(str(error))
        await asyncio.sleep(next(waits))


class GatewayBookView:
    """A `View` of the book of a symbol.

    Parameters
    ----------
    gateway : GatewayStreamClient
        It is followed in a thread of its own.
    symbol : str
    """

    frames_per_s = 10

    def __init__(self, gateway: GatewayStreamClient, symbol: str) -> None:
        self.console = new_console()
        self.is_over = False
        self._glyphs = ASCII if self.console.options.ascii_only else UNICODE
        self._gateway = gateway
        self._symbol = symbol
        self._frame = Frame(
            symbol=printable(symbol),
            place=1,
            books=1,
            dataset=printable(gateway.address),
            is_live=True,
            is_played=False,
        )
        self._prints: deque[Print] = deque(maxlen=_PRINTS)
        self._crash: BaseException | None = None
        self._is_help = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Follow the book from the beginning of the block on, until the process ends."""
        threading.Thread(target=self._follow, name="watch-book", daemon=True).start()
        yield

    def suspended(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: a stopped process follows nothing."""
        return contextlib.nullcontext()

    def press(self, key: bytes) -> None:
        """Handle a key."""
        if key in {b"q", b"Q"}:
            self.is_over = True
        elif key in {b"h", b"?"}:
            self._is_help = not self._is_help

    def draw(self, size: tuple[int, int], notice: str, *, is_due: bool) -> list[Text]:  # noqa: ARG002 - it is drawn as often as it may change
        """Return the lines of the book as it is now."""
        if self._crash is not None:
            raise self._crash
        frame = self._frame  # is replaced as a whole
        if notice and not frame.notice:
            frame = replace(frame, notice=printable(notice))
        return draw(frame, Layout.of(*size), self._glyphs, is_help=self._is_help)

    def take(self, channel: str, row: Mapping[str, Any]) -> None:
        """Take a row of a channel."""
        try:
            if channel == _TRADES:
                time_ns, price = parse_time(row["timestamp"]), parse_price(row["price"])
                self._prints.appendleft(Print(time_ns, price, int(row["size"]), "N"))
                return
            ladder = _ladder(row, tuple(self._prints))
            clock_ns = parse_time(row["timestamp"])
        except (KeyError, TypeError, ValueError, UsageError):
            self._frame = replace(self._frame, notice=f"a row of {channel} was not understood")
            return
        self._frame = replace(
            self._frame,
            state=State.BROKEN if row.get("stale") is True else State.PLAYING,
            clock_ns=clock_ns,
            decimals=max(self._frame.decimals, ladder.decimals),
            notice=_STALE if row.get("stale") is True else "",
            ladder=ladder,
        )

    def lost(self, reason: str) -> None:
        """Show that there is no connection."""
        self._frame = replace(self._frame, state=State.BROKEN, notice=printable(reason))

    def _follow(self) -> None:
        try:
            asyncio.run(follow_book(self._gateway, self._symbol, self.take, self.lost))
        except BaseException as error:  # noqa: BLE001 - `draw` raises it
            self._crash = error


def _ladder(row: Mapping[str, Any], prints: tuple[Print, ...]) -> Ladder:
    bids, asks = (
        tuple(
            Level(parse_price(each["price"]), int(each["size"]), int(each["orders"]))
            for each in row[side]
        )
        for side in _SIDES.values()
    )
    return Ladder(
        bids=bids,
        asks=asks,
        prints=prints,
        bid_levels=int(row["bid_levels"]),
        ask_levels=int(row["ask_levels"]),
        orders=int(row["orders"]),
        records=0,
        trades=len(prints),
        volume=sum(each.size for each in prints),
        is_partial=bool(row.get("partial")),
        anomalies=(),
    )


def plain_book(row: Mapping[str, Any]) -> str:
    """Return the best prices of a book as a line of text."""
    try:
        text = f"{row['timestamp']} {row['symbol']}"
        for side, levels in _SIDES.items():
            best = row[levels][0] if row[levels] else None
            text += f" {side} {best['size']} x {best['price']}" if best else f" {side} -"
    except (KeyError, IndexError, TypeError):
        return printable(f"not understood: {json.dumps(row):.200}")
    return printable(f"{text} stale" if row.get("stale") is True else text)


def print_book(gateway: GatewayStreamClient, symbol: str, *, plain: bool) -> NoReturn:
    """Print a line for each change of a book, until the reader of standard output closes it."""
    losses = Losses(gateway.address)

    def take(channel: str, row: Mapping[str, Any]) -> None:
        losses.connected()
        if channel == _BOOKS:
            print(plain_book(row) if plain else json.dumps(row), flush=True)

    asyncio.run(follow_book(gateway, symbol, take, losses.lost))
