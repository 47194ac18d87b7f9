"""Rows gathered into groups of one size, whatever the pieces in which they come."""

from __future__ import annotations

from collections.abc import Iterator

from mdtool.adapters.datasets.rows import TradeRows


class Gathered:
    """Holds rows back until there are `size` of them.

    Parameters
    ----------
    size : int
        Rows in a group; the last one may have fewer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[TradeRows] = []
        self._held = 0

    def add(self, rows: TradeRows) -> Iterator[TradeRows]:
        """Take rows; yield the groups that they complete."""
        while self._held + len(rows) >= self._size:
            missing = self._size - self._held
            self._parts.append(rows.take(slice(0, missing)))
            yield from self.rest()
            rows = rows.take(slice(missing, None))
        if len(rows):
            self._parts.append(rows)
            self._held += len(rows)

    def rest(self) -> Iterator[TradeRows]:
        """Yield what is held, if anything."""
        if self._parts:
            rows = TradeRows.concatenate(self._parts)
            self._parts, self._held = [], 0
            yield rows
