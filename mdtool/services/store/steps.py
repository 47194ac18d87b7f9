"""Brings rows into a store step by step, as large as is good for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mdtool.adapters.datasets.trade_rows import RowGroups, TradeRows
from mdtool.core.errors import CorruptStreamError
from mdtool.services.store.interrupts import uninterrupted
from mdtool.services.store.keeping import Keeper

STEP_ROWS: Final = 1 << 16
"""Trades of files that are written at once; those of pipes are as they come."""


def keep_all(
    keeper: Keeper, rows: Iterator[TradeRows], is_live: bool, progress: Callable[[], None]
) -> None:
    """Keep rows to their end.

    Parameters
    ----------
    keeper : Keeper
    rows : iterator of TradeRows
        All of the same tables. Where they break off with a CorruptStreamError, what came before
        is kept.
    is_live : bool
        Whether what has come is kept at once, however little it is.
    progress : callable
        Called after each step.

    Raises
    ------
    KeyboardInterrupt
        After a whole step.
    """
    groups = RowGroups(STEP_ROWS)

    def keep(parts: Iterator[TradeRows]) -> None:
        for group in parts:
            with uninterrupted():
                keeper.keep(group)
            progress()

    try:
        for some in rows:
            keep(iter([some]) if is_live else groups.add(some))
            progress()
    except CorruptStreamError:
        keep(groups.rest())
        raise
    keep(groups.rest())
