"""JSON messages whose numbers stay text, decimals exact, what of them is not valid, and errors.

A source may send anything in any field. `INVALID` are the errors of a message that is not as the
protocol says; of a message of several parts, `parts` leaves out those that are not. Values of the
right place and the wrong kind are refused by the encoder of the stream, for every source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mdtool.core.errors import UsageError
from mdtool.core.units import NS_PER_MS
from mdtool.wire.source_stream import NO_TIME_NS, Event, Failed, Lost, Malformed, Rejected

INVALID: Final = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
    UsageError,
)
"""What is raised where a message is not as its protocol says."""
_DECODER: Final = json.JSONDecoder(parse_float=str, parse_constant=str)
_SHOWN_CHARS: Final = 80
_PASSING: Final = re.compile(
    r"\brate\b|too many (?:requests|connections|messages|attempts)|limit reached|try again|busy"
    r"|connection limit|unavailable|overload|time[d-]? ?out|temporar|maintenance|internal|throttl"
    r"|shutting down",
    re.IGNORECASE,
)
_OF_THE_KEY: Final = re.compile(r"\bauth|api.?key|token|signature", re.IGNORECASE)
_FINAL: Final = re.compile(
    r"permission|denied|forbidden|invalid|malformed|unknown|unsupported|subscri|no such"
    r"|not (?:supported|permitted|allowed|found|enabled|available)",
    re.IGNORECASE,
)


def decoded(text: str) -> Any:
    """Return a message; numbers with a point or an exponent are texts, as are NaN and Infinity.

    Raises
    ------
    ValueError
        When it is not JSON.
    """
    try:
        # What `decode` does, without looking for white space around the value.
        value, end = _DECODER.raw_decode(text)
        return value if end == len(text) else _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parts(message: object, events: Callable[[Any], Event | None]) -> list[Event]:
    """Return the event of each part of a message; of one that is not valid, `Malformed`.

    Parameters
    ----------
    message : list
    events : callable
        Returns the event of a part, None for a part without one.

    Raises
    ------
    TypeError
        When it is not a list.
    """
    if type(message) is not list:
        raise TypeError(f"{type(message).__name__} is not a list")
    found: list[Event] = []
    for part in message:
        try:
            event = events(part)
        except INVALID:
            event = malformed(json.dumps(part))
        if event is not None:
            found.append(event)
    return found


def word(value: object) -> str:
    """Return the text that says what a message is.

    Raises
    ------
    TypeError
        When it is not a text.
    """
    if type(value) is not str:
        raise TypeError(f"{type(value).__name__} is not a text")
    return value


def malformed(text: str) -> Malformed:
    """Return the event of a message that is not valid, with as much of it as is shown."""
    return Malformed(text[:_SHOWN_CHARS])


def ms_to_ns(value: object) -> int:
    """Return a time in nanoseconds that a message has in milliseconds; `NO_TIME_NS` for others."""
    return value * NS_PER_MS if type(value) is int else NO_TIME_NS


def request(message: Mapping[str, object]) -> str:
    """Return a message to send."""
    return json.dumps(message, separators=(",", ":"))


def chosen(schemas: str, offered: Sequence[str]) -> list[str]:
    """Return the schemas that settings name, all that are offered if they name none.

    Raises
    ------
    UsageError
        When one is not offered.
    """
    names = [name for text in schemas.split(",") if (name := text.strip())]
    for name in names:
        if name not in offered:
            raise UsageError(f"--schema {name}: the source has {', '.join(offered)}")
    return names or list(offered)


def may_pass(reason: str) -> bool:
    """Return whether the words of an error say that another attempt may succeed."""
    return _PASSING.search(reason) is not None


def rejection(reason: str, symbol: str | None = None) -> Lost | Rejected | Failed:
    """Return what an error is: `Lost` to try again, unless its words say that this is of no use.

    Parameters
    ----------
    reason : str
        The source's words.
    symbol : str, optional
        Of which the error is, empty where it does not name it; none if it is of all of them.
    """
    if may_pass(reason):
        return Lost(reason)
    if _OF_THE_KEY.search(reason):
        return Failed(reason, is_for_keys=True)
    if symbol is not None:
        return Rejected(symbol, reason)
    return Failed(reason) if _FINAL.search(reason) else Lost(reason)
