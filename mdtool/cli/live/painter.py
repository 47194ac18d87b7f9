"""Lines of text put on a screen with as little as changes it, so that nothing flickers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
"""Around what a terminal that can do so shows all at once."""
_CLEAR: Final = "\x1b[0m\x1b[2J"
_HOME: Final = "\x1b[H"
"""Where the cursor waits: what another process writes there does not make the screen scroll."""


class Painter:
    """Knows what stands on the screen, and makes the bytes that turn it into something else.

    Parameters
    ----------
    console : Console
        Turns styles into what its terminal understands; nothing is written to it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: list[str] = []
        self._is_clear = False

    def paint(self, lines: Sequence[Text]) -> bytes:
        """Return what has to be written for the screen to show these lines, all of one width.

        Empty when it does already.
        """
        rendered = self._rendered(lines)
        known: list[str | None] = [*self._lines, *[None] * (len(rendered) - len(self._lines))]
        changes = [
            f"\x1b[{row};1H{line}"
            for row, (line, before) in enumerate(zip(rendered, known, strict=False), 1)
            if line != before
        ]
        clear = "" if self._is_clear else _CLEAR
        self._lines, self._is_clear = rendered, True
        if not changes:
            return b""
        text = f"{_BEGIN}{clear}{''.join(changes)}{_HOME}{_END}"
        return text.encode(self._console.encoding, "replace")

    def repaint(self) -> None:
        """Write every line the next time, for others may have written over some."""
        self._lines = []

    def clear(self) -> None:
        """Begin with an empty screen the next time, for it has another size or was another's."""
        self._lines = []
        self._is_clear = False

    def _rendered(self, lines: Sequence[Text]) -> list[str]:
        with self._console.capture() as captured:
            self._console.print(*lines, sep="\n", soft_wrap=True, end="")
        return captured.get().split("\n")
