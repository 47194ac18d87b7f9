"""Parameters of clients, parsed from text: symbols, intervals, limits, times.

An optional one that is absent, null or empty has its default.
"""

from __future__ import annotations

import contextlib
from typing import Final

from multidict import MultiMapping

from mdtool.core.buckets import parse_day
from mdtool.core.errors import UsageError
from mdtool.core.symbols import MAX_SYMBOL_CHARS, normal_symbol
from mdtool.core.units import NS_PER_MS, parse_duration, parse_time
from mdtool.services.aggregator.config import INTERVALS, calendar_advice

MAX_ROWS: Final = 1_000
MAX_SYMBOLS: Final = 500
"""That one URL may name."""
MAX_DEPTH: Final = 100
DEFAULT_ROWS: Final = 100
DEFAULT_DEPTH: Final = 10
ORDERS: Final = ("asc", "desc")
_INTERVALS: Final = {parse_duration(interval): interval for interval in INTERVALS}
_LEAST_NS: Final = 10**14
"""A smaller number is a time in ms; until the year 5138 no time in ms is larger."""
_MAX_NS: Final = 2**63 - 1


class ParameterError(UsageError):
    """A client's parameter is missing, malformed or out of its range."""


def parse_symbol(text: str) -> str:
    """Return a symbol as ticks carry it: trimmed, upper-case, 1 to 70 printable ASCII characters.

    Raises
    ------
    ParameterError
        When it is not a valid symbol.
    """
    symbol = normal_symbol(text)
    if symbol is None:
        raise ParameterError(f"symbol: expects 1 to {MAX_SYMBOL_CHARS} printable ASCII characters")
    return symbol


def parse_symbols(query: MultiMapping[str]) -> list[str]:
    """Return the symbols that a URL names, each once: of `symbol` and `symbols`, with commas.

    Raises
    ------
    ParameterError
        When one is not valid, or there are too many.
    """
    texts = [*query.getall("symbol", ()), *query.getall("symbols", ())]
    names = [name for text in texts if text for name in text.split(",")]
    symbols = list(dict.fromkeys(map(parse_symbol, names)))
    if len(symbols) > MAX_SYMBOLS:
        raise ParameterError(f"symbols: at most {MAX_SYMBOLS}, not {len(symbols):,}")
    return symbols


def parse_interval(text: str) -> str:
    """Return the interval of bars as the aggregator names it: `1m` for `60s`.

    Raises
    ------
    ParameterError
        When bars of that interval are not kept.
    """
    with contextlib.suppress(UsageError):
        if interval := _INTERVALS.get(parse_duration(text)):
            return interval
    *most, last = INTERVALS
    advice = calendar_advice(text)
    raise ParameterError(f"interval: expects {', '.join(most)} or {last}{advice}")


def parse_limit(text: str | None, most: int = MAX_ROWS) -> int:
    """Return how many rows are requested, 100 by default.

    Raises
    ------
    ParameterError
        When it is not a whole number from 1 to `most`.
    """
    return _parse_whole("limit", text, most) if text else DEFAULT_ROWS


def check_limit(limit: int | None) -> int:
    """Return how many rows are requested, 100 by default.

    Raises
    ------
    ParameterError
        When it is not from 1 to 1,000.
    """
    return DEFAULT_ROWS if limit is None else _parse_whole("limit", str(limit), MAX_ROWS)


def parse_depth(text: str) -> int:
    """Return how many levels of each side of a book are requested.

    Raises
    ------
    ParameterError
        When it is not a whole number from 1 to 100.
    """
    return _parse_whole("depth", text, MAX_DEPTH)


def parse_before(text: str | None) -> int:
    """Return the nanoseconds of a time in ms, 0 by default.

    Raises
    ------
    ParameterError
        When it is not a time in ms above 0.
    """
    return _parse_whole("before", text, _MAX_NS // NS_PER_MS) * NS_PER_MS if text else 0


def parse_moment(name: str, text: str | None) -> int | None:
    """Return a time in ns, from RFC 3339 text or a whole number of ms or ns since the epoch.

    Text beyond what ns since the epoch can be is the nearest time that can.

    Raises
    ------
    ParameterError
        When it is neither.
    """
    if not text:
        return None
    message = f"{name}: expects a time such as 2024-12-26T08:20:34Z, or ms since the epoch"
    if text.isascii() and text.isdigit():
        if len(text) > 19 or int(text) > _MAX_NS:
            raise ParameterError(message)
        number = int(text)
        return number if number >= _LEAST_NS else number * NS_PER_MS
    try:
        return min(max(parse_time(text), 0), _MAX_NS)
    except UsageError as error:
        raise ParameterError(message) from error


def parse_order(text: str | None, default: str) -> bool:
    """Return whether rows are requested in ascending order.

    Raises
    ------
    ParameterError
        When it is neither `asc` nor `desc`.
    """
    order = text or default
    if order not in ORDERS:
        raise ParameterError(f"order: expects {' or '.join(ORDERS)}")
    return order == ORDERS[0]


def _parse_whole(name: str, text: str, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 20 and 1 <= int(text) <= most:
        return int(text)
    raise ParameterError(f"{name}: expects a whole number from 1 to {most}")


def parse_session(text: str | None) -> str | None:
    """Return which session is requested, None for the current one.

    Raises
    ------
    ParameterError
        When it is neither `previous` nor a date.
    """
    if not text or text == "previous":
        return text or None
    try:
        parse_day(text)
    except UsageError as error:
        raise ParameterError(f"session: {error}, or previous") from error
    return text
