"""Finnhub's trades of stocks. Source: its WebSocket API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from mdtool.adapters.live.messages import decoded, ms_to_ns, parts, rejection, request, word
from mdtool.adapters.live.port import Request
from mdtool.core.units import fixed_point
from mdtool.wire.source_stream import Event, Lot, Send, Subscribed, Trade

_KEY: Final = "FINNHUB_API_KEY"
_REGULAR: Final = frozenset({"1"})
"""The condition of a regular trade. The other codes are of trades that are late, of odd lots, out
of hours or for other reasons apart."""


class FinnhubSession:
    """Subscribes to each symbol. Updates without a volume are no trades."""

    name = "finnhub"
    dataset = "FINNHUB"
    instrument_class = "K"
    schemas = ("trades",)
    keys = (_KEY,)
    lots_url = None

    def __init__(self, request: Request) -> None:
        self.symbols = list(dict.fromkeys(request.symbols))
        self._key = request.keys.get(_KEY, "")

    @property
    def url(self) -> str:
        """As `Session.url`."""
        return f"wss://ws.finnhub.io?token={self._key}"

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`. Nothing acknowledges a subscription."""
        for symbol in self.symbols:
            yield Lot(symbol, "1")
            yield Send(request({"type": "subscribe", "symbol": symbol}))

    def receive(self, text: str) -> Iterator[Event]:
        """As `Session.receive`."""
        message = decoded(text)
        kind = word(message["type"])
        if kind == "trade":
            yield Subscribed()
            yield from parts(message["data"], _trade)
        elif kind == "error":
            yield rejection(str(message.get("msg")), symbol="")


def _trade(part: dict[str, Any]) -> Trade | None:
    size = str(part["v"])
    if fixed_point(size) == 0:
        return None
    is_regular = _REGULAR.issuperset(part.get("c") or ())
    return Trade(part["s"], str(part["p"]), size, ms_to_ns(part["t"]), is_regular=is_regular)
