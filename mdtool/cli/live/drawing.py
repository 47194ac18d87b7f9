"""A whole frame drawn: lines of text, as wide and as many as the terminal has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from mdtool.cli.live.frame import Frame, Ladder, State, Touch, price_text
from mdtool.cli.live.ladder_drawing import draw_heads, draw_levels, spread_of, wall_column
from mdtool.cli.live.layout import MIN_COLUMNS, MIN_LINES, STATISTICS_LINES, Layout
from mdtool.cli.live.palette import Glyphs, apart, count_text, fit
from mdtool.cli.live.panels import (
    clock_text,
    draw_brief,
    draw_prints,
    draw_statistics,
    print_glyph,
)
from mdtool.cli.live.playback import FLAT_OUT
from mdtool.core.units import NS_PER_S

_DATE_FROM_COLUMNS: Final = 60
_UTC_FROM_COLUMNS: Final = 72
_KEEPS_PACE: Final = 0.9
_HINTS: Final = (
    ("space", "pause", 1),
    ("s", "step", 3),
    ("+ -", "speed", 4),
    ("n", "next symbol", 5),
    ("h", "help", 2),
    ("q", "quit", 0),
)
"""Keys, what they do, and which of them go first where there is no room for all."""
_PLAYING_HINTS: Final = frozenset({"pause", "step", "speed"})
_HELP: Final = (
    ("space", "pause, and go on"),
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


def draw(frame: Frame, layout: Layout, glyphs: Glyphs, *, is_help: bool = False) -> list[Text]:
    """Return `layout.lines` lines, each `layout.columns` wide."""
    if layout.is_too_small:
        return _too_small(layout)
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


def _too_small(layout: Layout) -> list[Text]:
    said = Text(f"{MIN_COLUMNS}x{MIN_LINES} at least", "warn")
    lines = [said, *(Text() for _ in range(layout.lines))]
    return [fit(line, layout.columns) for line in lines[: layout.lines]]


def _header(frame: Frame, layout: Layout, glyphs: Glyphs) -> Text:
    left = Text(" ")
    left.append(frame.symbol or "waiting for records", "symbol" if frame.symbol else "faint")
    if frame.books > 1:
        left.append(f"  {frame.place:,}/{frame.books:,}", "faint")
    left.append(f"  {frame.dataset}", "faint")
    if frame.publisher_id is not None:
        left.append(f"  publisher {frame.publisher_id}", "faint")
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
    """Yield what there is to say of the best prices, what matters most first."""
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
    lines = [fit(Text(), layout.columns)] if layout.body_lines > len(_HELP) else []
    for key, meaning in _HELP:
        line = Text("   ")
        line.append(f"{key:12}", "key").append(meaning)
        lines.append(fit(line, layout.columns))
    return lines


def _hints(frame: Frame, columns: int) -> Text:
    if frame.notice:
        quit_hint = Text(" ").append("q", "key").append(" quit ", "faint")
        style = "bad" if frame.state is State.BROKEN else "warn"
        return apart(Text(f" {frame.notice}", style), quit_hint, columns)
    room, kept = columns, set()
    for key, meaning, rank in sorted(_HINTS, key=lambda hint: hint[2]):
        room -= len(key) + len(meaning) + 3
        if room >= 0:
            kept.add(rank)
    line = Text(" ")
    for key, meaning, rank in _HINTS:
        if rank in kept:
            is_over = frame.state in (State.ENDED, State.BROKEN)
            if (meaning in _PLAYING_HINTS and is_over) or (key == "n" and frame.books < 2):
                continue
            is_to_go_on = key == "space" and frame.state is State.PAUSED
            line.append(key, "key").append(f" {'go on' if is_to_go_on else meaning}  ", "faint")
    return fit(line, columns)
