"""Alpaca's trades and quotes of stocks. Source: its stream of stock prices, version 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from mdtool.adapters.live.messages import chosen, decoded, parts, request, word
from mdtool.adapters.live.port import Request
from mdtool.core.errors import UsageError
from mdtool.wire.source_stream import (
    Event,
    Failed,
    Gap,
    Lost,
    Lot,
    Note,
    Quote,
    Rejected,
    Send,
    Subscribed,
    Trade,
    sequence_of,
    time_ns,
)

_ID, _SECRET = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"
_FEEDS: Final = ("iex", "sip", "test")
_CHANNELS: Final = {"trades": "trades", "mbp-1": "quotes"}
_IRREGULAR: Final = frozenset("BCGHILMNPQRTUVWZ479")
"""Conditions of the SIPs with which a trade does not change the last price: average prices, cash
and next-day sales, odd lots, out of hours or of sequence, prior reference and derived prices,
official opens and closes."""
_OF_THE_KEYS: Final = frozenset({401, 402})
_FINAL: Final = _OF_THE_KEYS | {400, 405, 408, 409, 410}
"""Syntax, symbol limit, version and feed not permitted, channel. What is not among them passes: too
many connections, an authentication that came too late, an internal error."""
_AUTHENTICATED, _SLOW = 403, 407


class AlpacaSession:
    """Authenticates, then subscribes."""

    name = "alpaca"
    instrument_class = "K"
    schemas = tuple(_CHANNELS)
    keys = (_ID, _SECRET)
    lots_url = None
    dataset = "ALPACA"

    def __init__(self, request: Request) -> None:
        self.symbols = list(dict.fromkeys(request.symbols))
        self._keys = request.keys
        self._feed = request.config.dataset or _FEEDS[0]
        if self._feed not in _FEEDS:
            raise UsageError(f"--dataset {self._feed}: alpaca has {', '.join(_FEEDS)}")
        self._channels = [_CHANNELS[name] for name in chosen(request.config.schema, self.schemas)]

    @property
    def url(self) -> str:
        """As `Session.url`."""
        return f"wss://stream.data.alpaca.markets/v2/{self._feed}"

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`: the server greets first."""
        for symbol in self.symbols:
            yield Lot(symbol, "1")

    def receive(self, text: str) -> Iterator[Event]:
        """As `Session.receive`."""
        yield from parts(decoded(text), self._event)

    def _event(self, part: dict[str, Any]) -> Event | None:
        kind = word(part["T"])
        if kind == "success":
            return self._greeted(part["msg"])
        event = _EVENTS.get(kind)
        return event(part) if event is not None else None

    def _greeted(self, what: str) -> Event | None:
        if what == "connected":
            keys = {"key": self._keys.get(_ID, ""), "secret": self._keys.get(_SECRET, "")}
            return Send(request({"action": "auth", **keys}))
        if what == "authenticated":
            channels = dict.fromkeys(self._channels, self.symbols)
            return Send(request({"action": "subscribe", **channels}))
        return None


def _trade(message: dict[str, Any]) -> Trade:
    return Trade(
        message["S"],
        str(message["p"]),
        str(message["s"]),
        time_ns(message["t"]),
        trade_id=_trade_id(message, "i"),
        is_regular=_IRREGULAR.isdisjoint(message.get("c") or ()),
    )


def _quote(message: dict[str, Any]) -> Quote:
    return Quote(
        message["S"],
        str(message["bp"]),
        str(message["bs"]),
        str(message["ap"]),
        str(message["as"]),
        time_ns(message["t"]),
    )


def _correction(message: dict[str, Any]) -> Note:
    return Note(
        f"{message['S']}: trade {_named(message, 'oi')} of {message['os']} at {message['op']} is "
        f"corrected to {_named(message, 'ci')} of {message['cs']} at {message['cp']}"
    )


def _cancellation(message: dict[str, Any]) -> Note:
    named = _named(message, "i")
    return Note(f"{message['S']}: trade {named} of {message['s']} at {message['p']} is cancelled")


def _named(message: dict[str, Any], field: str) -> str:
    """Return an id as the source has it, and as the stream has it."""
    number = _trade_id(message, field)
    return f"{message[field]} (sequence {sequence_of(number)})"


def _trade_id(message: dict[str, Any], field: str) -> int:
    """Return an id that is the only one: the source's are those of an exchange."""
    return int(message[field]) << 8 | ord(message["x"]) & 0xFF


def _error(message: dict[str, Any]) -> Event:
    code, reason = message.get("code"), f"{message.get('msg')} ({message.get('code')})"
    if code == _SLOW:
        return Gap(f"alpaca: {reason}")
    if code == _AUTHENTICATED:
        return Rejected("", reason)
    return Failed(reason, code in _OF_THE_KEYS) if code in _FINAL else Lost(reason)


_EVENTS: Final[dict[str, Callable[[dict[str, Any]], Event]]] = {
    "t": _trade,
    "q": _quote,
    "c": _correction,
    "x": _cancellation,
    "subscription": lambda _: Subscribed(),
    "error": _error,
}
"""What the parts of a message are, by their `T`; others are skipped."""
