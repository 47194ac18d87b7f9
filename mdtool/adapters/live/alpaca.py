"""Alpaca's trades and quotes of stocks. Source: its stream of stock prices, version 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mdtool.adapters.live.messages import chosen, decoded, request
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
    Send,
    Subscribed,
    Trade,
    time_ns,
)

_ID, _SECRET = "APCA_API_KEY_ID", "APCA_API_SECRET_KEY"
_FEEDS: Final = ("iex", "sip", "test")
_CHANNELS: Final = {"trades": "trades", "mbp-1": "quotes"}
_IRREGULAR: Final = frozenset("BCGHILMNPQRTUVWZ479")
"""Conditions of the SIPs with which a trade does not change the last price: average prices, cash
and next-day sales, odd lots, out of hours or of sequence, prior reference and derived prices,
official opens and closes."""
_CONNECTIONS, _SLOW = 406, 407


class AlpacaSession:
    """Authenticates, then subscribes."""

    name = "alpaca"
    instrument_class = "K"
    schemas = tuple(_CHANNELS)
    keys = (_ID, _SECRET)
    lots_url = None
    dataset = "ALPACA"

    def __init__(self, request: Request) -> None:
        self._symbols = list(dict.fromkeys(request.symbols))
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
        for symbol in self._symbols:
            yield Lot(symbol, "1")

    def receive(self, text: str) -> Iterator[Event]:
        """As `Session.receive`."""
        for each in decoded(text):
            match each["T"]:
                case "t":
                    yield _trade(each)
                case "q":
                    yield _quote(each)
                case "success":
                    yield from self._greeted(each["msg"])
                case "subscription":
                    yield Subscribed()
                case "c":
                    yield Note(
                        f"{each['S']}: trade {each['oi']} of {each['os']} at {each['op']} is "
                        f"corrected to {each['ci']} of {each['cs']} at {each['cp']}"
                    )
                case "x":
                    yield Note(
                        f"{each['S']}: trade {each['i']} of {each['s']} at {each['p']} is cancelled"
                    )
                case "error":
                    yield _error(each)

    def _greeted(self, what: str) -> Iterator[Event]:
        if what == "connected":
            keys = {"key": self._keys.get(_ID, ""), "secret": self._keys.get(_SECRET, "")}
            yield Send(request({"action": "auth", **keys}))
        elif what == "authenticated":
            channels = dict.fromkeys(self._channels, self._symbols)
            yield Send(request({"action": "subscribe", **channels}))


def _trade(message: dict[str, Any]) -> Trade:
    return Trade(
        message["S"],
        str(message["p"]),
        str(message["s"]),
        time_ns(message["t"]),
        # An id is one of its exchange's.
        trade_id=int(message["i"]) << 8 | ord(message["x"]) & 0xFF,
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


def _error(message: dict[str, Any]) -> Event:
    code, reason = message.get("code"), f"{message.get('msg')} ({message.get('code')})"
    if code == _CONNECTIONS:
        return Lost(reason)
    return Gap(f"alpaca: {reason}") if code == _SLOW else Failed(reason)
