"""Finnhub's trades of stocks. Source: its WebSocket API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mdtool.adapters.live.messages import decoded, request
from mdtool.adapters.live.port import Request
from mdtool.core.units import NS_PER_MS
from mdtool.wire.source_stream import Event, Failed, Lot, Rejected, Send, Subscribed, Trade

_KEY: Final = "FINNHUB_API_KEY"
_REGULAR: Final = frozenset({"1"})
"""The condition of a regular trade. The other codes are of trades that are late, of odd lots, out
of hours or for other reasons apart."""
_OF_THE_KEY: Final = re.compile(r"api key|token|auth", re.IGNORECASE)


class FinnhubSession:
    """Subscribes to each symbol. Updates without a volume are no trades."""

    name = "finnhub"
    dataset = "FINNHUB"
    instrument_class = "K"
    schemas = ("trades",)
    keys = (_KEY,)
    lots_url = None

    def __init__(self, request: Request) -> None:
        self._symbols = list(dict.fromkeys(request.symbols))
        self._key = request.keys.get(_KEY, "")

    @property
    def url(self) -> str:
        """As `Session.url`."""
        return f"wss://ws.finnhub.io?token={self._key}"

    def begin(self) -> Iterator[Event]:
        """As `Session.begin`. Nothing acknowledges a subscription."""
        for symbol in self._symbols:
            yield Lot(symbol, "1")
            yield Send(request({"type": "subscribe", "symbol": symbol}))

    def receive(self, text: str) -> Iterator[Event]:
        """As `Session.receive`."""
        message = decoded(text)
        kind = message["type"]
        if kind == "trade":
            yield Subscribed()
            for each in message["data"]:
                size = str(each["v"])
                if size.strip("0.") == "":
                    continue
                conditions = each.get("c") or ()
                yield Trade(
                    each["s"],
                    str(each["p"]),
                    size,
                    each["t"] * NS_PER_MS,
                    is_regular=_REGULAR.issuperset(conditions),
                )
        elif kind == "error":
            reason = str(message.get("msg"))
            yield Failed(reason) if _OF_THE_KEY.search(reason) else Rejected("", reason)
