"""Where pages of trades begin: what clients say of it, and what they are told of the next one."""

from __future__ import annotations

from mdtool.adapters.stores.port import TradeKey, TradePage
from mdtool.services.gateway.parameters import ParameterError, parse_before
from mdtool.wire.cursors import Cursor, CursorError, decode_cursor, encode_cursor


def parse_place(text: str | None, symbol: str) -> TradeKey | None:
    """Return the key below which a page of a symbol's trades begins, None for the newest.

    Parameters
    ----------
    text : str or None
        The cursor of the page before, or a time in ms since the epoch.
    symbol : str
        Upper-case.

    Raises
    ------
    ParameterError
        When it is neither, or the cursor of another symbol.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        # No trade of that very nanosecond is below: streams and sequences are never negative.
        return TradeKey(parse_before(text), 0, 0)
    try:
        cursor = decode_cursor(text)
    except CursorError as error:
        raise ParameterError(
            f"before: {error}; it wants next_cursor of the page before, or a time in ms"
        ) from error
    if cursor.symbol != symbol:
        raise ParameterError("before: this is a cursor of another symbol")
    return TradeKey(cursor.timestamp_ns, cursor.stream, cursor.sequence)


def place_after(symbol: str, page: TradePage, row: int) -> str:
    """Return the cursor of the page that begins behind one of the trades."""
    return encode_cursor(Cursor(symbol, *page.key(row)))
