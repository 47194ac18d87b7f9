"""Lines turned into the bytes that change a screen, and no more than these."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from mdtool.cli.screen import THEME, Painter


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def painter(encoding: str = "utf-8", **environment: str) -> Painter:
    environment = {"TERM": "xterm-256color", **environment}
    return Painter(
        Console(file=_Terminal(io.BytesIO(), encoding), theme=THEME, _environ=environment)
    )


def texts(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_the_first_frame_is_whole_on_an_empty_screen():
    assert painter().paint(texts("one", "two")) == (
        b"\x1b[?2026h\x1b[0m\x1b[2J\x1b[1;1Hone\x1b[2;1Htwo\x1b[H\x1b[?2026l"
    )


def test_then_only_lines_that_differ_are_written():
    painted = painter()
    painted.paint(texts("one", "two", "three"))
    assert painted.paint(texts("one", "2", "three")) == b"\x1b[?2026h\x1b[2;1H2\x1b[H\x1b[?2026l"
    assert painted.paint(texts("one", "2", "three")) == b""


def test_repainted_every_line_is_written_but_nothing_is_cleared():
    painted = painter()
    painted.paint(texts("one", "two"))
    painted.repaint()
    written = painted.paint(texts("one", "two"))
    assert b"\x1b[1;1Hone\x1b[2;1Htwo" in written
    assert b"\x1b[2J" not in written


def test_after_clear_all_lines_are_written():
    painted = painter()
    painted.paint(texts("one"))
    painted.clear()
    assert b"\x1b[2J\x1b[1;1Hone" in painted.paint(texts("one"))


def test_more_and_fewer_lines_than_before():
    painted = painter()
    painted.paint(texts("one"))
    assert b"\x1b[2;1Htwo" in painted.paint(texts("one", "two"))
    assert painted.paint(texts("one")) == b""


def test_styles_end_with_their_line():
    written = painter().paint([Text("64.83", "bid"), Text("x")])
    assert b"\x1b[1;1H\x1b[32m64.83\x1b[0m\x1b[2;1Hx" in written


@pytest.mark.parametrize(("style", "is_seen"), [("bid", False), ("warn.badge", True)])
def test_without_colour_there_is_none_but_badges_stand_out(style, is_seen):
    written = painter(NO_COLOR="1").paint([Text("64.83", style)])
    assert b"\x1b[32m" not in written
    assert b"33" not in written
    assert (b"\x1b[7m64.83" in written) == is_seen


def test_markup_and_links_in_a_text_are_only_text():
    assert b"[bold]x[/bold] http://y" in painter().paint(texts("[bold]x[/bold] http://y"))


def test_what_an_encoding_lacks_is_replaced():
    assert b"1;1H?" in painter("ascii").paint(texts("━"))
