"""Where the tables of a report go: as wide as the terminal, or a fixed width when piped."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

_PIPED_WIDTH: Final = 120


def report_console() -> Console:
    """Return a console on standard output; lines that are longer are not broken."""
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(soft_wrap=True, highlight=False, width=width)
