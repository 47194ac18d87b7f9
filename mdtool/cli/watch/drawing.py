"""The whole picture: lines of text, as wide and as many as the terminal has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from mdtool.cli.live.palette import apart, count_text, fit
from mdtool.cli.watch.columns import GAP, Column, Look, fitting
from mdtool.cli.watch.quotes import Quotes
from mdtool.cli.watch.selection import Selection
from mdtool.core.units import counted

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
)


@dataclass(frozen=True, slots=True)
class Connection:
    """How the feed is.

    Attributes
    ----------
    address : str
    is_live : bool
    reason : str
        Why it is not.
    retry_s : float
        In how many seconds it is tried again, 0 while it is.
    attempts : int
        How often it was tried since the last line.
    rate : float
        Updates a second.
    notice : str
        What has to be said.
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
        said = [Text(f"{MIN_COLUMNS}x{MIN_LINES} at least", "warn")]
        blank = [Text() for _ in range(lines)]
        return [fit(line, columns) for line in [*said, *blank][:lines]]
    has_rule = lines >= _RULE_FROM_LINES
    has_heads = lines >= _HEADS_FROM_LINES and not selection.is_help
    has_hints = lines >= _HINTS_FROM_LINES or selection.is_typing
    room = lines - 1 - has_rule - has_heads - has_hints
    rows, n_fitting = selection.choose(quotes.by_symbol, room)
    drawn = [_header(quotes, connection, look, columns)]
    if has_rule:
        drawn.append(Text(look.glyphs.rule * columns, "faint"))
    if selection.is_help:
        drawn += _help(columns)[:room]
    else:
        shown = fitting(columns)
        if has_heads:
            drawn.append(_heads(shown, selection, look, columns))
        for symbol, quote in rows:
            line = Text(" ")
            for column, width in shown:
                line.append(column.cell(column.draw(symbol, quote, look, width), width))
                line.append(" " * GAP)
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
    return f"{look.glyphs.broken} away, trying again in {wait_s} s", "bad"


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


def _help(columns: int) -> list[Text]:
    lines = [fit(Text(), columns)]
    for key, meaning in _HELP:
        line = Text("   ").append(f"{key:12}", "key").append(meaning)
        lines.append(fit(line, columns))
    return lines


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
    room, kept = columns - right.cell_len - 1, set()
    for key, meaning, rank in sorted(_HINTS, key=lambda hint: hint[2]):
        room -= len(key) + len(meaning) + 3
        if room >= 0:
            kept.add(rank)
    left = Text(" ")
    for key, meaning, rank in _HINTS:
        if rank in kept:
            left.append(key, "key").append(f" {meaning}  ", "faint")
    return apart(left, right, columns)


def _position(selection: Selection, shown: int, n_fitting: int) -> Text:
    """Return which rows are shown and what is filtered, where either is not all."""
    right = Text()
    if selection.filter:
        right.append(f"filter {selection.filter}  ", "warn")
    if shown < n_fitting and not selection.is_help:
        right.append(f"{selection.top + 1:,}-{selection.top + shown:,} of {n_fitting:,} ", "faint")
    return right
