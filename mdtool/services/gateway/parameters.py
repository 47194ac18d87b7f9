"""What clients may ask for: symbols, intervals, limits and cursors out of their text."""

from __future__ import annotations

from typing import Final

from mdtool.core.errors import UsageError
from mdtool.core.symbols import MAX_SYMBOL_CHARS, normal_symbol
from mdtool.core.units import NS_PER_MS, parse_duration

MAX_ROWS: Final = 1_000
MAX_DEPTH: Final = 100
DEFAULT_ROWS: Final = 100
_MAX_NS: Final = 2**63 - 1


class ParameterError(UsageError):
    """A client's parameter is missing, malformed or out of its range."""


def parse_symbol(text: str) -> str:
    """Return a symbol as ticks carry it: trimmed, upper-case, 1 to 70 printable ASCII characters.

    Raises
    ------
    ParameterError
        When it can be no symbol.
    """
    symbol = normal_symbol(text)
    if symbol is None:
        raise ParameterError(f"symbol: wants 1 to {MAX_SYMBOL_CHARS} printable ASCII characters")
    return symbol


def parse_interval(text: str) -> str:
    """Return the interval of bars, a duration such as `1m`; whether it is kept is not known here.

    Raises
    ------
    ParameterError
        When it is no duration.
    """
    try:
        parse_duration(text)
    except UsageError as error:
        raise ParameterError("interval: wants a duration such as 1m") from error
    return text


def parse_limit(text: str | None) -> int:
    """Return how many bars or trades are wanted, 100 where nothing is said.

    Raises
    ------
    ParameterError
        When it is no whole number from 1 to 1,000.
    """
    return DEFAULT_ROWS if text is None else _parse_whole("limit", text, MAX_ROWS)


def check_limit(limit: int) -> int:
    """Return how many bars or trades are wanted.

    Raises
    ------
    ParameterError
        When it is not from 1 to 1,000.
    """
    return _parse_whole("limit", str(limit), MAX_ROWS)


def parse_depth(text: str) -> int:
    """Return how many levels of each side of a book are requested.

    Raises
    ------
    ParameterError
        When it is not a whole number from 1 to 100.
    """
    return _parse_whole("depth", text, MAX_DEPTH)


def check_depth(depth: int) -> int:
    """Return how many levels of each side of a book are wanted.

    Raises
    ------
    ParameterError
        When it is not from 1 to 100.
    """
    return _parse_whole("depth", str(depth), MAX_DEPTH)


def parse_before(text: str | None) -> int:
    """Return the nanoseconds of a time in ms, 0 where there is none.

    Raises
    ------
    ParameterError
        When it is no time in ms above 0.
    """
    return 0 if text is None else _parse_whole("before", text, _MAX_NS // NS_PER_MS) * NS_PER_MS


def _parse_whole(name: str, text: str, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= most:
        return int(text)
    raise ParameterError(f"{name}: wants a whole number from 1 to {most}")
