"""Errors that a source says in words: which of them pass, and which would come again."""

from __future__ import annotations

import re
from typing import Final

from mdtool.wire.source_stream import Failed, Lost, Rejected

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


def rejection(reason: str, symbol: str | None = None) -> Lost | Rejected | Failed:
    """Return what an error is: `Lost` to try again, unless its words say that this is of no use.

    Parameters
    ----------
    reason : str
        The source's words.
    symbol : str, optional
        Of which the error is, empty where it does not name it; none if it is of all of them.
    """
    if _PASSING.search(reason):
        return Lost(reason)
    if _OF_THE_KEY.search(reason):
        return Failed(reason, is_for_keys=True)
    if symbol is not None:
        return Rejected(symbol, reason)
    return Failed(reason) if _FINAL.search(reason) else Lost(reason)
