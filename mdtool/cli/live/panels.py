"""The panels of a frame: the ladder, the last trades, and counts with their rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.text import Text

from mdtool.cli.live.frame import Frame, Ladder, Level, Print, bar_scale, price_text
from mdtool.cli.screen import Glyphs, apart, count_text, fit
from mdtool.core.units import NS_PER_MS, NS_PER_S, UNDEF_ORDER_SIZE, UNDEF_TIMESTAMP, format_time

_GAP: Final = 1
_SIZE_COLUMNS: Final = 6
_ORDERS_COLUMNS: Final = 6
_PRICE_COLUMNS: Final = 3
_LEAST_BAR: Final = 4
_LABEL_COLUMNS: Final = 10
_VALUE_COLUMNS: Final = 11
_AFTER_COLUMNS: Final = 16
_CLOCKS: Final = (slice(11, 23), slice(11, 19), slice(0))
"""Parts of a time; a trade has the first one that there is room for."""
_GLYPHS_OF_SIDES: Final = {"B": ("buy", "bid"), "A": ("sell", "ask")}


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths of the cells of a side, 0 for a cell that is left out."""

    side: int
    price: int
    size: int
    orders: int
    bar: int


def wall_column(columns: int) -> int:
    """Return the column of the line between bids and asks in a ladder of a width."""
    return (columns - 3) // 2 + 1


def draw_heads(frame: Frame, columns: int, glyphs: Glyphs) -> Text:
    """Return the line of headings above the levels."""
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
    """Divide the width of a side among its cells: bars get what the others leave."""
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
    """Return the spread as text, with its own minus where the book is crossed."""
    spread = ladder.spread
    if spread is None:
        return "-"
    return (glyphs.minus if spread < 0 else "") + price_text(abs(spread), decimals)


def draw_prints(frame: Frame, columns: int, lines: int, glyphs: Glyphs) -> list[Text]:
    """Return a line for each of the last trades, latest first."""
    prints = frame.ladder.prints[:lines] if frame.ladder else ()
    prices = [f"{price_text(trade.price, frame.decimals):>10}" for trade in prints]
    sizes = [f"{_size(trade):>8}" for trade in prints]
    widest = max((len(p) + len(s) for p, s in zip(prices, sizes, strict=True)), default=0)
    clock = next(clock for clock in _CLOCKS if len(_clock(0, clock)) + widest + 3 <= columns)
    drawn = []
    for trade, price, size in zip(prints, prices, sizes, strict=True):
        glyph, style = print_glyph(trade, glyphs)
        line = Text().append(_clock(trade.ts_event_ns, clock), "faint")
        line.append(glyph, style).append(" ").append(price, style).append(" ").append(size)
        drawn.append(line)
    drawn += [Text() for _ in range(lines - len(drawn))]
    return [fit(line, columns) for line in drawn]


def draw_statistics(frame: Frame, columns: int, lines: int) -> list[Text]:
    """Return at most `lines` lines of counts, rates and kinds of anomalies."""
    ladder, rates = frame.ladder, frame.rates
    if ladder is None:
        return []
    levels = f"{ladder.bid_levels:,}+{ladder.ask_levels:,} levels"
    rows = [_counted("records", ladder.records, rates.shown)]
    rows.append(_counted("trades", ladder.trades, rates.trades))
    rows.append(_counted("volume", ladder.volume, rates.volume))
    rows.append(_Row("orders", f"{ladder.orders:,}", levels, "faint"))
    if frame.lag_ns is not None:
        rows.append(_Row("behind", f"{frame.lag_ns / NS_PER_MS:,.0f} ms"))
    if frame.books > 1:
        rows.append(_counted("all books", frame.total_records, rates.records))
    kinds = _anomalies(ladder, max(lines - len(rows), 1))
    rows = rows[: max(lines - len(kinds), 0)] + kinds
    return [fit(row.draw(columns), columns) for row in rows]


def draw_brief(frame: Frame, columns: int) -> Text:
    """Return the line that takes the place of panels."""
    line = Text(" ")
    right = Text()
    if frame.ladder is not None:
        line.append(f"{count_text(frame.rates.shown)}/s", "")
        line.append(f"  {frame.ladder.records:,} records", "faint")
        anomalies = sum(count for _, count in frame.ladder.anomalies)
        if anomalies:
            right.append(f"{anomalies:,} anomalies ", "warn")
    return apart(line, right, columns)


def print_glyph(trade: Print, glyphs: Glyphs) -> tuple[str, str]:
    """Return the glyph of a trade's aggressor, and its style."""
    glyph, style = _GLYPHS_OF_SIDES.get(trade.side, ("neither", "faint"))
    return getattr(glyphs, glyph), style


def clock_text(ts_ns: int | None) -> str:
    """Return a time in milliseconds, or a blank of the same width."""
    if ts_ns is None or not 0 <= ts_ns < UNDEF_TIMESTAMP:
        return " " * 23
    return format_time(ts_ns - ts_ns % (NS_PER_S // 1000))[:23].replace("T", " ")


@dataclass(frozen=True, slots=True)
class _Row:
    """A label, a number and a note, which is left out where there is no room."""

    label: str
    value: str
    after: str = ""
    after_style: str = ""
    value_style: str = ""

    def draw(self, columns: int) -> Text:
        row = Text(" ")
        row.append(f"{self.label:{_LABEL_COLUMNS}}", "faint")
        row.append(f"{self.value:>{_VALUE_COLUMNS}}", self.value_style)
        room = min(columns - row.cell_len, _AFTER_COLUMNS)
        if len(self.after) < room:
            row.append(f"{self.after:>{room}}", self.after_style)
        return row


def _counted(label: str, count: int, rate: float) -> _Row:
    return _Row(label, f"{count:,}", f"{count_text(rate)}/s", "" if rate else "faint")


def _anomalies(ladder: Ladder, lines: int) -> list[_Row]:
    """Return the kinds of anomalies, most first; those without a line are summed up."""
    kinds = [(count, kind.replace("_", " ")) for kind, count in ladder.anomalies]
    if len(kinds) > lines:
        rest = kinds[lines - 1 :]
        kinds = [*kinds[: lines - 1], (sum(count for count, _ in rest), f"{len(rest)} more kinds")]
    if not kinds:
        return [_Row("anomalies", "none", value_style="faint")]
    labels = ["anomalies", *[""] * (len(kinds) - 1)]
    return [
        _Row(label, f"{count:,}", kind, "warn", "warn")
        for label, (count, kind) in zip(labels, kinds, strict=True)
    ]


def _clock(ts_ns: int, part: slice) -> str:
    return f" {clock_text(ts_ns)[part]}  " if part.stop else " "


def _size(trade: Print) -> str:
    return "-" if trade.size == UNDEF_ORDER_SIZE else f"{trade.size:,}"
