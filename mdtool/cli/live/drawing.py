"""A frame drawn as lines of text: the layout of its parts, and what surrounds the panels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from rich.text import Text

from mdtool.cli.live.frame import Frame, Ladder, State, Touch, price_text
from mdtool.cli.live.panels import (
    clock_text,
    draw_brief,
    draw_heads,
    draw_levels,
    draw_prints,
    draw_statistics,
    print_glyph,
    spread_of,
    wall_column,
)
from mdtool.cli.live.playback import FLAT_OUT
from mdtool.cli.screen import Glyphs, apart, count_text, fit, help_lines, hints_line, too_small
from mdtool.core.publishers import publisher_name
from mdtool.core.units import NS_PER_S

MIN_COLUMNS: Final = 30
MIN_LINES: Final = 4
"""The smallest terminal in which no price is cut."""
_SIDE_FROM_COLUMNS: Final = 100
_SIDE_COLUMNS: Final = (38, 48)
_SIDE_FROM_LINES: Final = 14
_BELOW_FROM_COLUMNS: Final = 64
_BELOW_FROM_LINES: Final = 17
_BELOW_MOST_LINES: Final = 10
STATISTICS_LINES: Final = 9
"""The most lines for counts and rates in the panel at the side; the rest is for trades."""
_DATE_FROM_COLUMNS: Final = 60
_UTC_FROM_COLUMNS: Final = 72
_KEEPS_PACE: Final = 0.9
_NEXT: Final = "next symbol"
_HINTS: Final = (
    ("space", "pause", 1),
    ("s", "step", 3),
    ("+ -", "speed", 4),
    ("n", _NEXT, 5),
    ("h", "help", 2),
    ("q", "quit", 0),
)
"""Keys, their meanings, and their ranks."""
_PLAYING_HINTS: Final = frozenset({"pause", "step", "speed"})
_HELP: Final = (
    ("space", "pause, resume"),
    ("s  right", "step: one event of this book"),
    ("+  up", "faster, up to flat out"),
    ("-  down", "slower"),
    ("1  0", "real time, flat out"),
    ("n  tab", "next symbol"),
    ("p", "previous symbol"),
    ("h  ?", "show or leave this help"),
    ("q", "quit"),
    ("", ""),
    ("PARTIAL", "orders may be missing: it began without a snapshot, or is flagged"),
    ("CROSSED", "the best bid is above the best ask"),
    ("LOCKED", "the best bid is the best ask"),
    ("anomalies", "records that contradict the book, counted by kind"),
    ("bars", "sizes; all are of one scale, the longest at most full"),
    ("/s", "a second of real time, whatever the speed"),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns and lines of each part; a part with none is left out.

    Attributes
    ----------
    columns, lines : int
        Of the terminal.
    rule, summary, heads, hints : bool
        Whether there is a line for it.
    depth : int
        Lines of levels.
    side_columns : int
        Columns of the panel right of the ladder.
    below_lines : int
        Lines of the panel below the ladder, without the rule above it.
    brief : bool
        Whether one line takes the place of a panel.
    """

    columns: int
    lines: int
    rule: bool
    summary: bool
    heads: bool
    hints: bool
    depth: int
    side_columns: int = 0
    below_lines: int = 0
    brief: bool = False

    @classmethod
    def of(cls, columns: int, lines: int) -> Self:
        """Return the layout for a terminal of a size."""
        rule, summary, heads, hints = lines >= 8, lines >= 4, lines >= 10, lines >= 6
        rest = max(lines - 1 - rule - summary - heads - hints, 0)
        side_columns = below_lines = 0
        brief = False
        if columns >= _SIDE_FROM_COLUMNS and lines >= _SIDE_FROM_LINES:
            narrowest, widest = _SIDE_COLUMNS
            side_columns = min(max(columns // 3, narrowest), widest)
        elif columns >= _BELOW_FROM_COLUMNS and rest >= _BELOW_FROM_LINES:
            below_lines = min((rest - 1) // 3, _BELOW_MOST_LINES)
            rest -= below_lines + 1
        elif rest >= 5:
            brief = True
            rest -= 1
        return cls(
            columns, lines, rule, summary, heads, hints, rest, side_columns, below_lines, brief
        )

    @property
    def is_too_small(self) -> bool:
        """Whether the terminal is too small for prices."""
        return self.columns < MIN_COLUMNS or self.lines < MIN_LINES

    @property
    def ladder_columns(self) -> int:
        """The columns of the ladder."""
        return self.columns - self.side_columns

    @property
    def body_lines(self) -> int:
        """The lines between header and hints, without the rule."""
        return max(self.lines - 1 - self.rule - self.hints, 0)

    @property
    def prints(self) -> int:
        """How many trades there is room for, at least one."""
        if self.side_columns:
            return self.depth
        return max(self.below_lines, 1)


def draw(frame: Frame, layout: Layout, glyphs: Glyphs, *, is_help: bool = False) -> list[Text]:
    """Return `layout.lines` lines, each `layout.columns` wide."""
    if layout.is_too_small:
        return too_small(layout.columns, layout.lines, (MIN_COLUMNS, MIN_LINES))
    lines = [_header(frame, layout, glyphs)]
    if layout.rule:
        lines.append(_progress_rule(frame, layout.columns, glyphs))
    body = _help(layout) if is_help else _body(frame, layout, glyphs)
    lines += body[: layout.body_lines]
    blank = layout.lines - layout.hints - len(lines)
    lines += [fit(Text(), layout.columns) for _ in range(blank)]
    if layout.hints:
        lines.append(_hints(frame, layout.columns))
    return lines[: layout.lines]


def _header(frame: Frame, layout: Layout, glyphs: Glyphs) -> Text:
    left = Text(" ")
    left.append(frame.symbol or "waiting for records", "symbol" if frame.symbol else "faint")
    if frame.books > 1:
        left.append(f"  {frame.place:,}/{frame.books:,}", "faint")
    left.append(f"  {frame.dataset}", "faint")
    if frame.publisher_id is not None:
        name = publisher_name(frame.publisher_id) or f"publisher {frame.publisher_id}"
        left.append(f"  {name}", "faint")
    if frame.publishers > 1:
        left.append(f"  {frame.publishers:,} publishers", "faint")
    clock = clock_text(frame.clock_ns)
    right = Text("  ")
    right.append(clock if layout.columns >= _DATE_FROM_COLUMNS else clock[11:])
    right.append(" UTC" if layout.columns >= _UTC_FROM_COLUMNS else "", "faint")
    right.append("  ")
    right.append(*_state(frame, glyphs))
    right.append(" ")
    return apart(left, right, layout.columns)


def _state(frame: Frame, glyphs: Glyphs) -> tuple[str, str]:
    is_flat_out = frame.speed == FLAT_OUT
    speed = "flat out" if is_flat_out else f"{frame.speed:,g}{glyphs.times}"
    match frame.state:
        case State.PAUSED:
            at = "" if is_flat_out and frame.is_live else f" {speed}"
            return f"{glyphs.paused} paused{at}", "warn"
        case State.ENDED:
            return f"{glyphs.ended} ended", "calm"
        case State.BROKEN:
            return f"{glyphs.broken} broken", "bad"
    if is_flat_out and frame.is_live:
        return _liveness(frame, glyphs)
    if frame.rates.pace and (is_flat_out or frame.rates.pace < frame.speed * _KEEPS_PACE):
        speed += f" at {count_text(frame.rates.pace)}{glyphs.times}"
    return f"{glyphs.playing} {speed}", "good"


def _liveness(frame: Frame, glyphs: Glyphs) -> tuple[str, str]:
    lag_s = (frame.lag_ns or 0) // NS_PER_S
    if frame.quiet_s:
        return f"{glyphs.live} quiet for {frame.quiet_s:,} s", "warn"
    if lag_s:
        return f"{glyphs.live} live, {lag_s:,} s behind", "warn"
    return f"{glyphs.live} live", "good"


def _progress_rule(frame: Frame, columns: int, glyphs: Glyphs) -> Text:
    done = round(columns * (frame.progress or 0))
    line = Text(glyphs.done * done, "calm")
    return line.append(glyphs.rule * (columns - done), "faint")


def _body(frame: Frame, layout: Layout, glyphs: Glyphs) -> list[Text]:
    lines = [_summary(frame, layout.columns, glyphs)] if layout.summary else []
    columns = layout.ladder_columns - (1 if layout.side_columns else 0)
    ladder = [draw_heads(frame, columns, glyphs)] if layout.heads else []
    ladder += draw_levels(frame, columns, layout.depth, glyphs)
    if layout.side_columns:
        return lines + _beside(ladder, _side_panel(frame, layout, len(ladder), glyphs), glyphs)
    lines += ladder
    if layout.below_lines:
        lines += _below_panel(frame, layout, glyphs)
    if layout.brief:
        lines.append(draw_brief(frame, layout.columns))
    return lines


def _summary(frame: Frame, columns: int, glyphs: Glyphs) -> Text:
    ladder = frame.ladder
    if ladder is None:
        return fit(Text(), columns)
    right = Text()
    if ladder.touch is Touch.CROSSED:
        right.append(" CROSSED ", "bad.badge").append(" ")
    elif ladder.touch is Touch.LOCKED:
        right.append(" LOCKED ", "bad.badge").append(" ")
    if ladder.is_partial:
        right.append(" PARTIAL ", "warn.badge").append(" ")
    left = Text()
    for part in _summary_parts(frame, ladder, glyphs):
        if left.cell_len + part.cell_len + right.cell_len <= columns:
            left.append(part)
    return apart(left, right, columns)


def _summary_parts(frame: Frame, ladder: Ladder, glyphs: Glyphs) -> Iterator[Text]:
    """Yield the parts of the summary, the most important first."""
    spread = spread_of(ladder, frame.decimals, glyphs)
    style = "bad" if ladder.touch else "best"
    yield Text.assemble((" spread ", "faint"), (spread, style), "  ")
    if ladder.prints:
        last = ladder.prints[0]
        glyph, style = print_glyph(last, glyphs)
        price = price_text(last.price, frame.decimals)
        yield Text.assemble((" last ", "faint"), (f"{price} {glyph}", style), "  ")
    if ladder.spread is not None:
        middle = (ladder.bids[0].price + ladder.asks[0].price) // 2
        is_between = bool(middle % 10 ** (9 - frame.decimals))
        price = price_text(middle, min(frame.decimals + is_between, 9))
        yield Text.assemble((" mid ", "faint"), price, "  ")


def _below_panel(frame: Frame, layout: Layout, glyphs: Glyphs) -> list[Text]:
    columns, lines = layout.columns, layout.below_lines
    at = wall_column(columns)
    prints = draw_prints(frame, at - 1, lines, glyphs)
    statistics = draw_statistics(frame, columns - at - 2, lines)
    statistics += [Text()] * (lines - len(statistics))
    title = f"{glyphs.rule} last trades "
    rule = Text(title.ljust(at, glyphs.rule) + glyphs.cross, "faint")
    rule.append(glyphs.rule * (columns - at - 1))
    joined = [rule]
    for left, right in zip(prints, statistics, strict=True):
        joined.append(fit(left.append(f" {glyphs.wall} ", "faint").append(right), columns))
    return joined


def _side_panel(frame: Frame, layout: Layout, lines: int, glyphs: Glyphs) -> list[Text]:
    columns = layout.side_columns
    statistics = draw_statistics(frame, columns, min(STATISTICS_LINES, lines // 2))
    panel = [fit(Text(" last trades", "faint"), columns)]
    panel += draw_prints(frame, columns, lines - len(statistics) - 2, glyphs)
    panel.append(Text(glyphs.rule * columns, "faint"))
    return panel + statistics


def _beside(ladder: list[Text], panel: list[Text], glyphs: Glyphs) -> list[Text]:
    return [
        left.append(
            glyphs.tee_right if right.plain.startswith(glyphs.rule) else glyphs.wall, "faint"
        )
        + right
        for left, right in zip(ladder, panel, strict=True)
    ]


def _help(layout: Layout) -> list[Text]:
    blank = [fit(Text(), layout.columns)] if layout.body_lines > len(_HELP) else []
    return [*blank, *help_lines(_HELP, layout.columns)]


def _hints(frame: Frame, columns: int) -> Text:
    if frame.notice:
        quit_hint = Text(" ").append("q", "key").append(" quit ", "faint")
        style = "bad" if frame.state is State.BROKEN else "warn"
        return apart(Text(f" {frame.notice}", style), quit_hint, columns)
    is_over = frame.state in (State.ENDED, State.BROKEN)
    absent = set(_PLAYING_HINTS) if is_over or not frame.is_played else set()
    if frame.books < 2:
        absent.add(_NEXT)
    pause = "resume" if frame.state is State.PAUSED else "pause"
    hints = [(key, pause if key == "space" else meaning, rank) for key, meaning, rank in _HINTS]
    return fit(hints_line(hints, columns, absent), columns)
