"""The table's columns: what each says of a symbol, and which of them there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from mdtool.cli.live.frame import printable
from mdtool.cli.live.palette import Glyphs, fit
from mdtool.cli.watch.quotes import Quote, decimal_text

GAP: Final = 2
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = "_.:-=+*#"
_FLASH_S: Final = 0.6
_VWAP_DECIMALS: Final = 2
"""More than the price has: an average falls between its steps."""


@dataclass(frozen=True, slots=True)
class Look:
    """How rows are drawn.

    Attributes
    ----------
    glyphs : Glyphs
    is_ascii : bool
        Whether the terminal's encoding has no more.
    now_s : float
        On the watch's clock.
    """

    glyphs: Glyphs
    is_ascii: bool
    now_s: float


@dataclass(frozen=True, slots=True)
class Column:
    """One of the table's columns.

    Attributes
    ----------
    title : str
    width : int
        The least.
    draw : callable
        Returns a symbol's cell, from its name, its quote, the look and the width.
    is_left : bool
        On which side it is aligned.
    most : int
        How wide it becomes where there is room left over.
    """

    title: str
    width: int
    draw: Callable[[str, Quote, Look, int], Text]
    is_left: bool = False
    most: int = 0

    def cell(self, text: Text, width: int) -> Text:
        """Return a text aligned to a width; a number that there is no room for becomes #."""
        if self.is_left:
            return fit(text, width)
        room = width - text.cell_len
        return Text(" " * room) + text if room >= 0 else Text("#" * width, "faint")


def _symbol(symbol: str, _quote: Quote, _look: Look, _width: int) -> Text:
    return Text(printable(symbol), "symbol")


def _price(_symbol: str, quote: Quote, look: Look, width: int) -> Text:
    glyph, style = _direction(quote.direction, look.glyphs)
    text = _decimal(quote.state.price, quote.decimals, width - len(f" {glyph}"))
    is_fresh = look.now_s - quote.changed_s < _FLASH_S
    strong = {"bid": "best.bid", "ask": "best.ask"}.get(style, style) if is_fresh else ""
    return Text.assemble((text, strong), " ", (glyph, style))


def _change(_symbol: str, quote: Quote, _look: Look, width: int) -> Text:
    return Text(_decimal(quote.change, quote.decimals, width, "+"), _style(quote.change))


def _change_percent(_symbol: str, quote: Quote, _look: Look, _width: int) -> Text:
    return Text(f"{quote.change_ratio:{'+' if quote.change else ''}.2%}", _style(quote.change))


def _trend(_symbol: str, quote: Quote, look: Look, width: int) -> Text:
    points = list(quote.trend)[-width:]
    least, span = min(points), max(points) - min(points)
    blocks = _ASCII_BLOCKS if look.is_ascii else _BLOCKS
    top = len(blocks) - 1
    drawn = "".join(blocks[(point - least) * top // span if span else top // 2] for point in points)
    return Text(drawn, _style(points[-1] - points[0]) or "faint")


def _vwap(_symbol: str, quote: Quote, _look: Look, width: int) -> Text:
    decimals = min(quote.decimals + _VWAP_DECIMALS, 9)
    return Text(_decimal(quote.state.vwap, decimals, width))


def _vs_vwap(_symbol: str, quote: Quote, _look: Look, _width: int) -> Text:
    over = quote.over_vwap
    if over is None:
        return Text("-", "faint")
    return Text(f"{over:{'+' if over else ''}.3%}", _style(over))


def _volume(_symbol: str, quote: Quote, _look: Look, _width: int) -> Text:
    return Text(f"{quote.state.volume:,}")


def _updates(_symbol: str, quote: Quote, _look: Look, _width: int) -> Text:
    return Text(f"{quote.updates:,}", "faint")


def _window(_symbol: str, quote: Quote, _look: Look, _width: int) -> Text:
    return Text(f"{quote.state.window:,}", "faint")


def _age(_symbol: str, quote: Quote, look: Look, _width: int) -> Text:
    seconds = int(look.now_s - quote.updated_s)
    if seconds < 60:
        return Text(f"{seconds} s", "faint")
    minutes = seconds // 60
    return Text(f"{minutes} m" if minutes < 100 else f"{minutes // 60} h", "faint")


COLUMNS: Final[Sequence[tuple[Column, int]]] = (
    (Column("symbol", 8, _symbol, is_left=True, most=16), 0),
    (Column("price", 12, _price, most=16), 1),
    (Column("change", 9, _change, most=12), 6),
    (Column("change %", 9, _change_percent), 3),
    (Column("trend", 12, _trend, is_left=True, most=40), 4),
    (Column("vwap", 13, _vwap, most=18), 2),
    (Column("vs vwap", 8, _vs_vwap), 5),
    (Column("volume", 10, _volume, most=15), 7),
    (Column("window", 10, _window, most=13), 9),
    (Column("updates", 9, _updates, most=13), 10),
    (Column("age", 5, _age), 8),
)
"""From left to right; those with the lower numbers go first where there is no room for all."""


def fitting(columns: int) -> list[tuple[Column, int]]:
    """Return the columns that a width has room for, from left to right, each with its width."""
    room = columns - GAP
    chosen: list[Column] = []
    for column, _rank in sorted(COLUMNS, key=lambda entry: entry[1]):
        if column.width + GAP > room:
            break
        room -= column.width + GAP
        chosen.append(column)
    widths = {column.title: column.width for column in chosen}
    for column in chosen:
        extra = min(max(column.most - column.width, 0), room)
        widths[column.title] += extra
        room -= extra
    return [(column, widths[column.title]) for column, _rank in COLUMNS if column in chosen]


def _decimal(price: int, decimals: int, width: int, sign: str = "") -> str:
    """Return a price with as many of its decimals as a width has room for, or none."""
    text = decimal_text(price, decimals, sign)
    while len(text) > width and decimals:
        decimals -= 1
        text = decimal_text(price, decimals, sign)
    return text


def _direction(direction: int, glyphs: Glyphs) -> tuple[str, str]:
    if direction > 0:
        return glyphs.buy, "bid"
    return (glyphs.sell, "ask") if direction < 0 else (glyphs.neither, "faint")


def _style(change: float) -> str:
    return "bid" if change > 0 else "ask" if change < 0 else ""
