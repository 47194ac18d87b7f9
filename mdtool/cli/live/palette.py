"""The colours and glyphs of the live view, and lines made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.text import Text
from rich.theme import Theme

THEME: Final = Theme(
    {
        "bid": "green",
        "ask": "red",
        "best.bid": "bold green",
        "best.ask": "bold red",
        "best": "bold",
        "faint": "dim",
        "symbol": "bold",
        "key": "bold",
        "good": "green",
        "calm": "cyan",
        "warn": "yellow",
        "bad": "bold red",
        "warn.badge": "reverse yellow",
        "bad.badge": "reverse bold red",
    },
    inherit=False,
)
"""The terminal's own sixteen colours: they suit light and dark backgrounds alike."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What is drawn with beside letters and digits, each one column wide."""

    bar: str = "━"
    bar_left: str = "╺"
    bar_right: str = "╸"
    rule: str = "─"
    done: str = "━"
    wall: str = "│"
    cross: str = "┼"
    tee_right: str = "├"
    times: str = "×"  # noqa: RUF001 - it is meant
    playing: str = "►"
    paused: str = "❚❚"
    ended: str = "■"
    broken: str = "✗"
    live: str = "●"
    buy: str = "▲"
    sell: str = "▼"
    neither: str = "·"
    minus: str = "−"  # noqa: RUF001 - as wide as the digits beside it


UNICODE: Final = Glyphs()
ASCII: Final = Glyphs(
    bar="=",
    bar_left="-",
    bar_right="-",
    rule="-",
    done="=",
    wall="|",
    cross="+",
    tee_right="+",
    times="x",
    playing=">",
    paused="||",
    ended="#",
    broken="!",
    live="*",
    buy="^",
    sell="v",
    neither=".",
    minus="-",
)
"""For terminals whose encoding has no more."""


def fit(line: Text, columns: int) -> Text:
    """Cut a line, or fill it up, to a width; it is changed in place."""
    line.truncate(max(columns, 0), overflow="crop", pad=True)
    return line


def apart(left: Text, right: Text, columns: int) -> Text:
    """Return a line with one text at its left and one at its right end, which goes first."""
    room = columns - right.cell_len
    return fit(fit(left, room) + right, columns)


def count_text(count: float) -> str:
    """Return a count or a rate with its thousands apart, and a decimal where it is small."""
    return f"{count:,.1f}" if 0 < count < 10 and count % 1 else f"{count:,.0f}"
