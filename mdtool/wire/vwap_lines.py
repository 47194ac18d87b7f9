"""The VWAP feed's lines: a JSON object for each state that is sent, and clients' subscriptions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn

from mdtool.core.errors import PeerError
from mdtool.core.symbols import is_symbol
from mdtool.core.trades import Probe
from mdtool.core.units import PRICE_SCALE, UNDEF_PRICE, format_price

MAX_LINE_BYTES: Final = 1 << 16
ALL: Final = "*"
"""Stands for every symbol in a SUBSCRIBE."""

_SUBSCRIBE: Final = "SUBSCRIBE"
_AUTH: Final = "AUTH"
_SHOWN_CHARS: Final = 40


class LineError(PeerError):
    """A line is not what it should be."""


@dataclass(frozen=True, slots=True)
class VwapState:
    """What the feed sends of a symbol.

    Attributes
    ----------
    symbol : str
    price, volume : int
        Of the latest trade, the price at 1e-9.
    vwap : int
        At 1e-9, UNDEF_PRICE where there is none.
    window : int
        How many trades it is of.
    timestamp_ns : int
        Exchange time of the latest trade.
    lot : int or None
        What one unit of the volume stands for at 1e-9, None where that is 1.
    is_stale : bool
        Whether its source is unavailable; only of gateways, since a feed ends with its source.
    """

    symbol: str
    price: int
    volume: int
    vwap: int
    window: int
    timestamp_ns: int
    lot: int | None = None
    is_stale: bool = False

    @property
    def size(self) -> int:
        """The volume times its lot, at 1e-9."""
        return self.volume * (self.lot or PRICE_SCALE)


def probe_state(probe: Probe) -> VwapState:
    """Return what the feed sends of a probe: its stream as symbol, its sequence as volume."""
    return VwapState(probe.stream_id, 0, probe.sequence, UNDEF_PRICE, 0, 0)


def encode_state(state: VwapState) -> bytes:
    """Return a state as a line, with exact decimal prices and the time in nanoseconds."""
    rest = "" if state.lot is None else f',"lot":{format_price(state.lot)}'
    if state.is_stale:
        rest += ',"stale":true'
    return (
        f'{{"symbol":{json.dumps(state.symbol)},"price":{format_price(state.price) or "null"},'
        f'"volume":{state.volume},"vwap":{format_price(state.vwap) or "null"},'
        f'"window":{state.window},"timestamp":{state.timestamp_ns}{rest}}}\n'
    ).encode()


def decode_state(line: bytes) -> VwapState:
    """Return the state of a line.

    Raises
    ------
    LineError
        When the line is not a state.
    """
    try:
        fields = json.loads(line, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise LineError(f"{shown(line)} is not JSON") from error
    if isinstance(fields, dict) and isinstance(fields.get("error"), str):
        raise LineError(f"the feed reported: {fields['error'][:200]}")
    try:
        state = VwapState(
            fields["symbol"],
            _price(fields["price"]),
            fields["volume"],
            UNDEF_PRICE if fields["vwap"] is None else _price(fields["vwap"]),
            fields["window"],
            fields["timestamp"],
            None if fields.get("lot") is None else _price(fields["lot"]),
            fields.get("stale") is True,
        )
    except (TypeError, KeyError, ArithmeticError) as error:
        raise LineError(f"{shown(line)} is not a state of a VWAP feed") from error
    counts = (state.volume, state.window, state.timestamp_ns, state.lot or 0)
    if not is_symbol(state.symbol) or any(type(count) is not int or count < 0 for count in counts):
        raise LineError(f"{shown(line)} is not a state of a VWAP feed")
    return state


def is_of(line: bytes, symbols: frozenset[str]) -> bool:
    """Return whether a subscription to these symbols gets a line; lines without a state it does."""
    try:
        return decode_state(line).symbol in symbols
    except LineError:
        return True


def encode_error(message: str) -> bytes:
    """Return the line that answers an invalid one."""
    return f'{{"error":{json.dumps(message)}}}\n'.encode()


def encode_subscribe(symbols: Iterable[str]) -> bytes:
    """Return the line that subscribes to symbols."""
    return f"{_SUBSCRIBE} {','.join(sorted(symbols))}\n".encode()


def encode_auth(token: str) -> bytes:
    """Return the line that authenticates a connection by a token."""
    return f"{_AUTH} {token}\n".encode()


def parse_auth(line: bytes) -> str | None:
    """Return the token of a line that authenticates its connection, None where it is another."""
    command, _, token = line.decode("utf-8", "replace").strip().partition(" ")
    return token.strip() if command.upper() == _AUTH else None


def parse_subscribe(line: bytes) -> frozenset[str] | None:
    """Return the symbols that a client subscribes to, as `parse_symbols`, None for all.

    Raises
    ------
    LineError
        When the line is not a subscription.
    """
    try:
        command, _, rest = line.decode("ascii").strip().partition(" ")
    except UnicodeDecodeError as error:
        raise LineError(f"{shown(line)} is not ASCII") from error
    if command.upper() != _SUBSCRIBE:
        raise LineError(f"{shown(line)}: send {_SUBSCRIBE} AAPL,MSFT or {_SUBSCRIBE} {ALL}")
    return parse_symbols(rest)


def parse_symbols(text: str) -> frozenset[str] | None:
    """Return the symbols that are named with commas, upper-case, None for all.

    Raises
    ------
    LineError
        When no symbol is named, or one is not valid.
    """
    if text.strip() == ALL:
        return None
    symbols = frozenset(symbol.strip().upper() for symbol in text.split(",")) - {""}
    if not symbols:
        raise LineError(f"{_SUBSCRIBE} names no symbol; send {_SUBSCRIBE} AAPL,MSFT")
    for symbol in sorted(symbols):
        if not is_symbol(symbol):
            raise LineError(f"{shown(symbol.encode('utf-8', 'replace'))} is not a valid symbol")
    return symbols


def shown(line: bytes) -> str:
    """Return the beginning of a line, for messages."""
    text = line.decode("utf-8", "replace").strip()
    cut = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
    return repr(cut)


def _price(number: Any) -> int:
    if type(number) not in (int, Decimal) or abs(number) > 1 << 63:
        raise TypeError
    price = int(Decimal(number).scaleb(9))
    if not -UNDEF_PRICE - 1 <= price < UNDEF_PRICE:
        raise TypeError
    return price


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
