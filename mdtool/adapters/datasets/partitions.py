"""The folders of a dataset: `date=2025-09-24/symbol=ESZ5`, as Hive names them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from mdtool.core.errors import OutputError, UsageError

DATE: Final = "date"
SYMBOL: Final = "symbol"
KEYS: Final = (DATE, SYMBOL)
NONE: Final = "none"
"""The value of `--partition` for a single file."""

_EPOCH: Final = dt.date(1970, 1, 1)
_NULL: Final = "__HIVE_DEFAULT_PARTITION__"
"""The value that readers take for null."""
_ASSIGN: Final = "="


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys that `--partition` names, in order; nothing for `none`.

    Raises
    ------
    UsageError
        When one is unknown or given twice.
    """
    if text == NONE:
        return ()
    keys = tuple(key.strip() for key in text.split(","))
    if not set(keys) <= set(KEYS) or len(set(keys)) < len(keys):
        raise UsageError(f"--partition {text}: give date, symbol, both or none")
    return keys


def folder_of(keys: Sequence[str], symbol: str, day: int) -> Path:
    """Return the folder, within a dataset, of a symbol's trades of a day.

    Parameters
    ----------
    keys : sequence of str
        As `parse_keys` returned them.
    symbol : str
        Characters but letters, digits, `_`, `.`, `-` and `~` are written as `%` and two digits.
    day : int
        UTC days since the epoch.

    Raises
    ------
    OutputError
        When readers would take the folder's name for null.
    """
    if SYMBOL in keys and symbol == _NULL:
        raise OutputError(
            f"{symbol}: readers take a folder of this name for null; partition by date"
        )
    date = _EPOCH + dt.timedelta(days=day)
    values = {DATE: date.isoformat(), SYMBOL: quote(symbol, safe="")}
    return Path(*(f"{key}{_ASSIGN}{values[key]}" for key in keys))


def values_of(path: Path) -> dict[str, str]:
    """Return the values in the names of a file's folders, by key."""
    return dict(_named(path.parent.parts))


def _named(parts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for part in parts:
        key, assign, value = part.partition(_ASSIGN)
        if assign and key in KEYS:
            yield key, unquote(value)
