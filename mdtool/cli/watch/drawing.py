"""The picture of the watch: its header, its table with the columns that fit, and its hints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from mdtool.cli.screen import (
    Glyphs,
    apart,
    count_text,
    fit,
    help_lines,
    hints_line,
    printable,
    too_small,
)
from mdtool.cli.watch.quotes import Quote, Quotes, decimal_text
from mdtool.cli.watch.selection import Selection
from mdtool.core.config import did_you_mean
from mdtool.core.errors import UsageError
from mdtool.core.units import counted
from mdtool.wire.alert_lines import AlertLine

GAP: Final = 2
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS: Final = "_.:-=+*#"
_FLASH_S: Final = 0.6
_VWAP_DECIMALS: Final = 2
"""More decimals than prices have, as averages are between prices."""
MIN_COLUMNS: Final = 26
MIN_LINES: Final = 3
_RULE_FROM_LINES: Final = 8
_HINTS_FROM_LINES: Final = 6
_HEADS_FROM_LINES: Final = 5
_HINTS: Final = (
    ("s", "sort", 2),
    ("r", "reverse", 4),
    ("/", "filter", 3),
    ("up down", "scroll", 5),
    ("h", "help", 1),
    ("q", "quit", 0),
)
_HELP: Final = (
    ("s  right", "sort by the next column"),
    ("S  left", "sort by the column before"),
    ("r", "the other way round"),
    ("/  f", "filter symbols: type, then enter; esc shows all"),
    ("up down", "scroll, also j k"),
    ("page up/dn", "scroll by pages, also b and space"),
    ("home end", "first and last, also g G"),
    ("h  ?", "show or leave this help"),
    ("q", "quit"),
    ("", ""),
    ("change", "since this watch began; so does the trend"),
    ("vs vwap", "how far the price is from its VWAP"),
    ("window", "trades that the VWAP is of"),
    ("faint", "as it was: the feed, or the source of a price, is unavailable"),
    ("alert", "the latest of a symbol, faint once it has ended; it predicts nothing"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """The look of rows.

    Attributes
    ----------
    glyphs : Glyphs
    is_ascii : bool
        Whether the terminal's encoding is ASCII.
    now_s : float
        The watch's clock.
    columns : sequence of (Column, int)
        As `COLUMNS`; empty for these.
    """

    glyphs: Glyphs
    is_ascii: bool
    now_s: float
    columns: Sequence[tuple[Column, int]] = ()


@dataclass(frozen=True, slots=True)
class Connection:
    """The state of the connection to the feed.

    Attributes
    ----------
    address : str
    is_live : bool
    reason : str
        Why it is not live.
    retry_s : float
        Seconds until the next attempt, 0 during one.
    attempts : int
        Failed attempts since the last line.
    rate : float
        Updates a second.
    notice : str
        A message for the user.
    """

    address: str
    is_live: bool = False
    reason: str = ""
    retry_s: float = 0.0
    attempts: int = 0
    rate: float = 0.0
    notice: str = ""


def draw(
    quotes: Quotes,
    connection: Connection,
    selection: Selection,
    look: Look,
    size: tuple[int, int],
) -> list[Text]:
    """Return as many lines as `size`, columns and lines, has, each of its width."""
    columns, lines = size
    if columns < MIN_COLUMNS or lines < MIN_LINES:
        return too_small(columns, lines, (MIN_COLUMNS, MIN_LINES))
    has_rule = lines >= _RULE_FROM_LINES
    has_heads = lines >= _HEADS_FROM_LINES and not selection.is_help
    has_hints = lines >= _HINTS_FROM_LINES or selection.is_typing
    room = lines - 1 - has_rule - has_heads - has_hints
    rows, n_fitting = selection.choose(quotes.by_symbol, room)
    drawn = [_header(quotes, connection, look, columns)]
    if has_rule:
        drawn.append(Text(look.glyphs.rule * columns, "faint"))
    if selection.is_help:
        drawn += [fit(Text(), columns), *help_lines(_HELP, columns)][:room]
    else:
        shown = fitting(columns, look.columns or COLUMNS)
        if has_heads:
            drawn.append(_heads(shown, selection, look, columns))
        for symbol, quote in rows:
            line = Text(" ")
            for column, width in shown:
                line.append(column.cell(column.draw(symbol, quote, look, width), width))
                line.append(" " * GAP)
            if quote.state.is_stale or not connection.is_live:
                line.stylize("faint")
            drawn.append(fit(line, columns))
        if not rows:
            drawn.append(fit(Text(f" {_nothing(quotes, connection)}", "faint"), columns))
    drawn += [fit(Text(), columns) for _ in range(lines - has_hints - len(drawn))]
    if has_hints:
        drawn.append(_last_line(connection, selection, (len(rows), n_fitting), columns))
    return drawn[:lines]


def _header(quotes: Quotes, connection: Connection, look: Look, columns: int) -> Text:
    left = Text(" ").append(connection.address, "symbol")
    right = Text("  ").append(*_state(connection, look)).append(" ")
    for part in (
        f"  {counted(len(quotes.by_symbol), 'symbol')}",
        f"  {count_text(connection.rate)}/s" if connection.is_live else "",
    ):
        if left.cell_len + len(part) + right.cell_len > columns:
            break
        left.append(part, "faint")
    return apart(left, right, columns)


def _state(connection: Connection, look: Look) -> tuple[str, str]:
    if connection.is_live:
        return f"{look.glyphs.live} live", "good"
    if not connection.attempts:
        return "connecting", "warn"
    if connection.retry_s <= 0:
        return f"trying again, attempt {connection.attempts + 1}", "warn"
    wait_s = math.ceil(connection.retry_s)
    return f"{look.glyphs.broken} unavailable, trying again in {wait_s} s", "bad"


def _heads(shown: list[tuple[Column, int]], selection: Selection, look: Look, columns: int) -> Text:
    line = Text(" ")
    is_down = selection.order.is_descending != selection.is_reversed
    for column, width in shown:
        is_chosen = column.title == selection.order.column
        mark = (look.glyphs.sell if is_down else look.glyphs.buy) if is_chosen else ""
        text = Text(f"{column.title}{mark}", "key" if is_chosen else "faint")
        line.append(column.cell(text, width)).append(" " * GAP)
    return fit(line, columns)


def _nothing(quotes: Quotes, connection: Connection) -> str:
    if quotes.by_symbol:
        return "no symbol fits the filter"
    return "waiting for trades" if connection.is_live else connection.reason or "connecting"


def _last_line(
    connection: Connection, selection: Selection, counts: tuple[int, int], columns: int
) -> Text:
    if selection.is_typing:
        left = Text(" filter ", "faint").append(selection.filter).append("_", "key")
        return apart(left, Text("enter keeps, esc shows all ", "faint"), columns)
    right = _position(selection, *counts)
    if not connection.is_live and connection.reason:
        return apart(Text(f" {connection.reason}", "bad"), right, columns)
    if connection.notice:
        return apart(Text(f" {connection.notice}", "warn"), right, columns)
    left = hints_line(_HINTS, columns - right.cell_len - 1)
    return apart(left, right, columns)


def _position(selection: Selection, shown: int, n_fitting: int) -> Text:
    """Return which rows are shown and what is filtered, where either is not all."""
    right = Text()
    if selection.filter:
        right.append(f"filter {selection.filter}  ", "warn")
    if shown < n_fitting and not selection.is_help:
        right.append(f"{selection.top + 1:,}-{selection.top + shown:,} of {n_fitting:,} ", "faint")
    return right


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
    ratio = quote.change_ratio
    if ratio is None:
        return Text("-", "faint")
    return Text(f"{ratio:{'+' if ratio else ''}.2%}", _style(quote.change))


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
    return Text(decimal_text(quote.size, 9).rstrip("0").rstrip("."))


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


def alert_text(alert: AlertLine) -> str:
    """Return an alert in words."""
    state = "" if alert.end is None else ", ended"
    return (
        f"{alert.symbol} {alert.kind} ({alert.severity}{state}): {alert.value} against "
        f"{alert.baseline}"
    )


def _alert(_symbol: str, quote: Quote, _look: Look, _width: int) -> Text:
    if quote.alert is None:
        return Text()
    style = {"high": "bad", "medium": "warn"}.get(quote.alert.severity, "")
    return Text(printable(quote.alert.kind), "faint" if quote.alert.end else style)


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


GATEWAY_COLUMNS: Final = (
    *COLUMNS[:4],
    (Column("alert", 10, _alert, is_left=True, most=16), 2),
    *COLUMNS[4:],
)
"""Those of a gateway's stream, which has alerts."""


def named_columns(text: str) -> Sequence[tuple[Column, int]]:
    """Return the columns that a list names, separated by commas: the first ones go first.

    Raises
    ------
    UsageError
        When there is no such column.
    """
    known = {column.title: column for column, _rank in GATEWAY_COLUMNS}
    chosen = []
    for rank, name in enumerate(dict.fromkeys(part.strip().lower() for part in text.split(","))):
        if name not in known:
            raise UsageError(f"--columns {name}: no such column{did_you_mean(name, known)}")
        chosen.append((known[name], rank))
    return chosen


def fitting(
    columns: int, among: Sequence[tuple[Column, int]] = COLUMNS
) -> list[tuple[Column, int]]:
    """Return the columns that a width has room for, from left to right, each with its width."""
    room = columns - GAP
    chosen: list[Column] = []
    for column, _rank in sorted(among, key=lambda entry: entry[1]):
        if column.width + GAP > room:
            break
        room -= column.width + GAP
        chosen.append(column)
    widths = {column.title: column.width for column in chosen}
    for column in chosen:
        extra = min(max(column.most - column.width, 0), room)
        widths[column.title] += extra
        room -= extra
    return [(column, widths[column.title]) for column, _rank in among if column in chosen]


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
