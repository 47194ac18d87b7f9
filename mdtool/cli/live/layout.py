"""How the parts of the live view share a terminal of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

MIN_COLUMNS: Final = 30
MIN_LINES: Final = 4
"""In less there is no room for prices, and half a price would be a wrong one."""
_SIDE_FROM_COLUMNS: Final = 100
_SIDE_COLUMNS: Final = (38, 48)
_SIDE_FROM_LINES: Final = 14
_BELOW_FROM_COLUMNS: Final = 64
_BELOW_FROM_LINES: Final = 17
_BELOW_MOST_LINES: Final = 10
STATISTICS_LINES: Final = 9
"""At most so many has the panel at the side for counts and rates; the rest is for trades."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many columns and lines each part has; a part with none is left out.

    Attributes
    ----------
    columns, lines : int
        Of the terminal.
    rule, summary, heads, hints : bool
        Whether there is room for a line of that.
    depth : int
        Lines of levels.
    side_columns : int
        Of the panel right of the ladder.
    below_lines : int
        Of the panel below the ladder, without the rule above it.
    brief : bool
        Whether a line stands for a panel.
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
        """Whether nothing can be shown that is worth it."""
        return self.columns < MIN_COLUMNS or self.lines < MIN_LINES

    @property
    def ladder_columns(self) -> int:
        """What the ladder has of the width."""
        return self.columns - self.side_columns

    @property
    def body_lines(self) -> int:
        """Lines between what stands above and below everything: all but header, rule and hints."""
        return max(self.lines - 1 - self.rule - self.hints, 0)

    @property
    def prints(self) -> int:
        """How many trades there is room for, and at least the last one."""
        if self.side_columns:
            return self.depth
        return max(self.below_lines, 1)
