"""The ladder drawn: bids left of asks, best first, prices in the middle and bars between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.text import Text

from mdtool.cli.live.frame import Frame, Ladder, Level, bar_scale, price_text
from mdtool.cli.live.palette import Glyphs, fit

_GAP: Final = 1
_SIZE_COLUMNS: Final = 6
_ORDERS_COLUMNS: Final = 6
_PRICE_COLUMNS: Final = 3
_LEAST_BAR: Final = 4


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths of the cells of a side, 0 for what there is no room for."""

    side: int
    price: int
    size: int
    orders: int
    bar: int


def wall_column(columns: int) -> int:
    """Return the column of the line between bids and asks in a ladder of a width."""
    return (columns - 3) // 2 + 1


def draw_heads(frame: Frame, columns: int, glyphs: Glyphs) -> Text:
    """Return the line above the levels that says what they tell."""
    cells = _columns(frame, columns)
    left = _row(cells, "orders", "size", "", "bid", is_bid=True)
    right = _row(cells, "orders", "size", "", "ask", is_bid=False)
    line = Text(style="faint")
    for text, _ in left:
        line.append(text)
    line.append(f" {glyphs.wall} ")
    for text, _ in right:
        line.append(text)
    return fit(line, columns)


def draw_levels(frame: Frame, columns: int, lines: int, glyphs: Glyphs) -> list[Text]:
    """Return the lines of the levels, as many as there is room for."""
    cells = _columns(frame, columns)
    ladder = frame.ladder
    scale = bar_scale(ladder) if ladder else 1
    drawn = []
    for place in range(lines):
        line = Text()
        for is_bid in (True, False):
            levels = () if ladder is None else ladder.bids if is_bid else ladder.asks
            level = levels[place] if place < len(levels) else None
            texts = (
                _level(level, cells, scale, frame.decimals, is_bid=is_bid, glyphs=glyphs)
                if level
                else ("",) * 4
            )
            for text, part in _row(cells, *texts, is_bid=is_bid):
                line.append(text, _style(part, place, is_bid=is_bid))
            if is_bid:
                line.append(f" {glyphs.wall} ", "faint")
        drawn.append(fit(line, columns))
    return drawn


def _level(
    level: Level, cells: _Columns, scale: int, decimals: int, *, is_bid: bool, glyphs: Glyphs
) -> tuple[str, str, str, str]:
    """Return the texts of a level's orders, size, bar and price."""
    halves = -(-level.size * 2 * cells.bar // scale)
    whole = glyphs.bar * (halves // 2)
    if halves % 2:
        whole = glyphs.bar_left + whole if is_bid else whole + glyphs.bar_right
    orders = f"{level.orders:,}" if level.orders else glyphs.neither
    return orders, f"{level.size:,}", whole, price_text(level.price, decimals)


def _row(
    cells: _Columns, orders: str, size: str, bar: str, price: str, *, is_bid: bool
) -> list[tuple[str, str]]:
    """Return the cells of a side from left to right, each with the name of its part."""
    parts = [
        (orders.rjust(cells.orders), "orders") if cells.orders else None,
        (size.rjust(cells.size), "size") if cells.size else None,
        (bar.rjust(cells.bar) if is_bid else bar.ljust(cells.bar), "bar") if cells.bar else None,
        (price.rjust(cells.price), "price"),
    ]
    row: list[tuple[str, str]] = []
    for part in parts if is_bid else parts[::-1]:
        if part:
            row += [(" " * _GAP, "gap"), part] if is_bid or row else [part]
    rest = cells.side - sum(len(text) for text, _ in row)
    blank = (" " * max(rest, 0), "gap")
    return [blank, *row] if is_bid else [*row, blank]


def _style(part: str, place: int, *, is_bid: bool) -> str:
    side = "bid" if is_bid else "ask"
    if part == "price":
        return f"best.{side}" if place == 0 else side
    if part == "bar":
        return side
    if part == "orders":
        return "faint"
    return "best" if part == "size" and place == 0 else ""


def _columns(frame: Frame, columns: int) -> _Columns:
    """Share the width of a side among its cells: bars have what the others leave."""
    side = max((columns - 3) // 2, 1)
    levels = (*frame.ladder.bids, *frame.ladder.asks) if frame.ladder else ()
    price = max(
        [_PRICE_COLUMNS, *(len(price_text(level.price, frame.decimals)) for level in levels)]
    )
    size = max([_SIZE_COLUMNS, *(len(f"{level.size:,}") for level in levels)])
    orders = max([_ORDERS_COLUMNS, *(len(f"{level.orders:,}") for level in levels)])
    for with_orders, with_bar in ((True, True), (False, True), (False, False)):
        taken = price + size + 2 * _GAP + with_orders * (orders + _GAP)
        bar = side - taken - _GAP
        if not with_bar:
            return _Columns(side, min(price, side), size if taken <= side else 0, 0, 0)
        if bar >= _LEAST_BAR:
            break
    return _Columns(side, price, size, orders if with_orders else 0, bar)


def spread_of(ladder: Ladder, decimals: int, glyphs: Glyphs) -> str:
    """Return the spread as text, with a minus of its own where the book is crossed."""
    spread = ladder.spread
    if spread is None:
        return "-"
    return (glyphs.minus if spread < 0 else "") + price_text(abs(spread), decimals)
